"""The control socket: what operators ask for, one JSON object in a line, and one as the answer.

Only root and the selector's own user may connect (server.py asks the kernel who it is).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import core
from .config import AUTO
from .core.events import Commanded, Verb
from .report import explained, status
from .server import Reply

if TYPE_CHECKING:
    from .daemon import Daemon

WRONG, REFUSED = 2, 1
"""Exit statuses of the command line that errors lead to: no command, or one that cannot be carried out."""


class CommandError(Exception):
    """Why a command is refused, in a line; `code` is the command line's exit status."""

    def __init__(self, text: str, code: int = REFUSED) -> None:
        super().__init__(text)
        self.code = code


class Commands:
    """Answers the control socket."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def handle(self, data: bytes, reply: Reply) -> None:
        """Carry out a request and answer it."""
        try:
            answer = self._answer(parse(data))
        except CommandError as error:
            answer = {"error": str(error), "code": error.code}
        reply(json.dumps(answer).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, object]:
        daemon, do = self.daemon, request["do"]
        if do == "status":
            return status(daemon.state, daemon.config, daemon.facts(), daemon.clock())
        if do == "explain":
            return explained(daemon.state, daemon.config, daemon.facts(), daemon.clock())
        if do == "reload":
            problem = daemon.reload()
            if problem:
                raise CommandError(problem)
            return {"done": "reloaded"}
        if do == "policy":
            return self._policy(request.get("policy", ""), request.get("prefer", []))
        at = daemon.clock()
        name = request.get("engine", "")
        if name:
            self._known(name)
        if do == "switch":
            self._command(Commanded(Verb.SWITCH, name))
        elif do == "drain":
            if name and name != daemon.state.active:
                raise CommandError(f"{name} has no requests: {daemon.state.active or 'none'} is active")
            self._command(Commanded(Verb.DRAIN))
        elif do == "undrain":
            self._command(Commanded(Verb.UNDRAIN))
        return {"done": do, "at": at}

    def _policy(self, policy: str, prefer: list[str]) -> dict[str, object]:
        for name in [*prefer, *([policy] if policy not in ("", AUTO) else [])]:
            self._known(name, also=AUTO if name == policy else "")
        if len(set(prefer)) != len(prefer):
            raise CommandError("an engine is there twice", WRONG)
        policy = policy or self.daemon.state.policy
        words = core.refusal(self.daemon.state, Commanded(Verb.POLICY, policy))
        if words:
            raise CommandError(words)
        if prefer:
            self.daemon.prefer(tuple(prefer))  # another order takes commands back, so it comes first
        self._command(Commanded(Verb.POLICY, policy))
        return {"done": "policy", "policy": policy, "preference": list(self.daemon.state.preference)}

    def _known(self, name: str, also: str = "") -> None:
        names = self.daemon.state.preference
        if name not in names:
            allowed = ", ".join([*([also] if also else []), *names])
            raise CommandError(f"{name[:40]!r} is not one of {allowed}", WRONG)

    def _command(self, command: Commanded) -> None:
        words = core.refusal(self.daemon.state, command)
        if words:
            raise CommandError(words)
        self.daemon.step(command)


def parse(data: bytes) -> dict[str, Any]:
    """A request, with values of the right types.

    Raises:
        CommandError: it is none.
    """
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        raise CommandError("not a JSON object in a line", WRONG) from None
    if not isinstance(request, dict) or request.get("do") not in COMMANDS:
        raise CommandError(f"not one of {', '.join(COMMANDS)}", WRONG)
    for key, value in request.items():
        if key in ("do", "engine", "policy"):
            if not isinstance(value, str):
                raise CommandError(f"{key} must be text", WRONG)
        elif key == "prefer":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise CommandError("prefer must be a list of names", WRONG)
        else:
            raise CommandError(f"{key[:40]!r} is not known", WRONG)
    return request


COMMANDS = ("status", "explain", "switch", "policy", "drain", "undrain", "reload")
