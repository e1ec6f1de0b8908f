"""sd_notify(3), whose whole protocol is a datagram: importing systemd's library would cost more."""

from __future__ import annotations

import contextlib
import os
import socket

PATIENCE = 0.5
"""Seconds that a word waits for who is slow to listen; then it is lost, and another one follows."""


class Notify:
    """Tells systemd, where it listens."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""

    def send(self, *assignments: str) -> None:
        """Assignments as in sd_notify(3)."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(PATIENCE)
            sender.sendto("\n".join(assignments).encode(), self._address)

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        if text != self._status:
            self._status = text
            self.send(f"STATUS={text}")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or to stop."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")
