"""A whole provisioner on one thread: the real core, store, parts and jobs, and a network that never fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from services.provisioner.config import Config
from services.provisioner.core import state
from services.provisioner.core import steps as core
from services.provisioner.core.events import Do, Event, Fetch, FetchEnded, JobDone, Measured, Outcome, Save
from services.provisioner.disk import journal
from services.provisioner.disk.calls import FULL, Disk
from services.provisioner.disk.jobs import Jobs
from services.provisioner.disk.markers import Markers
from services.provisioner.disk.part import Part
from services.provisioner.disk.store import Store

CHUNK = 1000


class Run:
    """From a start of the provisioner until all models are ready, or nothing moves any more."""

    def __init__(self, config: Config, contents: Mapping[str, bytes], disk: Disk) -> None:
        self.config = config
        self.contents = contents
        self.disk = disk
        self.store = Store(config, disk)
        self.fetched = 0
        self.now = 0.0
        self.events: list[Event] = []
        self.states: list[str] = []

    def go(self) -> None:
        """All of it."""
        self.store.prepare()
        markers = Markers(self.config.markers)
        markers.clear(self.config.models)
        self.jobs = Jobs(self.store, markers, self.events.append)
        places = {file.sha256: 1 for model in self.config.models for file in model.files if file.source}
        saved = journal.load(f"{self.config.state_directory}/state.json")
        self.state = state.initial(self.config, places, self.store.scan(), saved)
        for _ in range(60):
            self._step(Measured(*self.store.space()))
            while self.events:
                self._step(self.events.pop(0))
            if all(model.stage == state.Stage.READY for model in self.state.models):
                break
            self.now += 10
        self.jobs.kept.close()

    def _step(self, event: Event) -> None:
        self.state, actions = core.step(self.state, event, self.now)
        for action in actions:
            if isinstance(action, Fetch):
                self.events.append(self._fetch(action.sha256))
            elif isinstance(action, Do):
                self.events.append(self._do(action))
            elif isinstance(action, Save):
                with contextlib.suppress(OSError):
                    path = f"{self.config.state_directory}/state.json"
                    journal.save(path, state.to_save(self.state), self.disk)

    def _fetch(self, sha256: str) -> FetchEnded:
        whole = self.contents[sha256]
        part = Part(self.store.part(sha256), len(whole), self.disk)
        try:
            part.begin("https://models.example/file", "etag", whole=False)
            while part.size < len(whole):
                data = whole[part.size : part.size + CHUNK]
                part.put(part.size, data)
                self.fetched += len(data)
                part.sync()
            if part.hexdigest() != sha256:
                part.wrong()
                part.close()
                return FetchEnded(sha256, Outcome.FAILED, words="another SHA-256", wrong_bytes=True)
            part.sync()
            part.close()
            self.store.keep(sha256, part.path)
        except OSError as error:
            part.close()
            outcome = Outcome.FULL if error.errno in FULL else Outcome.BROKEN
            return FetchEnded(sha256, outcome, held=part.size, words=str(error))
        except BaseException:
            os.close(part._descriptor) if part._descriptor >= 0 else None
            raise
        return FetchEnded(sha256, Outcome.WHOLE, held=len(whole))

    def _do(self, order: Do) -> JobDone:
        try:
            return self.jobs.carry_out(order)
        except OSError as error:
            return JobDone(order.job, order.model, str(error), full=error.errno in FULL)


def shown(config: Config, name: str) -> dict[str, bytes] | None:
    """What an engine finds under a model's name: its files; None: nothing."""
    folder = Path(config.directory) / name
    if not folder.exists():
        return None
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def leftovers(config: Config) -> list[str]:
    """Whatever lies in the provisioner's folders and is no whole, shown model."""
    root = Path(config.directory)
    places = [root / ".staging", root / ".trash", Path(config.state_directory) / "parts"]
    found = [str(path) for place in places for path in place.iterdir()]
    links = {str(path.readlink()) for path in root.iterdir() if path.is_symlink()}
    return found + [str(path) for path in (root / ".store").iterdir() if f".store/{path.name}" not in links]
