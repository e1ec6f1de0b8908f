"""Engines as services: orders to start and stop them, and how they are.

Orders are lines in a pipe that hal-control reads, which runs as root (`/usr/lib/hal/control`). How an engine
is comes from three places: its control group, where the kernel says whether any of its processes is left; a
file of hal-control, with the last order that was carried out; and a file of the engine's launcher, with a
word and a line for people (services/engine/report.py).
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from .config import EngineConfig
from .core.events import BY_HAND, OrderDone, OrderFailed, Unit, UnitSeen, Verb

LARGEST = 2000
"""Bytes of such a file that are looked at; all are a line."""

DIED = "it ended without a word"
UNABLE = "unable"
"""What a launcher says of an engine that cannot run until somebody mends something."""

BEING_STARTED = "it is being started"
GRACE = 10.0
"""Seconds that a service may take from the order to its first process: the CPU may be emulated, and busy."""

_WORDS = {
    "starting": Unit.STARTING,
    "ready": Unit.READY,
    "failed": Unit.FAILED,
    "unable": Unit.FAILED,
    "stopped": Unit.STOPPED,
}


class OrderError(Exception):
    """An order cannot be given; the message says why."""


def give(pipe: str, verb: str, engine: str) -> None:
    """Write an order. It returns at once: what came of it is in the engine's file.

    Raises:
        OrderError: hal-control does not read.
    """
    if not pipe:
        raise OrderError("engines cannot be started and stopped here")
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{verb} {engine}\n".encode())  # far below PIPE_BUF: whole or not at all
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise OrderError("hal-control does not run") from None
        raise OrderError(f"{pipe}: {error.strerror}") from None


class Mark(NamedTuple):
    """Which version of a file was seen: a file that is put in place anew has another."""

    inode: int
    changed: int


class Service:
    """One engine's service, as its files tell. `died`: the last look found none of its processes left."""

    def __init__(self, engine: EngineConfig) -> None:
        self.engine = engine
        self.order = ""
        self.died = False
        self._alive: bool | None = None
        self._outcome: Mark | None = None
        self._words: Mark | None = None
        self._started = float("-inf")
        self._came = False

    def ordered(self, verb: str, now: float) -> None:
        """Remember that an order is about to be given: what its files say by now is no answer to it."""
        self.order = verb
        self._outcome = _mark(self.engine.order_file)
        self._words = _mark(self.engine.state_file)
        self._started = now if verb == Verb.START else float("-inf")
        self._came = False

    def not_ordered(self) -> None:
        """The order could not be given: nothing comes of it."""
        self.order = ""
        self._started = float("-inf")

    def look(self, now: float) -> list[UnitSeen | OrderDone | OrderFailed]:
        """How the engine is now; first, what came of an order once that is known."""
        events: list[UnitSeen | OrderDone | OrderFailed] = []
        name = self.engine.name
        alive = populated(self.engine.cgroup)
        self.died = alive is False and self._alive is True
        self._came = self._came or (alive is True and self._alive is False)
        self._alive = alive
        outcome = _line(self.engine.order_file)
        if self.order and self._answered(outcome, alive):
            code = outcome.partition(" ")[2]
            if code == "0":
                events.append(OrderDone(name, self.order))
            else:
                reason = f"hal-control's {self.order} ended with status {code}"
                events.append(OrderFailed(name, self.order, reason))
                self._started = float("-inf")
            self.order = ""
        said, _, message = _line(self.engine.state_file).partition(" ")
        if self._starting(alive, now):
            last = f"; the last time: {message}" if said in ("failed", UNABLE) and message else ""
            said, message, alive = "starting", f"{BEING_STARTED}{last}", True
        state, reason = seen(said, message if message.isprintable() else "", outcome, alive)
        if state == Unit.STOPPED and said == "stopped" and not self.order and self._by_hand():
            reason = BY_HAND
        events.append(UnitSeen(name, state, reason, said == UNABLE and state == Unit.FAILED))
        return events

    def _answered(self, outcome: str, alive: bool | None) -> bool:
        verb, _, code = outcome.partition(" ")
        if verb != self.order or _mark(self.engine.order_file) == self._outcome:
            return False
        # hal-control waits until nothing is left; the kernel has the last word.
        return not (verb == Verb.STOP and code == "0" and alive)

    def _by_hand(self) -> bool:
        """Whether the launcher's last word, that it was stopped, is later than all that hal-control did.

        hal-control notes a stop after the launcher said so, and a start before the launcher says anything.
        """
        words, done = _mark(self.engine.state_file), _mark(self.engine.order_file)
        return words is not None and (done is None or words.changed > done.changed)

    def _starting(self, alive: bool | None, now: float) -> bool:
        """Whether it was told to start, and its launcher's words are still those of an earlier life."""
        if self._started == float("-inf"):
            return False
        gone = not alive and (self._came or now - self._started > GRACE)
        if gone or _mark(self.engine.state_file) != self._words:
            self._started = float("-inf")
            return False
        return True


def seen(said: str, message: str, outcome: str, alive: bool | None) -> tuple[str, str]:
    """The state of a service and a reason for people, out of what its files say.

    `said` and `message` are the launcher's, `outcome` is hal-control's ("stop 0": a stop was carried out),
    `alive` the kernel's (None: nobody can tell).
    """
    state = _WORDS.get(said, Unit.UNKNOWN)
    if alive is None:
        return state, message
    if alive:
        if state in (Unit.STARTING, Unit.READY):
            return state, message
        # It says that it has ended, or nothing yet, and processes of it are there.
        return Unit.UNKNOWN, "it is ending" if state in (Unit.FAILED, Unit.STOPPED) else "it runs"
    if outcome == f"{Verb.STOP} 0" or state in (Unit.STOPPED, Unit.UNKNOWN):
        return Unit.STOPPED, message if state == Unit.FAILED else "stopped"
    # Its init system starts it again by itself: nobody has told it to stop.
    return Unit.FAILED, message if state == Unit.FAILED else DIED


def populated(cgroup: str) -> bool | None:
    """Whether a control group has processes (cgroup.events of cgroups v2); None where nobody can tell.

    The group of a service that does not run is not there.
    """
    if not cgroup:
        return None
    try:
        with open(f"{cgroup}/cgroup.events", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return "populated 1" in file.read(LARGEST)
    except FileNotFoundError:
        return False
    except OSError as error:
        return False if error.errno == errno.ENODEV else None  # it went away between open and read


def changes_of(cgroup: str) -> int:
    """A descriptor that poll(2) reports (POLLPRI) when the control group loses its last process, or gets one.

    -1 where there is no such group. It tells of what happens after this call, once: then it is closed.
    """
    try:
        descriptor = os.open(f"{cgroup}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        os.read(descriptor, LARGEST)  # what is read is no news any more
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _line(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (pathlib costs at start-up)
            return file.readline(LARGEST).strip()
    except OSError:
        return ""


def _mark(path: str) -> Mark | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return Mark(found.st_ino, found.st_mtime_ns)
