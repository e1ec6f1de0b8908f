"""What a Buildroot build says of itself, read: which package is at which step, how far it is, what failed.

Two things are read. `build-time.log` has a line when a step of a package begins and one when it ends, as
they happen. What make prints comes in blocks (`make --output-sync=recurse`): each begins with a line that
names the package, so that every package's output can be told apart however many are built side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_TIMED = re.compile(r"(\d+(?:\.\d+)?):(start|end) *: *([a-z-]+) *: *(\S+)")
_HEADER = re.compile(r"(?:\x1b\[[0-9;]*[a-z]|\x1b\([A-Z])*>>> (\S+) (.*?)(?:\x1b\[[0-9;]*[a-z])*\s*$")
_FAILED = re.compile(r"make(?:\[\d+\])?: \*\*\* \[[^\]]*?/build/([^/\]]+)/\.stamp_([a-z_]+)\] Error (\d+)")
_FAILED_ELSEWHERE = re.compile(r"make(?:\[\d+\])?: \*\*\* \[[^\]]*: ([^\]]+)\] Error (\d+)")
_COLOURS = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z]|\([A-Z])")

LONGER = 0.25
"""Of what a step has taken: the least that it is taken to need yet."""

STEPS = {
    "actual-download": "downloading",
    "download": "downloading",
    "extract": "unpacking",
    "rsync": "copying",
    "patch": "patching",
    "configure": "configuring",
    "build": "building",
    "install-host": "installing",
    "install-staging": "installing",
    "install-image": "installing",
    "install-target": "installing",
}
"""Buildroot's steps in words."""

STAMPS = {
    "downloaded": "downloading",
    "extracted": "unpacking",
    "rsynced": "copying",
    "patched": "patching",
    "dotconfig": "configuring",
    "kconfig_fixup_done": "configuring",
    "configured": "configuring",
    "built": "building",
    "host_installed": "installing",
    "staging_installed": "installing",
    "images_installed": "installing",
    "target_installed": "installing",
    "installed": "installing",
}
"""The steps by the files that Buildroot leaves when they are done."""


@dataclass(frozen=True)
class Timed:
    """A line of build-time.log: a step of a package begins or ends; `when` in seconds since 1970."""

    when: float
    begins: bool
    step: str
    package: str


def read_timed(line: str) -> Timed | None:
    """A line of build-time.log; None where it is cut off or is something else."""
    match = _TIMED.match(line)
    if match is None:
        return None
    return Timed(float(match[1]), match[2] == "start", match[3], match[4])


def step_seconds(lines: Iterable[str]) -> dict[str, float]:
    """How long each step took, by `PACKAGE STEP`, from build-time.log; of several runs the last counts."""
    begun: dict[str, float] = {}
    took: dict[str, float] = {}
    for line in lines:
        timed = read_timed(line)
        if timed is None:
            continue
        key = f"{timed.package} {timed.step}"
        if timed.begins:
            begun[key] = timed.when
        elif key in begun:
            took[key] = round(timed.when - begun.pop(key), 3)
    return took


def begun(lines: Iterable[str]) -> dict[str, str]:
    """The packages with a step that has begun and not ended, told from build-time.log."""
    found: dict[str, str] = {}
    for line in lines:
        timed = read_timed(line)
        if timed is not None and timed.begins:
            found[timed.package] = timed.step
        elif timed is not None and found.get(timed.package) == timed.step:
            del found[timed.package]
    return found


