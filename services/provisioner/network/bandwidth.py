"""A limit of bytes per second, shared by all transfers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST = 0.25
"""Seconds' worth of bytes that may come at once."""


class Bucket:
    """A token bucket: who takes bytes waits until the rate allows them. Threads share it.

    `rate` is in bytes per second; None: no limit.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._free = clock()  # when all that was taken so far is paid for
        self._lock = threading.Lock()

    def chunk(self, most: int) -> int:
        """How many bytes to read at once, at most `most`, so that a low rate still flows evenly."""
        return most if self.rate is None else max(1024, min(most, int(self.rate / 8)))

    def reserve(self, count: int) -> float:
        """Take bytes; the seconds to wait before they may be used."""
        if self.rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._free = max(self._free, now - BURST) + count / self.rate
            return max(0.0, self._free - now)

    def take(self, count: int, stop: threading.Event) -> bool:
        """Take bytes and wait until they may be used; False: told to stop meanwhile."""
        pause = self.reserve(count)
        return not (pause and stop.wait(pause))
