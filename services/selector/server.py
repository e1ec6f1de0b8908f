"""The selector's two unix sockets: a request in, an answer out, never blocking the loop."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable

from .loop import READ, WRITE, Loop

CLIENT_TIMEOUT = 5.0
"""Seconds a client has to send its request, and again to take its answer."""

MOST_CLIENTS = 32
"""Clients of one socket at once; the gateway, or an operator, is the only one."""

LARGEST_REQUEST = 16384
"""Bytes of a request; the gateway's own buffer is no larger."""

Reply = Callable[[bytes], None]
Handle = Callable[[bytes, Reply], None]
"""Takes a whole request and, now or later, gives its answer to the second argument."""


class Server:
    """Listens on a path.

    `end` is what a request ends with; `allowed` are users who may connect (None: all). `connected` is told
    the process of each that does.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        end: bytes,
        handle: Handle,
        *,
        mode: int | None = None,
        allowed: frozenset[int] | None = None,
        connected: Callable[[int], None] | None = None,
    ) -> None:
        self.loop = loop
        self.path = path
        self.end = end
        self.handle = handle
        self.allowed = allowed
        self.connected = connected
        self.clients: set[Client] = set()
        self.listener = listen(path, mode)
        loop.watch(self.listener.fileno(), READ, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        process, user = peer(connection)
        if self.connected is not None:
            self.connected(process)
        if len(self.clients) >= MOST_CLIENTS or (self.allowed is not None and user not in self.allowed):
            connection.close()
            return
        connection.setblocking(False)
        self.clients.add(Client(self, connection))

    def close(self) -> None:
        """Give every descriptor back and take the socket away."""
        for client in list(self.clients):
            client.drop()
        self.loop.forget(self.listener.fileno())
        self.listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108 (pathlib costs at start-up)


class Client:
    """A connection: it sends one request and gets one answer."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self._data = b""
        self._gone = False
        self._wait(READ, self._read)

    def _wait(self, interest: int, handler: Callable[[], None]) -> None:
        loop = self.server.loop
        loop.watch(self.connection.fileno(), interest, handler, loop.clock() + CLIENT_TIMEOUT, self.drop)

    def _read(self) -> None:
        try:
            chunk = self.connection.recv(LARGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._data += chunk
        if not chunk:
            self.drop()
        elif self.server.end in self._data or len(self._data) >= LARGEST_REQUEST:
            self.server.loop.forget(self.connection.fileno())  # until there is an answer
            self.server.handle(self._data, self._reply)

    def _reply(self, answer: bytes) -> None:
        if not self._gone:
            self._data = answer
            self._write()

    def _write(self) -> None:
        try:
            self._data = self._data[self.connection.send(self._data) :]
        except BlockingIOError:
            pass
        except OSError:  # the client has gone: nobody is left to tell
            self._data = b""
        if self._data:
            self._wait(WRITE, self._write)
        else:
            self.drop()

    def drop(self) -> None:
        """End the connection."""
        if not self._gone:
            self._gone = True
            self.server.clients.discard(self)
            self.server.loop.forget(self.connection.fileno())
            self.connection.close()


class Fetch:
    """One answer from a server on a unix socket: all that it sends until it closes, or nothing in time."""

    LARGEST = 8_000_000

    def __init__(self, loop: Loop, path: str, request: bytes, seconds: float, done: Reply) -> None:
        self.loop = loop
        self.request = request
        self.done = done
        self.deadline = loop.clock() + seconds
        self.answer = bytearray()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self.socket.connect(path)  # a unix socket connects at once, or not at all
        except OSError:
            self._end(b"")
            return
        self._wait(WRITE, self._send)

    def _wait(self, interest: int, handler: Callable[[], None]) -> None:
        self.loop.watch(self.socket.fileno(), interest, handler, self.deadline, lambda: self._end(b""))

    def _send(self) -> None:
        try:
            self.socket.send(self.request)  # a line or two: fits any socket's buffer
        except OSError:
            self._end(b"")
            return
        self._wait(READ, self._receive)

    def _receive(self) -> None:
        try:
            chunk = self.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            self._end(b"")
            return
        self.answer += chunk
        if not chunk:
            self._end(bytes(self.answer))
        elif len(self.answer) > self.LARGEST:
            self._end(b"")

    def _end(self, answer: bytes) -> None:
        self.loop.forget(self.socket.fileno())
        self.socket.close()
        self.done(answer)


def listen(path: str, mode: int | None = None) -> socket.socket:
    """A listening socket at `path`; without a mode, who may connect is up to the unit's UMask and Group."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(path)
    if mode is not None:
        os.chmod(path, mode)  # noqa: PTH101
    listener.listen(MOST_CLIENTS)
    return listener


def peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, from the kernel (unix(7), SO_PEERCRED)."""
    process, user, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(process), int(user)