@dataclass
class Course:
    """Where a build is: the packages that are to be built, those that are done, and what is under way.

    `expected` are seconds by `PACKAGE STEP` from earlier builds (see `step_seconds`), for the estimate;
    `started` is when the build began, in seconds since 1970.
    """

    packages: frozenset[str]
    expected: Mapping[str, float]
    started: float
    done: set[str] = field(default_factory=set)
    running: dict[str, Timed] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def hear(self, timed: Timed) -> bool:
        """Take in a line of build-time.log; True when it changes what `words` says."""
        if timed.when < self.started - 1:  # of an earlier run
            return False
        if timed.begins:
            self.running.pop(timed.package, None)
            self.running[timed.package] = timed
        else:
            self.seen.add(f"{timed.package} {timed.step}")
            if (under_way := self.running.get(timed.package)) and under_way.step == timed.step:
                del self.running[timed.package]
            if timed.step.startswith("install-"):
                self.done.add(timed.package)
        return timed.begins

    @property
    def number(self) -> int:
        """Which package is under way: those that are done, and this one."""
        return min(len(self.done & self.packages) + 1, len(self.packages))

    def left(self, now: float) -> float | None:
        """Seconds until the end, by what earlier builds took; None where they say too little.

        Steps run side by side: what is left is divided by how much faster this build goes than one step
        after the other.
        """
        # A package whose last step was not seen says nothing of how long its others take.
        whole = {key.split(" ")[0] for key in self.expected if " install-" in key}
        known = {
            key: took
            for key, took in self.expected.items()
            if (name := key.split(" ")[0]) in self.packages and name in whole
        }
        if not known or not self.packages - self.done <= whole:
            return None
        did = sum(took for key, took in known.items() if key in self.seen)
        rest = sum(took for key, took in known.items() if key not in self.seen)
        for name, step in self.running.items():
            if (took := known.get(f"{name} {step.step}")) is not None:
                elapsed = max(now - step.when, 0.0)
                did += elapsed
                # One that takes longer than it did is taken to be nearly done, never to be done.
                rest += max(-elapsed, LONGER * elapsed - took)
        spent = now - self.started
        pace = did / spent if did > 0 and spent > 30 else 1.0
        return rest / pace

    def words(self, now: float) -> str:
        """Package n of m, the step under way, and about how long it will take."""
        newest = next(reversed(self.running.items()), None)
        named = f"{newest[0]} ({STEPS.get(newest[1].step, newest[1].step)})" if newest else ""
        if not self.packages:
            return named
        what = f": {named}" if named else ""
        left = self.left(now)
        rest = "" if left is None else f", about {_duration(left)} left"
        return f"package {self.number} of {len(self.packages)}{what}{rest}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


@dataclass(frozen=True)
class Failure:
    """What failed: the package's build directory (`openssl-3.5.7`) or None, the step in words."""

    directory: str | None
    step: str


class Output:
    """make's output, taken apart: each line belongs to the package whose block it is in."""

    def __init__(self) -> None:
        self.package: str | None = None
        self.failures: list[Failure] = []
        self.tail: list[str] = []

    def hear(self, line: str) -> str | None:
        """Take in a line; the package that it belongs to, None where it belongs to none."""
        plain = _COLOURS.sub("", line).rstrip()
        header = _HEADER.match(line)
        if header is not None:
            self.package = header[1] or None
        failed = _FAILED.match(plain)
        if failed is not None:
            failure = Failure(failed[1], STAMPS.get(failed[2], failed[2].replace("_", " ")))
            if failure not in self.failures:
                self.failures.append(failure)
        elif (other := _FAILED_ELSEWHERE.match(plain)) and not self.failures:
            self.tail.append(plain)
            self.failures.append(Failure(None, other[1]))
        elif plain:
            self.tail = [*self.tail[-39:], plain]
        return self.package


def without_noise(lines: Sequence[str]) -> list[str]:
    """The lines of a log that say something: no colours, no empty lines, nothing of make's about itself."""
    plain = (_COLOURS.sub("", line).rstrip() for line in lines)
    own = re.compile(
        r"make(\[\d+\])?: (Entering|Leaving|\*\*\* \[[^\]]*/\.stamp_|\*\*\* Waiting)"
        r"|mkdir -p /hal/output/per-package/"
    )
    return [line for line in plain if line and not own.match(line)]


def failed_first(failures: Sequence[Failure]) -> Failure | None:
    """The failure that caused the others: the first one that a package's step had, else the first."""
    return next((failure for failure in failures if failure.directory), failures[0] if failures else None)
