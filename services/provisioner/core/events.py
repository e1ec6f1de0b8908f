"""What the core is told, and what it asks for. Values only; a file is named by its SHA-256."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """How an attempt ended: the file is whole (and staged), it failed, it was told to stop, the disk is full,
    or the disk does not take it for another reason."""

    WHOLE = "whole"
    FAILED = "failed"
    STOPPED = "stopped"
    FULL = "full"
    BROKEN = "broken"


class Job(StrEnum):
    """Work on the disk: make a whole model of its files, verify it, show it to engines, take back one whose
    files are wrong, give the space of an unfinished one back, remove what is not pinned."""

    PUBLISH = "publish"
    VERIFY = "verify"
    SHOW = "show"
    HIDE = "hide"
    DROP = "drop"
    PRUNE = "prune"


class Tick(NamedTuple):
    """Time has passed."""


class Measured(NamedTuple):
    """The space there is: bytes free for us, bytes used by us; with it, bytes held of the files that run."""

    free: int
    used: int
    held: tuple[tuple[str, int], ...] = ()


class RouteSeen(NamedTuple):
    """Whether this machine has a network at all."""

    present: bool


class FetchEnded(NamedTuple):
    """An attempt has ended. `held`: bytes held of the file; `fetched`: bytes that came in this attempt.

    The other fields are policy.Failure's; `draw` is a random number from 0 up to 1.
    """

    sha256: str
    outcome: Outcome
    held: int = 0
    fetched: int = 0
    words: str = ""
    permanent: bool = False
    wrong_bytes: bool = False
    retry_after: float | None = None
    draw: float = 0.5


class Imported(NamedTuple):
    """An operator has given a file; it is whole and staged."""

    sha256: str


class JobDone(NamedTuple):
    """Work on the disk has ended. `words`: why it failed ("": it did not); `full`: for lack of space.

    `files`: names of those that are wrong, where it was to verify; `sealed`: the kernel checks each later
    read of them.
    """

    job: Job
    model: str
    words: str = ""
    full: bool = False
    files: tuple[str, ...] = ()
    sealed: bool = False


class Retried(NamedTuple):
    """An operator wants a model tried again now ("": all of them)."""

    model: str


class Reverified(NamedTuple):
    """An operator wants a model verified again ("": all of them)."""

    model: str


Event = Tick | Measured | RouteSeen | FetchEnded | Imported | JobDone | Retried | Reverified


class Fetch(NamedTuple):
    """Make an attempt at a file, at this place of its places; it must end before `until` (None: any time)."""

    sha256: str
    place: int
    until: float | None


class StopFetch(NamedTuple):
    """Stop the attempt at a file; it ends with an event as others do."""

    sha256: str


class Do(NamedTuple):
    """Work on the disk; `files` are names to take out (HIDE) or SHA-256s whose parts go (DROP)."""

    job: Job
    model: str = ""
    files: tuple[str, ...] = ()


class Save(NamedTuple):
    """Keep what outlives a restart."""


class Log(NamedTuple):
    """Tell operators."""

    text: str


Action = Fetch | StopFetch | Do | Save | Log
