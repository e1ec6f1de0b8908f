"""How long to wait: before an engine is trusted again, and before a start is tried again."""

from __future__ import annotations

FAILBACK = 30.0
"""Seconds that a preferred engine has to be healthy without a break before requests go back to it."""

LONGEST_FAILBACK = 600.0
FLAP_WINDOW = 600.0
"""Seconds for which a loss of health counts as a flap."""

FIRST_RETRY = 5.0
"""Seconds after a first start in vain; twice as many after each further one."""

LONGEST_RETRY = 300.0


def lately(losses: tuple[float, ...], now: float) -> tuple[float, ...]:
    """The losses of health that still count."""
    return tuple(at for at in losses if now - at < FLAP_WINDOW)


def hold(losses: tuple[float, ...], now: float) -> float:
    """Seconds of health that are asked of an engine before requests go back to it.

    Losing its health once is what a fail-back comes after; each further time is a flap and doubles it.
    """
    flaps = max(0, len(lately(losses, now)) - 1)
    return min(LONGEST_FAILBACK, FAILBACK * 2.0 ** min(flaps, 10))


def backoff(attempts: int) -> float:
    """Seconds between the end of a start in vain, the last of `attempts` in a row, and the next one."""
    return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(attempts - 1, 10))
