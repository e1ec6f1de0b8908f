"""A world for the provisioner's core: a disk of so many bytes, a network, a clock; nothing of it is real.

It keeps its own books of what is on its disk, and holds the core to them: no file is fetched twice at once,
nothing is shown that was not verified, nothing is published before all of it is there.
"""

from __future__ import annotations

import random
from pathlib import Path

from services.provisioner.config import Config
from services.provisioner.core import state
from services.provisioner.core import steps as core
from services.provisioner.core.events import (
    Action,
    Do,
    Event,
    Fetch,
    FetchEnded,
    Imported,
    Job,
    JobDone,
    Log,
    Measured,
    Outcome,
    Retried,
    Reverified,
    RouteSeen,
    StopFetch,
    Tick,
)
from services.provisioner.pins import PinnedModel
from tests.services.provision_pins import configuration, content, pinned_file, pinned_model

STEP = 400
"""Bytes that an attempt may bring before it fails."""


def models(shared: bool = False) -> tuple[PinnedModel, ...]:
    """A model of two files, a small one, and one that an operator brings; two of them may share a file."""
    large = pinned_file("large", content("large", 6000))
    return (
        pinned_model("first", large, pinned_file("config", content("config", 50))),
        pinned_model("second", large if shared else pinned_file("weights", content("weights", 2000))),
        pinned_model("brought", pinned_file("gift", content("gift", 700), ""), delivery="import"),
    )


