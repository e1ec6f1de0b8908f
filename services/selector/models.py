"""Models that arrive while the machine runs: which are there, and how far hal-provision is with the others.

A model is there when its marker is: hal-provision makes that file once it has verified the model in this
boot. `status.json` is its own, too: what people are told, and whether requests may wait, comes from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from .config import Config, EngineConfig
from .core import Event, ModelSeen

READY = "ready"
LATE = "has not arrived"

MISSING_INTERVAL = 0.5
"""Seconds between looks while a model is missing: what a user waits at most beyond its arrival."""

THERE_INTERVAL = 5.0
"""Seconds between them while all are there: then somebody would have to take one away."""

LARGEST = 1_000_000
LONGEST = 200
LIKELY_RATE = 10_000_000
"""Bytes a second that are guessed where hal-provision does not know yet how fast a model comes."""

NEVER = float("inf")
TURN = "for its turn"
"""Why a model waits that waits for other models only (services/provisioner/status.py)."""


class Progress(NamedTuple):
    """What hal-provision says of a model: a word, words for people, and numbers, None where it has none."""

    name: str
    state: str
    reason: str = ""
    error: str = ""
    bytes: float | None = None
    size: float | None = None
    eta: float | None = None
    again_in: float | None = None

    @property
    def percent(self) -> int | None:
        """How much of it is there; 100 only of what is ready."""
        if self.state == READY:
            return 100
        if self.bytes is None or not self.size:
            return None
        return max(0, min(99, int(100 * self.bytes / self.size)))

    @property
    def left(self) -> float:
        """Seconds until it may be there; infinite where nothing is under way."""
        if self.state == READY:
            return 0.0  # its marker is made in a moment
        if self.state in ("fetching", "verifying") and self.eta is not None:
            return self.eta
        wait = 0.0
        if self.state in ("backoff", "failed"):
            wait = NEVER if self.again_in is None else self.again_in
        elif self.state not in ("fetching", "verifying") and not self._next:
            return NEVER
        return wait + max(0.0, (self.size or 0) - (self.bytes or 0)) / LIKELY_RATE

    @property
    def _next(self) -> bool:
        """Whether it waits for nothing but other models."""
        return self.state == "waiting" and self.reason in ("", TURN)

    @property
    def words(self) -> str:
        """Its state for people: `fetching, 43 %: connection reset`."""
        known = self.percent is not None and self.state not in (READY, "verifying")
        part = f", {self.percent} %" if known else ""
        why = self.reason or self.error
        return f"{self.state}{part}{f': {why}' if why else ''}"


class Model(NamedTuple):
    """A model as users are told of it: `state` is hal-provision's word, or `unknown`."""

    name: str
    state: str
    reason: str
    percent: int | None


def parse(content: bytes) -> dict[str, Progress]:
    """What hal-provision's status.json says, by model; nothing where it is not such a file."""
    try:
        entries = json.loads(content)["models"]
        found = [_progress(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return {one.name: one for one in found}


def _progress(entry: dict[str, Any]) -> Progress:
    return Progress(
        name=_text(entry.get("name")),
        state=_text(entry.get("state")),
        reason=_text(entry.get("reason")),
        error=_text(entry.get("error")),
        bytes=_number(entry.get("bytes")),
        size=_number(entry.get("size")),
        eta=_number(entry.get("eta")),
        again_in=_number(entry.get("again_in")),
    )


def _text(value: object) -> str:
    text = value[:LONGEST] if isinstance(value, str) else ""
    return "".join(c for c in text if c.isprintable())


def _number(value: object) -> float | None:
    """A number that one can reckon with; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e18 else None


def named(name: str, there: bool, progress: Progress | None) -> Model:
    """The model as it is told of, out of its marker and of what hal-provision says."""
    if there:
        return Model(name, READY, "", 100)
    if progress is None:
        return Model(
            name, "unknown", f"the model {name} {LATE}: hal-provision has not said anything of it", None
        )
    if progress.state == READY:
        progress = progress._replace(state="verifying")
    return Model(name, progress.state, f"the model {name} {LATE}: {progress.words}", progress.percent)


def lacking(
    engine: EngineConfig, there: dict[str, bool], said: dict[str, Progress], patience: float, wait: float
) -> ModelSeen:
    """What an engine lacks of its models, and whether that may arrive within `wait` seconds.

    One that binds models when it starts needs all that it awaits, another one those that it has to list. For
    `patience` seconds more it is no sign that hal-provision says nothing.
    """
    names = [one.model for one in engine.awaits]
    if not names or not engine.binds:
        names = [name for name in dict.fromkeys((engine.model, engine.orchestrator_model)) if name in there]
    missing = [name for name in names if not there.get(name, False)]
    if not missing:
        return ModelSeen(engine.name, "")
    left = [said[name].left if name in said else 0.0 if patience > 0 else NEVER for name in missing]
    reasons = [named(name, False, said.get(name)).reason for name in missing]
    return ModelSeen(engine.name, "; ".join(reasons), max(left) <= wait)


class Models:
    """Looks at the markers and at hal-provision's status, next at `due`, and tells the core of changes."""

    def __init__(self, config: Config, clock: Callable[[], float], tell: Callable[[Event], None]) -> None:
        self.seen: tuple[Model, ...] = ()
        self._clock = clock
        self._tell = tell
        self._began = clock()
        self._told: dict[str, ModelSeen] = {}
        self._mark: tuple[int, int] | None = None
        self._said: dict[str, Progress] = {}
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Look for the models of this configuration's engines."""
        self._config = config
        self._markers = {one.model: one.marker for engine in config.engines for one in engine.awaits}
        self.due = self._clock() if self._markers or config.provision_status else NEVER

    def look(self) -> None:
        """See what is there."""
        now = self._clock()
        self._read(self._config.provision_status)
        there = {name: said.state == READY for name, said in self._said.items()}
        there |= {name: os.path.exists(marker) for name, marker in self._markers.items()}  # noqa: PTH110
        found = [named(name, there[name], self._said.get(name)) for name in there]
        self.seen = tuple(sorted(found, key=lambda model: model.state == READY))
        wait = self._config.wait
        for engine in self._config.engines:
            event = lacking(engine, there, self._said, self._began + wait - now, wait)
            if self._told.get(engine.name, ModelSeen(engine.name, "")) != event:
                self._told[engine.name] = event
                self._tell(event)
        self.due = now + (THERE_INTERVAL if all(there.values()) else MISSING_INTERVAL)

    def _read(self, path: str) -> None:
        """Read the status anew if it was replaced since."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123 (pathlib costs at start-up)
                found = os.fstat(file.fileno())
                mark = (found.st_ino, found.st_mtime_ns)
                if mark != self._mark:
                    self._mark, self._said = mark, parse(file.read(LARGEST))
        except OSError:
            self._mark, self._said = None, {}
