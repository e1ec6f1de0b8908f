"""Asks an engine over loopback whether it is healthy and lists its model, without ever blocking."""

from __future__ import annotations

import errno
import json
import select
import socket

from .config import EngineConfig
from .core import Probed, Verdict

TIMEOUT = 5.0
"""Seconds for health and models together."""

LARGEST_ANSWER = 1_000_000
"""Bytes; the list of models of one engine is a few hundred."""


LARGEST_MESSAGE = 2000


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
        family = socket.AF_INET6 if ":" in self.engine.host else socket.AF_INET
        self.close()
        self._answer = b""
        self.interest = select.POLLOUT
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = self._socket.connect_ex((self.engine.host, self.engine.port))
        if code not in (0, errno.EINPROGRESS):
            return self._end(Verdict.REFUSED, _words(code))
        return None

    def ready(self) -> Probed | None:
        """Go on after poll(2) reported the descriptor."""
        assert self._socket is not None
        if self.interest == select.POLLOUT:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return self._end(Verdict.REFUSED, _words(code))
            path = self.engine.models_path if self._asked_models else self.engine.health_path
            request = f"GET {path} HTTP/1.0\r\nHost: {self.engine.host}\r\nConnection: close\r\n\r\n"
            self._socket.send(request.encode())  # fits any socket's buffer
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
        if not self._asked_models:
            if status != self.engine.health_status:
                return self._end(Verdict.WRONG, f"{self.engine.health_path} answered {status or 'no HTTP'}")
            if not self.engine.models_path:
                return self._end(Verdict.GOOD, "health is good")
            self._asked_models = True
            return self.start()
        if status != 200 or (self.engine.listed_model or self.engine.model) not in listed_models(body):
            return self._end(Verdict.WRONG, f"the model {self.engine.model} is not listed")
        return self._end(Verdict.GOOD, "health is good and the model is listed")

    def _end(self, verdict: str, reason: str) -> Probed:
        self.close()
        if verdict != Verdict.GOOD:
            reason = own_words(self.engine.state_file) or reason
        return Probed(self.engine.name, verdict, reason)


def own_words(path: str) -> str:
    """What an engine's launcher says of an engine that does not serve; empty when it says nothing of use.

    The file has one line: starting, ready, failed or stopped, and a message. What it says of a process that
    was killed is out of date, so only the first and the third count.
    """
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (pathlib costs at start-up)
            state, _, message = file.readline(LARGEST_MESSAGE).strip().partition(" ")
    except OSError:
        return ""
    return message if state in ("starting", "failed") and message.isprintable() else ""


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
