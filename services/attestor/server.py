"""HTTP on a unix socket: one request after the other, as the hardware gives evidence one at a time.

The gateway is the only client. It sends a head whole, and has waited for a body.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable

from .answers import refusal
from .question import Head, RefusedError, read_head

CLIENT_SECONDS = 5.0
"""What a client has to send its request in, and again to take its answer."""

LARGEST_HEAD = 16384
"""Bytes of a head; the gateway's own buffer is no larger."""

WAITING = 32
"""Clients that may wait for their turn."""

INHERITED = 3
"""The first descriptor that an init system hands over (sd_listen_fds(3))."""

Handle = Callable[[Head, bytes], bytes]
"""Takes a request's head and body, gives the whole answer; may raise RefusedError."""


def listen(path: str) -> socket.socket:
    """The socket that systemd hands over, or one at `path`; who may connect is up to umask and directory."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=INHERITED)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 (pathlib costs at start-up)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(WAITING)
    return listener


def serve_one(listener: socket.socket, handle: Handle, seconds: float) -> None:
    """Answer the next client, if one comes within `seconds`."""
    listener.settimeout(seconds)
    try:
        connection, _ = listener.accept()
    except OSError:  # nobody came, or went again
        return
    with connection, contextlib.suppress(OSError):
        _send(connection, _answer(connection, handle))


def _answer(connection: socket.socket, handle: Handle) -> bytes:
    try:
        head, body = _receive(connection)
        return handle(head, body)
    except RefusedError as error:
        return refusal(error.status, str(error))


def _receive(connection: socket.socket) -> tuple[Head, bytes]:
    deadline = time.monotonic() + CLIENT_SECONDS
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > LARGEST_HEAD:
            raise RefusedError(400, "the head is too long")
        data += _chunk(connection, deadline)
    text, _, body = data.partition(b"\r\n\r\n")
    head = read_head(text)
    while len(body) < head.length:
        body += _chunk(connection, deadline)
    return head, body[: head.length]


def _chunk(connection: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    try:
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        chunk = connection.recv(4096)
    except TimeoutError:
        raise RefusedError(408, "the request took too long") from None
    if not chunk:
        raise RefusedError(400, "the request ends too early")
    return chunk


def _send(connection: socket.socket, answer: bytes) -> None:
    connection.settimeout(CLIENT_SECONDS)
    connection.sendall(answer)
