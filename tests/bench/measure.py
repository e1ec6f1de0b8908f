"""Timing a program by the clock.

Not by CPU seconds: bubblewrap does not wait for its child, so the kernel's account misses what runs in it.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.errors import HalError
from hal.run import Completed, failure, spawn

LOG_TAIL = 8192
"""Bytes at the end of a program's log that hold its error."""


@dataclass(frozen=True)
class Timing:
    """One run, in seconds by the clock."""

    seconds: float


Build = Callable[[], Timing]
"""One build of one program, ready to run; it prepares what it needs outside the measured time."""


def timed(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Timing:
    """Run a program to its end; what it prints goes to `log`.

    Raises:
        HalError: it failed; the error holds the last lines of the log.
    """
    begin = time.monotonic()
    with log.open("wb") as sink:
        process = spawn(argv, env=env, stdout=sink, stderr=subprocess.STDOUT)
    try:
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    seconds = time.monotonic() - begin
    if status != 0:
        tail = log.read_bytes()[-LOG_TAIL:].decode(errors="replace")
        raise failure(Completed(tuple(argv), status, "", tail), Path(argv[0]).name)
    return Timing(seconds)


def median(timings: Sequence[Timing]) -> Timing:
    """The median run."""
    return Timing(statistics.median(timing.seconds for timing in timings))


def require(condition: bool, problem: str) -> None:
    """Refuse to report the time of something else than what was to be measured.

    Raises:
        HalError: the condition does not hold.
    """
    if not condition:
        raise HalError(f"this is not what was to be measured: {problem}")
