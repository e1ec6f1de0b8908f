"""Asks an engine whether it is healthy and lists its model, without ever blocking.

An engine of this machine is asked over loopback. An endpoint elsewhere is asked through the gateway's own
listener for it, a unix socket: it adds the key, which the selector never has, and says why when it cannot.
"""

from __future__ import annotations

import errno
import json
import select
import socket

from .config import UNIX, EngineConfig
from .core.events import Probed, Verdict

TIMEOUT = 5.0
"""Seconds for health and models together."""

LARGEST_ANSWER = 1_000_000
"""Bytes; the list of models of one engine is a few hundred."""


LARGEST_MESSAGE = 2000

WHY = b"x-hal-reason"
"""The header in which the gateway's listener for an endpoint elsewhere says why it has no answer of it."""

NO_CREDENTIAL = "the credential "
"""What its words begin with where it has no key (hal/render/upstream.py)."""

LONGEST_WHY = 200

LOCAL_NAME = "localhost"


class Probe:
    """One probe: GET the health path, then the models path, each over a connection of its own.

    `start` and `ready` (called when poll(2) reports the descriptor) and `expire` return the result
    once there is one; until then `fileno` and `interest` say what to wait for.
    """

    def __init__(self, engine: EngineConfig, now: float) -> None:
        self.engine = engine
        self.deadline = now + TIMEOUT
        self.interest = select.POLLOUT
        self._asked_models = False
        self._answer = b""
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        """The descriptor to wait on."""
        assert self._socket is not None
        return self._socket.fileno()

    def start(self) -> Probed | None:
        """Connect for the next path."""
        self.close()
        self._answer = b""
        self.interest = select.POLLOUT
        family, address = _address(self.engine)
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = self._socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            return self._end(Verdict.REFUSED, self._refused(code))
        return None

    def ready(self) -> Probed | None:
        """Go on after poll(2) reported the descriptor."""
        assert self._socket is not None
        if self.interest == select.POLLOUT:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return self._end(Verdict.REFUSED, self._refused(code))
            path = self.engine.models_path if self._asked_models else self.engine.health_path
            host = LOCAL_NAME if self.engine.host.startswith(UNIX) else self.engine.host
            request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            try:
                self._socket.send(request.encode())  # fits any socket's buffer
            except OSError as error:
                return self._end(Verdict.REFUSED, _words(error.errno or 0))
            self.interest = select.POLLIN
            return None
        try:
            chunk = self._socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            return self._end(Verdict.REFUSED, _words(error.errno or 0))
        self._answer += chunk
        if len(self._answer) > LARGEST_ANSWER:
            return self._end(Verdict.WRONG, "the answer is too long")
        return self._judge() if not chunk else None

    def expire(self) -> Probed:
        """The deadline has passed."""
        return self._end(Verdict.SLOW, f"no answer within {TIMEOUT:g} s")

    def close(self) -> None:
        """Give the descriptor back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _judge(self) -> Probed | None:
        status, body = parse_answer(self._answer)
        engine = self.engine
        why = header(self._answer, WHY) if engine.host.startswith(UNIX) else ""
        if why:
            return self._end(Verdict.REFUSED, f"{engine.base_url}: {why}", why.startswith(NO_CREDENTIAL))
        if not self._asked_models:
            if status != engine.health_status:
                words = status or "no HTTP"
                if engine.host.startswith(UNIX):
                    words = _REMOTE.get(status, f"it answers {words}")
                    return self._end(Verdict.WRONG, f"{engine.base_url}: {words}", status in _LASTING)
                return self._end(Verdict.WRONG, f"{engine.health_path} answered {words}")
            wanted = wanted_models(engine)
            if not engine.models_path or not wanted:
                return self._end(Verdict.GOOD, "health is good")
            if engine.models_path != engine.health_path:
                self._asked_models = True
                return self.start()
        there = listed_models(body) if status == 200 else frozenset()
        for listed, model in wanted_models(engine).items():
            if listed not in there:
                return self._end(Verdict.WRONG, f"the model {model} is not listed")
        return self._end(Verdict.GOOD, "health is good and the model is listed")

    def _refused(self, code: int) -> str:
        if self.engine.host.startswith(UNIX):
            return "the gateway's listener for it is away"
        return _words(code)

    def _end(self, verdict: str, reason: str, lasting: bool = False) -> Probed:
        self.close()
        if verdict != Verdict.GOOD:
            reason = own_words(self.engine.state_file) or reason
        return Probed(self.engine.name, verdict, reason, lasting)


_REMOTE = {
    401: "it refuses the key (401)",
    403: "it forbids the key (403)",
    404: "it has no list of models there (404): is the path of the URL right?",
    429: "it takes no more requests for now (429)",
}
"""What an endpoint elsewhere means by its answers."""

_LASTING = (401, 403, 404)
"""Answers that stay so until somebody gives it another key, or another URL."""


def _address(engine: EngineConfig) -> tuple[int, str | tuple[str, int]]:
    """The address family and the address of an engine."""
    if engine.host.startswith(UNIX):
        return socket.AF_UNIX, engine.host.removeprefix(UNIX)
    return socket.AF_INET6 if ":" in engine.host else socket.AF_INET, (engine.host, engine.port)


def wanted_models(engine: EngineConfig) -> dict[str, str]:
    """What must be in the engine's list, and the names that people know it by."""
    found = {}
    if engine.model:
        found[engine.listed_model or engine.model] = engine.model
    if engine.orchestrator_model and engine.orchestrator_model != engine.model:
        found[engine.listed(engine.orchestrator_model)] = engine.orchestrator_model
    return found


def header(answer: bytes, name: bytes) -> str:
    """A header of an HTTP answer, as printable text of bounded length; empty where it is not there."""
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            text = value.strip().decode("ascii", "replace")[:LONGEST_WHY]
            return "".join(c for c in text if c.isprintable())
    return ""


def own_words(path: str) -> str:
    """What an engine's launcher says of an engine that does not serve; empty when it says nothing of use.

    The file has one line: starting, ready, failed, unable or stopped, and a message. What it says of a
    process that was killed is out of date, so `ready` and `stopped` do not count.
    """
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (pathlib costs at start-up)
            state, _, message = file.readline(LARGEST_MESSAGE).strip().partition(" ")
    except OSError:
        return ""
    return message if state in ("starting", "failed", "unable") and message.isprintable() else ""


def parse_answer(answer: bytes) -> tuple[int, bytes]:
    """Status (0 if there is none) and body of a complete HTTP/1 answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(None, 2)
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/1.") or not fields[1].isdigit():
        return 0, b""
    return int(fields[1][:3]), body


def listed_models(body: bytes) -> frozenset[str]:
    """The ids in an OpenAI list of models; empty for anything else."""
    try:
        return frozenset(entry["id"] for entry in json.loads(body)["data"] if isinstance(entry["id"], str))
    except (ValueError, TypeError, KeyError, RecursionError):
        return frozenset()


def _words(code: int) -> str:
    return "nothing listens" if code == errno.ECONNREFUSED else errno.errorcode.get(code, str(code))
