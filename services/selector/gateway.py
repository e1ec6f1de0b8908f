"""HAProxy's runtime API over its admin socket (HAProxy management guide, chapter 9.3).

The connection is kept in the API's interactive mode: when it ends, HAProxy has ended, so that a
restart is noticed at once and nothing has to be polled.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

PROMPT = b"\n> "
TIMEOUT = 1.0
"""Seconds for one command; HAProxy takes at most 10 ms under full load."""

LARGEST_ANSWER = 1_000_000


class GatewayError(Exception):
    """The runtime API did not do as told; the message says why."""


class Gateway:
    """A connection to the runtime API; `process` is which of HAProxy's answers it, "" if it does not say."""

    def __init__(self, path: str) -> None:
        self.process = ""
        self._path = path
        self._socket: socket.socket | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._socket is not None

    def fileno(self) -> int:
        """The descriptor that becomes readable when HAProxy ends.

        Raises:
            GatewayError: not connected.
        """
        if self._socket is None:
            raise GatewayError("not connected")
        return self._socket.fileno()

    def connect(self) -> None:
        """Connect anew.

        Raises:
            GatewayError: nobody answers.
        """
        self.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self.close()
            raise GatewayError(f"{self._path}: {error.strerror}") from None
        self._ask("prompt")
        self.process = process_of(self._ask("show info").decode(errors="replace"))

    def set_server(self, server: str, ready: bool) -> None:
        """Make `server` ("backend/server") take requests or put it into maintenance.

        Raises:
            GatewayError: the connection ended, or HAProxy knows no such server.
        """
        self._do(f"set server {server} state {'ready' if ready else 'maint'}", server)

    def streams(self, servers: Iterable[str]) -> int:
        """Requests that are open at these servers, those that wait for them included.

        Raises:
            GatewayError: as `set_server`.
        """
        total = 0
        for server in servers:
            backend, _, name = server.partition("/")
            answer = self._ask(f"show stat {backend} 4 -1").decode(errors="replace")
            count = open_requests(answer, name)
            if count is None:
                raise GatewayError(f"{server}: {answer.strip()[:80]}")
            total += count
        return total

    def cut(self, servers: Iterable[str]) -> None:
        """End all requests that are open at these servers; their clients see an answer that is not whole.

        Raises:
            GatewayError: as `set_server`.
        """
        for server in servers:
            self._do(f"shutdown sessions server {server}", server)

    def maps(self) -> frozenset[str]:
        """The files of maps that its configuration uses.

        Raises:
            GatewayError: the connection ended.
        """
        return map_files(self._ask("show map").decode(errors="replace"))

    def replace_map(self, path: str, entries: Iterable[tuple[str, str]]) -> None:
        """Put new entries into a map, all at once: no request sees half of them.

        Raises:
            GatewayError: HAProxy has no such map, or does not take an entry; the old ones stay then.
        """
        answer = self._ask(f"prepare map {path}").decode(errors="replace").strip()
        version = answer.rpartition(" ")[2]
        if not answer.startswith("New version created") or not version.isdigit():
            raise GatewayError(f"{path}: {answer}")
        for key, value in entries:
            self._do(f"add map @{version} {path} {key} {value}", path)
        self._do(f"commit map @{version} {path}", path)

    def _do(self, command: str, what: str) -> None:
        answer = self._ask(command).strip()
        if answer:
            raise GatewayError(f"{what}: {answer.decode(errors='replace')[:200]}")

    def _ask(self, command: str) -> bytes:
        if self._socket is None:
            raise GatewayError("not connected")
        deadline = time.monotonic() + TIMEOUT
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.sendall(f"{command}\n".encode())
            answer = b""
            while not answer.endswith(PROMPT):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise GatewayError(f"no answer within {TIMEOUT:g} s")
                self._socket.settimeout(left)
                chunk = self._socket.recv(65536)
                if not chunk:
                    raise GatewayError("the connection ended")
                answer += chunk
                if len(answer) > LARGEST_ANSWER:
                    raise GatewayError("the answer is too long")
        except OSError as error:
            self.close()
            raise GatewayError(str(error)) from None
        except GatewayError:
            self.close()
            raise
        return answer.removesuffix(PROMPT)

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def process_of(table: str) -> str:
    """The process in an answer of `show info`; "" where it is not in it."""
    lines = (line.partition(": ") for line in table.splitlines())
    return next((value.strip() for key, _, value in lines if key == "Pid"), "")


def map_files(table: str) -> frozenset[str]:
    """The files in an answer of `show map`: lines such as `-1 (/path/of/the/file) pattern loaded from …`."""
    found = set()
    for line in table.splitlines():
        number, opened, rest = line.partition(" (")
        path, closed, _ = rest.partition(") ")
        if opened and closed and number.lstrip("-").isdigit():
            found.add(path)
    return frozenset(found)


def open_requests(table: str, server: str) -> int | None:
    """Requests at a server, in an answer of `show stat` (CSV); None where the server is not in it."""
    lines = table.strip().splitlines()
    if not lines or not lines[0].startswith("# pxname,"):
        return None
    names = lines[0].removeprefix("# ").split(",")
    for line in lines[1:]:
        row = dict(zip(names, line.split(","), strict=False))
        if row.get("svname") == server:
            found = [row.get(column, "") or "0" for column in ("qcur", "scur")]
            return sum(int(text) for text in found) if all(text.isdigit() for text in found) else None
    return None
