"""The control socket: one JSON object per line, answers as JSON lines; a descriptor may come along.

The last answer of a command has the key `ok`. Only root and the provisioner's own user are heard.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

MODE = 0o600
TIMEOUT = 10.0
"""Seconds for a client to send its line; an import takes as long as it takes."""

MOST_CLIENTS = 8
LARGEST = 4096
_CREDENTIALS = struct.Struct("3i")

Answer = Callable[[dict[str, Any]], None]
Handle = Callable[[dict[str, Any], int | None, Answer], None]
"""Carries out a command; the second is a descriptor that came along (and is closed by us)."""


class Control:
    """Listens on a path, with a thread for each client."""

    def __init__(self, path: str, handle: Handle) -> None:
        self.path = path
        self._handle = handle
        self._slots = threading.Semaphore(MOST_CLIENTS)
        self._listener = _listen(path)
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Take the socket away."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108 (pathlib costs at start-up)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not _may(client) or not self._slots.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), name="client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        received: list[int] = []
        try:
            client.settimeout(TIMEOUT)
            line = _receive(client, received)
            client.settimeout(None)
            command = json.loads(line)
            if not isinstance(command, dict):
                raise ValueError("not an object")
            self._handle(command, received[0] if received else None, lambda answer: _send(client, answer))
        except (OSError, ValueError, RecursionError):
            with contextlib.suppress(OSError):
                _send(client, {"ok": False, "error": "not a command"})
        finally:
            for descriptor in received:
                os.close(descriptor)
            client.close()
            self._slots.release()


def ask(path: str, command: dict[str, Any], descriptor: int | None = None) -> tuple[socket.socket, Any]:
    """The client's side: send a command; a connection and its answers' lines.

    Raises:
        OSError: nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
        line = json.dumps(command).encode() + b"\n"
        if descriptor is None:
            connection.sendall(line)
        else:
            socket.send_fds(connection, [line], [descriptor])
    except BaseException:
        connection.close()
        raise
    return connection, connection.makefile("r", encoding="utf-8")


def _receive(client: socket.socket, received: list[int]) -> bytes:
    """A line, and what descriptors come with it."""
    data = b""
    while b"\n" not in data:
        room = socket.CMSG_SPACE(4 * array.array("i").itemsize)
        chunk, extra, _, _ = client.recvmsg(LARGEST, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                received += descriptors
        data += chunk
        if not chunk or len(data) > LARGEST:
            raise ValueError("no line")
    return data


def _send(client: socket.socket, answer: dict[str, Any]) -> None:
    client.sendall(json.dumps(answer).encode() + b"\n")


def _listen(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~MODE)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(MOST_CLIENTS)
    return listener


def _may(client: socket.socket) -> bool:
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(found)[1] in (0, os.geteuid())
