"""When a file is tried again, and where: a pure schedule of one file over its places.

An attempt is one connection to one place. A failure leads to the next place at once; after the last place it
waits, longer each time, and begins with the first. Places that refused for good are left out; when all have,
or when so many attempts in a row have failed, the file is given up (for this round).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ..config import Policy

LONGEST_RETRY_AFTER = 600.0
"""Seconds that a server may put us off."""

PROGRESS_BYTES = 1024 * 1024
PROGRESS_SHARE = 100
"""An attempt has brought something new with so many bytes, or with one part in so many of the file."""

WRONG_BYTES = 2
"""Whole files with a wrong SHA-256 from the same place, of which the last one is its final word."""


class End(StrEnum):
    """Why a file is given up: every place has refused for good, or the attempts are used."""

    NONE = ""
    REFUSED = "refused"
    USED = "used"


class Failure(NamedTuple):
    """How an attempt failed. `held`: bytes that are held of the file now.

    `counts` is false where it is nobody's fault (no network at all).
    """

    place: int
    words: str
    held: int
    permanent: bool = False
    wrong_bytes: bool = False
    retry_after: float | None = None
    counts: bool = True


class Schedule(NamedTuple):
    """One file's attempts in this round.

    `place` is asked next, not before `at`. `failures` are those in a row, `waits` the back-offs in a row,
    `best` the most bytes that were ever held; `refused` are places that failed for good, `wrong` those that
    gave wrong bytes, once each time; `holds` are times before which a place asked not to be asked.
    """

    place: int = 0
    at: float = 0.0
    failures: int = 0
    waits: int = 0
    best: int = 0
    refused: frozenset[int] = frozenset()
    wrong: tuple[int, ...] = ()
    holds: tuple[tuple[int, float], ...] = ()
    end: End = End.NONE
    error: str = ""


def failed(
    schedule: Schedule, policy: Policy, places: int, size: int, failure: Failure, now: float, draw: float
) -> Schedule:
    """The schedule after an attempt has failed; its file of `size` bytes can be had at so many `places`.

    `draw` is a random number from 0 up to 1, for the jitter.
    """
    gained = 0 if failure.wrong_bytes else failure.held - schedule.best
    anew = gained > 0 and gained >= min(PROGRESS_BYTES, size / PROGRESS_SHARE)
    wrong = (*schedule.wrong, failure.place) if failure.wrong_bytes else schedule.wrong
    permanent = failure.permanent or wrong.count(failure.place) >= WRONG_BYTES
    failures = (0 if anew else schedule.failures) + failure.counts
    after = schedule._replace(
        failures=failures,
        waits=0 if anew else schedule.waits,
        best=max(schedule.best, failure.held),
        refused=schedule.refused | {failure.place} if permanent else schedule.refused,
        wrong=wrong,
        error=failure.words,
    )
    if failure.retry_after is not None:
        until = now + min(max(failure.retry_after, 0.0), LONGEST_RETRY_AFTER)
        others = tuple(hold for hold in after.holds if hold[0] != failure.place)
        after = after._replace(holds=(*others, (failure.place, until)))
    open_places = [place for place in range(places) if place not in after.refused]
    if not open_places:
        return after._replace(end=End.REFUSED)
    if failures >= policy.attempts:
        return after._replace(end=End.USED)
    later = [place for place in open_places if place > failure.place]
    if later:
        return after._replace(place=later[0], at=_not_before(after, later[0], now))
    wait = backoff(policy, after.waits, draw)
    at = _not_before(after, open_places[0], now + wait)
    return after._replace(place=open_places[0], at=at, waits=after.waits + 1)


def backoff(policy: Policy, waits: int, draw: float) -> float:
    """Seconds of the wait that comes after `waits` others in a row."""
    wait = policy.first
    for _ in range(waits):
        wait *= policy.factor
        if wait >= policy.cap:
            break
    return min(policy.cap, min(wait, policy.cap) * (1 + policy.jitter * (2 * draw - 1)))


def hurried(schedule: Schedule, now: float) -> Schedule:
    """The same without its wait: the network is back, so what was in its way may be gone."""
    return schedule._replace(at=min(schedule.at, _not_before(schedule, schedule.place, now)), waits=0)


def anew(schedule: Schedule, now: float) -> Schedule:
    """A new round; the last error stays to be shown."""
    return Schedule(at=now, error=schedule.error)


def _not_before(schedule: Schedule, place: int, at: float) -> float:
    return max([at, *(until for held, until in schedule.holds if held == place)])
