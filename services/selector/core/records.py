"""What is wanted, what is under way and what has been: values in the state."""

from __future__ import annotations

from typing import NamedTuple


class Choice(NamedTuple):
    """What the operator wants: the policy in force, and the engine that was commanded ("": none)."""

    policy: str
    desired: str = ""


class Stage:
    """How far a switch is."""

    DRAINING = "streams end on the old engine"
    STOPPING = "the old engine stops"
    STARTING = "the new engine starts"
    MOVING = "requests move to the new engine"


class Switch(NamedTuple):
    """A switch under way from `source` to `target`; it ends at `deadline` at the latest.

    `back` is what is wanted again if a commanded switch fails; None for one that the selector decided on.
    `reload`: the configuration asked for it.
    """

    target: str
    source: str
    stage: str
    since: float
    deadline: float
    reason: str
    back: Choice | None = None
    reload: bool = False


class Ended(NamedTuple):
    """A switch that has ended: `ok`, or `reason` says why not. `since` is when it began."""

    target: str
    source: str
    ok: bool
    reason: str
    since: float
    at: float


class Leaving(NamedTuple):
    """An engine that gets no new requests `since` then; those that are open have until `deadline` to end.

    `streams` is the last count (None: not counted yet), asked for at `asked_at`. What is left at the deadline
    is cut, at `cut_at`. `over`: nothing is open any more.
    """

    engine: str
    since: float
    deadline: float
    streams: int | None = None
    asked_at: float | None = None
    cut_at: float | None = None
    over: bool = False


class Decision(NamedTuple):
    """What was decided, when, and why."""

    at: float
    what: str
    why: str