class World:
    """The core, and what its actions do."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        disk: int = 1_000_000,
        places: int = 1,
        found: tuple[state.Found, ...] = (),
        seed: int = 0,
    ) -> None:
        self.config = config or configuration(Path("/x"), *models())
        self.random = random.Random(seed)
        self.disk = disk
        self.others = 0
        self.now = 1000.0
        self.log: list[str] = []
        self.held: dict[str, int] = {}
        self.staged: set[tuple[str, str]] = set()
        self.stored: set[str] = {one.name for one in found if one.stored}
        self.verified: set[str] = set()
        self.shown: set[str] = set()
        self.running: dict[str, Fetch] = {}
        self.jobs: list[Do] = []
        self.fetches = 0
        self.sizes = {file.sha256: file.size for model in self.config.models for file in model.files}
        network = [model for model in self.config.models if model.delivery == "network"]
        self.places = {file.sha256: places for model in network for file in model.files}
        self.state = state.initial(self.config, self.places, found)

    def tell(self, event: Event) -> None:
        """One step of the core; its actions begin, and are held against the books."""
        self.state, actions = core.step(self.state, event, self.now)
        for action in actions:
            self._begin(action)
        self._check()

    def _begin(self, action: Action) -> None:
        if isinstance(action, Log):
            self.log.append(action.text)
        elif isinstance(action, Fetch):
            assert self.state.route, "fetched without a network"
            assert action.sha256 not in self.running, "fetched twice at once"
            assert 0 <= action.place < self.places[action.sha256]
            self.running[action.sha256] = action
            self.fetches += 1
        elif isinstance(action, StopFetch):
            assert action.sha256 in self.running
        elif isinstance(action, Do):
            assert not any(job.model == action.model for job in self.jobs), "two jobs of a model at once"
            self.jobs.append(action)

    def _check(self) -> None:
        assert len(self.running) <= self.config.concurrency
        assert set(self.running) == {file.sha256 for file in self.state.files if file.running}
        assert {job.model for job in self.jobs if job.model} == {m.name for m in self.state.models if m.busy}
        for model in self.state.models:
            if model.stage == state.Stage.READY:
                assert model.name in self.shown

    @property
    def used(self) -> int:
        """Bytes that parts and models take."""
        own = {
            file.sha256 for model in self.config.models if model.name in self.stored for file in model.files
        }
        own |= {sha256 for _, sha256 in self.staged}
        parts = sum(size for sha256, size in self.held.items() if sha256 not in own)
        return sum(self.sizes[sha256] for sha256 in own) + parts

    @property
    def free(self) -> int:
        return self.disk - self.used - self.others

    def measure(self) -> None:
        held = tuple((sha256, self.held.get(sha256, 0)) for sha256 in self.running)
        self.tell(Measured(self.free, self.used, held))

    def bring(self, sha256: str, count: int) -> bool:
        """Bytes of a file come; False: the disk is full."""
        have = self.held.get(sha256, 0)
        more = min(count, self.sizes[sha256] - have)
        fits = min(more, max(0, self.free))
        self.held[sha256] = have + fits
        return fits == more

    def end(self, sha256: str, outcome: Outcome, **more: object) -> None:
        """An attempt ends."""
        del self.running[sha256]
        if outcome == Outcome.WHOLE:
            self.stage(sha256)
        held = self.sizes[sha256] if outcome == Outcome.WHOLE else self.held.get(sha256, 0)
        event = FetchEnded(sha256, outcome, held=held, draw=self.random.random())
        self.tell(event._replace(**more))

    def stage(self, sha256: str) -> None:
        self.held.pop(sha256, None)
        for model in self.config.models:
            if any(file.sha256 == sha256 for file in model.files) and model.name not in self.stored:
                self.staged.add((model.name, sha256))

    def give(self, sha256: str) -> None:
        """An operator gives a file."""
        self.stage(sha256)
        self.tell(Imported(sha256))

    def work(self, *, spoil: bool = False) -> None:
        """The oldest job is done; with `spoil`, a verification finds a file wrong."""
        job = self.jobs.pop(0)
        if job.job == Job.PRUNE:
            return self.tell(JobDone(job.job, ""))
        model = self.config.model(job.model)
        mine = {file.sha256 for file in model.files}
        done = JobDone(job.job, job.model)
        if job.job == Job.PUBLISH:
            others = {s for name, s in self.staged} | {
                file.sha256
                for other in self.config.models
                if other.name in self.stored
                for file in other.files
            }
            assert mine <= others, "published before all was there"
            self.staged = {(name, sha256) for name, sha256 in self.staged if name != model.name}
            self.stored.add(model.name)
        elif job.job == Job.VERIFY:
            assert model.name in self.stored
            if spoil:
                done = done._replace(words="wrong", files=(model.files[0].name,))
            else:
                self.verified.add(model.name)
        elif job.job == Job.SHOW:
            assert model.name in self.verified, "shown before it was verified"
            self.shown.add(model.name)
        elif job.job == Job.HIDE:
            self.verified.discard(model.name)
            self.shown.discard(model.name)
            self.stored.discard(model.name)
            wrong = {file.sha256 for file in model.files if file.name in job.files}
            self.staged |= {(model.name, sha256) for sha256 in mine - wrong}
        else:
            assert not any(sha256 in self.running for sha256 in job.files), "dropped under a running attempt"
            self.staged = {(name, sha256) for name, sha256 in self.staged if name != model.name}
            for sha256 in job.files:
                self.held.pop(sha256, None)
        return self.tell(done)

    def settle(self, seconds: float = 20) -> None:
        """All goes well from now on, until nothing changes any more, or for so many seconds."""
        end = self.now + seconds
        while self.now < end:
            self.measure()
            stopping = {file.sha256 for file in self.state.files if file.stopping}
            for sha256 in list(self.running):
                if sha256 in stopping:
                    self.end(sha256, Outcome.STOPPED)
                elif self.bring(sha256, 10_000):
                    self.end(sha256, Outcome.WHOLE)
                else:
                    self.end(sha256, Outcome.FULL)
            while self.jobs:
                self.work()
            if not self.running and not self.jobs:
                if all(model.stage == state.Stage.READY for model in self.state.models):
                    return
                due = core.next_due(self.state)
                self.now = max(self.now + 1.0, min(due, self.now + 1000))
                self.tell(Tick())


def happen(world: World, what: int, which: int, count: int) -> None:
    """One of many things happens, named by numbers."""
    running = sorted(world.running)
    if what == 0:
        world.now += count
        world.tell(Tick())
    elif what == 1:
        world.measure()
    elif what == 2:
        world.tell(RouteSeen(bool(which % 2)))
    elif what in (3, 4, 5, 6) and running:
        sha256 = running[which % len(running)]
        stopping = world.state.file(sha256).stopping
        if stopping:
            return world.end(sha256, Outcome.STOPPED)
        if not world.bring(sha256, count):
            return world.end(sha256, Outcome.FULL)
        if what == 3 and world.held[sha256] == world.sizes[sha256]:
            return world.end(sha256, Outcome.WHOLE)
        if what == 4:
            return world.end(sha256, Outcome.FAILED, words="reset", permanent=which % 5 == 0)
        if what == 5:
            world.held.pop(sha256, None)
            return world.end(sha256, Outcome.FAILED, words="another SHA-256", wrong_bytes=True)
        if what == 6 and which % 7 == 0:
            return world.end(sha256, Outcome.BROKEN, words="I/O error")
    elif what == 7 and world.jobs:
        return world.work(spoil=which % 4 == 0)
    elif what == 8:
        world.others = count * 20
    elif what == 9:
        world.tell(Retried(("", "first", "second")[which % 3]))
    elif what == 10:
        world.tell(Reverified(("", "first", "second")[which % 3]))
    return None
