"""Telling of the engine's state: to systemd, to the selector through a file, to the log."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

DIRECTORY = "/run/hal/engines"
"""Each engine's directory in it has a file `state` with one line, `STATE MESSAGE`, for the selector.

STATE is starting, ready, failed, unable or stopped.
"""

UNABLE = "unable"
"""It has failed, and will again until somebody mends the machine, the image or the spec."""


class Report:
    """Where the launcher tells of one engine."""

    def __init__(self, name: str, directory: str = DIRECTORY) -> None:
        self._state = f"{directory}/{name}/state"
        self._notified = os.environ.get("NOTIFY_SOCKET", "")

    def status(self, state: str, message: str, *assignments: str) -> None:
        """The engine's state in a word, and in a line for people; `assignments` as in sd_notify(3)."""
        fresh = f"{self._state}.new"
        with contextlib.suppress(OSError):  # without the directory (run by hand) there is no file
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, 0o644)  # whatever the unit's UMask says: the selector reads it
                file.write(f"{state} {message}\n")
            os.rename(fresh, self._state)  # noqa: PTH104 (pathlib costs at start-up)
        self._notify("\n".join([f"STATUS={message}", *assignments]))

    def extend(self, seconds: float) -> None:
        """Ask systemd for more time to start or to stop."""
        self._notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def log(self, text: str) -> None:
        """A line for the journal or the system log, whichever reads standard error."""
        print(f"hal-engine: {text}", file=sys.stderr, flush=True)

    def _notify(self, text: str) -> None:
        """sd_notify(3), whose whole protocol is a datagram: importing systemd's library would cost more."""
        if not self._notified:
            return
        address = f"\0{self._notified[1:]}" if self._notified.startswith("@") else self._notified
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), address)
