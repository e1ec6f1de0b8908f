"""How often the hardware is asked for evidence: a bucket of tokens that fills by itself. Pure.

A TPM takes some tenths of a second for a quote, and one at a time. The gateway limits each address; this
limit is for all together.
"""

from __future__ import annotations

import math

BURST = 30
"""Questions that are answered at once after a pause."""

PER_SECOND = 5.0
"""Questions that are answered for long."""


class Limit:
    """`now` is any clock in seconds that never runs backwards."""

    def __init__(self, now: float, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._burst = burst
        self._rate = per_second
        self._left = float(burst)
        self._seen = now

    def take(self, now: float) -> int:
        """Take one; 0, or the whole seconds after which there is one again."""
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left >= 1:
            self._left -= 1
            return 0
        return max(1, math.ceil((1 - self._left) / self._rate))
