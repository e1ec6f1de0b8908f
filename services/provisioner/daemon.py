"""The daemon around the core: performs its actions and brings events back; its main thread never waits."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import sys
import time

from . import status
from .attempts import Attempts, Source
from .commands import Asked, Commands
from .config import CONFIG, Config, ConfigError, read
from .control import Control
from .core import state
from .core import steps as core
from .core.events import (
    Action,
    Do,
    Event,
    Fetch,
    FetchEnded,
    Job,
    Log,
    Measured,
    RouteSeen,
    Save,
    StopFetch,
    Tick,
)
from .core.state import Stage, State
from .disk import journal, packs
from .disk.calls import PRIVATE, SHARED, Disk, replace
from .disk.jobs import Jobs
from .disk.markers import Markers
from .disk.store import Store
from .disk.tree import ensure_folder
from .network import route
from .network.meter import Meter
from .network.places import places
from .notify import Notify

BUSY_INTERVAL, IDLE_INTERVAL = 1.0, 5.0
"""Seconds between two looks at the disk's space, the network and the rates."""

WATCHDOG_INTERVAL = 5.0
STOP_PATIENCE = 60.0
"""Seconds that threads get to sync what they hold."""

READABLE = 0o644


class Daemon:
    """One provisioner. `disk` is for tests, which break it."""

    def __init__(self, config: Config, disk: Disk | None = None, sealing: bool = True) -> None:
        self.config = config
        self.notify = Notify()
        self.events: queue.SimpleQueue[Event | Asked | None] = queue.SimpleQueue()
        self.store = Store(config, disk)
        ensure_folder(self.store.disk, config.state_directory, PRIVATE)
        self._lock = _only_one(f"{config.state_directory}/lock")
        self.store.prepare()
        self.markers = Markers(config.markers)
        self.markers.clear(config.models)
        ensure_folder(Disk(), config.runtime_directory, SHARED)
        self.sources = sources(config)
        counts = {sha256: len(source.places) for sha256, source in self.sources.items()}
        self.state = state.initial(
            config,
            counts,
            self.store.scan(),
            journal.load(self._journal),
            packs.missing(config.models, config.boot_report),
        )
        self.attempts = Attempts(config, self.store, self.sources, self.events.put)
        self.jobs = Jobs(self.store, self.markers, self.events.put, sealing)
        self._needs_route = not _local(config, self.sources)
        self._meters: dict[str, Meter] = {}
        self._measured_at = float("-inf")
        self._alive_at = float("-inf")
        self._shown = ""
        self._control = Control(config.control_socket, Commands(self).handle)

    def run(self, *, once: bool = False) -> int:
        """Work until told to stop (0); with `once`, until nothing is in motion: 0 if all models are ready."""
        self._measure()
        self._show()
        self.notify.send("READY=1")
        while True:
            now = time.monotonic()
            due = min(core.next_due(self.state), self._measured_at + self._interval())
            try:
                event = self.events.get(timeout=max(0.0, min(due - now, WATCHDOG_INTERVAL)))
            except queue.Empty:
                self.step(Tick())
            else:
                if event is None:
                    return 0
                if isinstance(event, Asked):
                    self.step(event.event)
                    self._show()
                    event.taken.set()
                else:
                    self.step(event)
            if time.monotonic() >= self._measured_at + self._interval():
                self._measure()
            self._show()
            self._tell_alive()
            if once and settled(self.state):
                return 0 if ready(self.state) else 1

    def stop(self) -> None:
        """Make `run` return; may be called from a signal's handler."""
        self.events.put(None)

    def close(self) -> None:
        """Stop all threads, sync what is held, and leave word of it."""
        self.notify.send(
            "STOPPING=1", "STATUS=stopping: what was fetched so far is being written to the disk"
        )
        self._control.close()
        deadline = time.monotonic() + STOP_PATIENCE
        for thread in [*self.attempts.stop_all(), *self.jobs.stop()]:
            while thread.is_alive() and time.monotonic() < deadline:
                self.notify.extend(30)
                thread.join(1.0)
        self._take_rest()
        self.attempts.close()
        self.jobs.kept.close()
        self._save(state.to_save(self.state))
        os.close(self._lock)

    def step(self, event: Event) -> None:
        """Tell the core, and do what it asks for."""
        if isinstance(event, FetchEnded):
            self.attempts.ended(event)
            self._meters.pop(event.sha256, None)
            if event.words:
                self._look_at_route()  # a failure without any network is nobody's fault
        before = self.state
        self.state, actions = core.step(self.state, event, time.monotonic())
        for action in actions:
            self._perform(action)
        if before.models != self.state.models or before.route != self.state.route:
            self._shown = ""

    def _perform(self, action: Action) -> None:
        if isinstance(action, Log):
            print(action.text, flush=True)
        elif isinstance(action, Fetch):
            self.attempts.start(action)
        elif isinstance(action, StopFetch):
            self.attempts.stop(action.sha256)
        elif isinstance(action, Save):
            saved = state.to_save(self.state)
            self.jobs.quick.put(lambda: self._save(saved))
        elif isinstance(action, Do):
            if action.job == Job.DROP:
                for sha256 in action.files:
                    self.attempts.forget(sha256)
            self.jobs.do(action)

    def _interval(self) -> float:
        busy = any(model.stage not in (Stage.READY, Stage.PACK) for model in self.state.models)
        return BUSY_INTERVAL if busy else IDLE_INTERVAL

    def _measure(self) -> None:
        now = self._measured_at = time.monotonic()
        self._look_at_route()
        for sha256, count in self.attempts.fetched().items():
            self._meters.setdefault(sha256, Meter(now)).add(count, now)
        held = self.attempts.held()
        try:
            free, used = self.store.space()
        except OSError as error:
            print(f"{self.config.directory}: {error.strerror}", flush=True)
            return
        self.step(Measured(free, used, held))
        self._shown = ""

    def _look_at_route(self) -> None:
        present = not self._needs_route or route.present()
        if present != self.state.route:
            self.state, actions = core.step(self.state, RouteSeen(present), time.monotonic())
            for action in actions:
                self._perform(action)

    def _show(self) -> None:
        """Write status.json, where anything has changed."""
        if self._shown:
            return
        now = time.monotonic()
        sources = {
            file.sha256: self.attempts.shown(file.sha256, file.schedule.place) for file in self.state.files
        }
        rates = {sha256: meter.rate for sha256, meter in self._meters.items()}
        live = status.Live(self.attempts.fetched(), rates, sources, dict(self.jobs.verified))
        text = json.dumps(status.document(self.state, live, now, time.time()), indent=1)
        self._shown = text
        try:
            replace(Disk(), self.config.status_file, text + "\n", READABLE)
        except OSError as error:
            print(f"{self.config.status_file}: {error.strerror}", flush=True)
        self.notify.status(status.line(self.state, live, now))

    def _tell_alive(self) -> None:
        now = time.monotonic()
        if now - self._alive_at >= WATCHDOG_INTERVAL:
            self._alive_at = now
            self.notify.send("WATCHDOG=1")

    def _take_rest(self) -> None:
        """Count what the last attempts have brought."""
        while True:
            try:
                event = self.events.get_nowait()
            except queue.Empty:
                return
            if isinstance(event, FetchEnded):
                self.attempts.ended(event)
                self.state, _ = core.step(self.state, event, time.monotonic())

    @property
    def _journal(self) -> str:
        return f"{self.config.state_directory}/state.json"

    def _save(self, saved: tuple[state.Saved, ...]) -> None:
        try:
            journal.save(self._journal, saved, self.store.disk)
        except OSError as error:
            print(f"{self._journal}: {error.strerror}: counts are not kept over a restart", flush=True)


