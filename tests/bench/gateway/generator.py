"""The load generator, load.c, under this program's control."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal.errors import HalError

PROXY_CPU, LOAD_CPU = 0, 1
"""What is measured has one CPU for itself; generator and upstream share the other."""


@dataclass(frozen=True)
class Requests:
    """A closed loop's result: requests counted, seconds, and times in microseconds."""

    completed: int
    seconds: float
    p50: float
    p99: float
    busy: float
    """Share of its CPU that the generator took: near 1, it is what was measured."""


@dataclass(frozen=True)
class Streams:
    """So many streams: whether all went on to the end, and gaps between their events in microseconds."""

    count: int
    complete: bool
    p50: float
    p99: float
    late: float
    busy: float


class Generator:
    """The process; its upstream listens on `port`."""

    def __init__(self, program: Path, port: int, work: Path) -> None:
        self.port = port
        self._work = work
        argv = ["taskset", "-c", str(LOAD_CPU), str(program), str(port)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def requests(self, port: int, connections: int, seconds: float, request: bytes) -> Requests:
        """Send `request` again and again on so many connections.

        Raises:
            HalError: an answer failed, or had another status than 200.
        """
        return self.counted(port, connections, seconds, request)[0]

    def counted(self, port: int, connections: int, seconds: float, request: bytes) -> tuple[Requests, int]:
        """The same, and the number of all requests, those of the warm-up as well.

        Raises:
            HalError: an answer failed, or had another status than 200.
        """
        found = self._ask("requests", port, connections, seconds, request)
        if found["failed"] or found["refused"]:
            words = f"{found['failed']} requests failed, {found['refused']} had another status than 200"
            raise HalError(words)
        result = Requests(found["completed"], found["seconds"], found["p50"], found["p99"], found["busy"])
        return result, found["all"]

    def streams(self, port: int, count: int, seconds: float, request: bytes) -> Streams:
        """Hold so many streams and look at the gaps between their events.

        Raises:
            HalError: an answer had another status than 200.
        """
        found = self._ask("streams", port, count, seconds, request)
        if found["refused"]:
            raise HalError(f"{found['refused']} streams were answered with another status than 200")
        complete = (
            found["begun"] == count and not found["ended_early"] and found["gaps"] > 0.2 * found["expected"]
        )
        return Streams(count, complete, found["p50"], found["p99"], found["late_p99"], found["busy"])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _ask(self, verb: str, port: int, count: int, seconds: float, request: bytes) -> dict[str, Any]:
        file = self._work / "request"
        file.write_bytes(request)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{verb} {port} {count} {seconds:g} {file}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            found: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise HalError(f"the load generator ended (exit status {self._process.poll()})") from error
        return found


def request(port: int, token: str, *, events: int = 0) -> bytes:
    """A chat request as clients send it, streamed with so many events if there are any."""
    body: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": events or 7,
    }
    if events:
        body["stream"] = True
    data = json.dumps(body, separators=(",", ":"))
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: hal-bench",
        "Accept: application/json",
        "Content-Type: application/json",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(data)}",
    )
    return "\r\n".join([*head, "", data]).encode()
