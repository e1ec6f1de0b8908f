"""How long work is told to people and to programs: steps, notes and downloads.

The stages call a `Reporter`; which one they get (a terminal's, a log's, JSON lines, none) is the command
line's choice.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol


class Reporter(Protocol):
    """What the stages say while they work. Methods may be called from several threads."""

    def step(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A stage's work: told when it begins and how long it took."""

    def note(self, text: str) -> None:
        """Something that a user should know (a package that was replaced by its successor)."""

    def status(self, step: str, text: str) -> None:
        """Where a step under way is; of several, the last one counts."""

    def expect(self, size: int) -> None:
        """`size` more bytes are to be downloaded."""

    def advance(self, size: int) -> None:
        """`size` bytes have come (negative: were thrown away)."""

    def close(self) -> None:
        """Nothing more will be said."""


class Silent:
    """Says nothing: for tests and for callers that only want the result."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        yield

    def note(self, text: str) -> None:
        pass

    def status(self, step: str, text: str) -> None:
        pass

    def expect(self, size: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def close(self) -> None:
        pass


class Lines(Silent):
    """Plain lines, for logs: one when a step has ended, downloads every 50 MB, long steps every 15 s."""

    every = 50_000_000
    seconds = 15.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._expected = self._arrived = self._told = 0
        self._status_told: dict[str, float] = {}

    def _say(self, text: str) -> None:
        # One write, so that the lines of two threads stay apart.
        sys.stderr.write(f"[{time.monotonic() - self._start:6.1f} s] {text}\n")
        sys.stderr.flush()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._say(f"{name} ({time.monotonic() - begin:.1f} s)")

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def status(self, step: str, text: str) -> None:
        now = time.monotonic()
        if now - self._status_told.get(step, -self.seconds) >= self.seconds:
            self._status_told[step] = now
            self._say(f"{step}: {text}")

    def expect(self, size: int) -> None:
        with self._lock:
            self._expected += size

    def advance(self, size: int) -> None:
        with self._lock:
            self._arrived += size
            if self._arrived - self._told < self.every and self._arrived < self._expected:
                return
            self._told = self._arrived
            text = f"downloaded {self._arrived / 1e6:.0f} of {self._expected / 1e6:.0f} MB"
        self._say(text)


class JsonLines(Silent):
    """One JSON object per line on standard output, for programs."""

    def _say(self, **event: Any) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        self._say(event="step", name=name, state="started")
        try:
            yield
        except BaseException:
            self._say(event="step", name=name, state="failed")
            raise
        self._say(event="step", name=name, state="done", seconds=round(time.monotonic() - begin, 3))

    def note(self, text: str) -> None:
        self._say(event="note", text=text)

    def status(self, step: str, text: str) -> None:
        self._say(event="step", name=step, state="running", text=text)


class Terminal(Silent):
    """A live display on a terminal: a spinner per step under way, a bar while files come in."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TransferSpeedColumn,
        )

        self._console = Console(stderr=True, highlight=False)
        self._plain = escape  # names and notes are no markup
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=self._console, transient=True
        )
        self._download = Progress(
            TextColumn("downloading"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self._console,
            transient=True,
        )
        self._bar: Any = None
        self._live = 0
        self._tasks: dict[str, Any] = {}
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        with self._lock:
            if self._live == 0 and self._bar is None:
                self._progress.start()
            self._live += 1
            task = self._tasks[name] = self._progress.add_task(self._plain(name), total=None)
        try:
            yield
            seconds = time.monotonic() - begin
            if seconds >= 0.1:
                self._console.print(f"[green]✓[/] {self._plain(name)} [dim]{seconds:.1f} s[/]")
        finally:
            with self._lock:
                self._progress.remove_task(task)
                self._tasks.pop(name, None)
                self._live -= 1
                if self._live == 0:
                    self._progress.stop()

    def status(self, step: str, text: str) -> None:
        with self._lock:
            if step in self._tasks:
                self._progress.update(self._tasks[step], description=self._plain(f"{step}: {text}"))

    def note(self, text: str) -> None:
        self._console.print(f"[yellow]note:[/] {self._plain(text)}")

    def expect(self, size: int) -> None:
        with self._lock:
            if self._bar is None:
                self._progress.stop()
                self._download.start()
                self._bar = self._download.add_task("downloading", total=0)
            task = next(task for task in self._download.tasks if task.id == self._bar)
            self._download.update(self._bar, total=(task.total or 0) + size)

    def advance(self, size: int) -> None:
        with self._lock:
            if self._bar is not None:
                self._download.update(self._bar, advance=size)

    def close(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._download.stop()
                self._download.remove_task(self._bar)
                self._bar = None
                if self._live:
                    self._progress.start()
