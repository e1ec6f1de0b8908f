"""HAProxy's runtime API over its admin socket (HAProxy management guide, chapter 9.3).

The connection is kept in the API's interactive mode: when it ends, HAProxy has ended, so that a
restart is noticed at once and nothing has to be polled.
"""

from __future__ import annotations

import socket

PROMPT = b"\n> "
TIMEOUT = 1.0
"""Seconds for one command; HAProxy takes at most 10 ms under full load."""


class GatewayError(Exception):
    """The runtime API did not do as told; the message says why."""


class Gateway:
    """A connection to the runtime API."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None

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

    def set_server(self, server: str, ready: bool) -> None:
        """Make `server` ("backend/server") take requests or put it into maintenance.

        Raises:
            GatewayError: the connection ended, or HAProxy knows no such server.
        """
        answer = self._ask(f"set server {server} state {'ready' if ready else 'maint'}").strip()
        if answer:
            raise GatewayError(f"{server}: {answer.decode(errors='replace')}")

    def _ask(self, command: str) -> bytes:
        if self._socket is None:
            raise GatewayError("not connected")
        try:
            self._socket.sendall(f"{command}\n".encode())
            answer = b""
            while not answer.endswith(PROMPT):
                chunk = self._socket.recv(4096)
                if not chunk:
                    raise GatewayError("the connection ended")
                answer += chunk
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