def sources(config: Config) -> dict[str, Source]:
    """Every file that can be fetched, with its places; models that share one share their places."""
    found: dict[str, Source] = {}
    for model in config.models:
        if model.delivery != "network":
            continue
        for file in model.files:
            known = found.get(file.sha256)
            have = list(known.places) if known else []
            have += [place for place in places(config, file) if place not in have]
            found[file.sha256] = Source(known.file if known else file, have)
    return found


def settled(now: State) -> bool:
    """Whether nothing will change by itself soon."""
    for model in now.models:
        hand = model.stage == Stage.FETCH and model.delivery == "import" and not model.busy
        if (
            model.busy
            or model.dropping
            or not (model.stage in (Stage.READY, Stage.PACK) or model.trouble or hand)
        ):
            return False
    return not any(file.running for file in now.files)


def ready(now: State) -> bool:
    """Whether every model is there."""
    return all(model.stage in (Stage.READY, Stage.PACK) and not model.trouble for model in now.models)


def _local(config: Config, found: dict[str, Source]) -> bool:
    """Whether some place is on this machine, so that a missing network is no reason to wait."""
    urls = [place.url for source in found.values() for place in source.places]
    return route.on_this_machine([*urls, *([config.proxy] if config.proxy else [])])


def _only_one(path: str) -> int:
    """A lock on the state directory.

    Raises:
        ConfigError: another provisioner has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"{path}: another provisioner runs on this directory") from None
    return descriptor


def main(path: str = CONFIG, *, once: bool = False) -> int:
    """Run until stopped; 1 and one line on stderr when the configuration or the disk cannot be used."""
    os.umask(0o077)
    try:
        daemon = Daemon(read(path))
    except ConfigError as error:
        print(f"hal-provision: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"hal-provision: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1

    def on_stop(number: int, frame: object) -> None:
        daemon.stop()

    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    try:
        return daemon.run(once=once)
    finally:
        daemon.close()
