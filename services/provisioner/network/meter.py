"""Rates of what is being fetched, smoothed over some seconds."""

from __future__ import annotations

HALF = 3.0
"""Seconds after which a rate counts half."""


class Meter:
    """Bytes per second of one file."""

    def __init__(self, now: float) -> None:
        self.rate = 0.0
        self._count = 0
        self._at = now
        self._first = True

    def add(self, count: int, now: float) -> float:
        """Take in the bytes of this attempt so far; the rate."""
        passed = now - self._at
        if passed <= 0:
            return self.rate
        fresh = max(0, count - self._count) / passed
        keep = 0.0 if self._first else 0.5 ** (passed / HALF)
        self.rate = keep * self.rate + (1 - keep) * fresh
        self._count, self._at, self._first = count, now, False
        return self.rate
