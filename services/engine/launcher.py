"""`hal-engine NAME`: the order of an engine's life."""

from __future__ import annotations

import os
import signal
import sys
import time

from . import models, store
from .answers import listed, unhealthy
from .checks import check, check_model
from .child import Child
from .config import DIRECTORY, AwaitedError, Config, LaunchError, Model, arguments, environment, load
from .report import UNABLE, Report

USAGE = "usage: hal-engine NAME"
EXIT_USAGE = 2
EX_CONFIG = 78
"""The exit status of an engine that cannot run as it is set up (sysexits.h(3head))."""

ASK_INTERVAL = 0.25
"""Seconds between questions to an engine that starts."""

EXTENSION = 30.0
"""Seconds of patience that systemd is asked for, again and again, while a start goes on."""

TELL_INTERVAL = 5.0
"""Seconds after which it is asked again when nothing has changed."""

ARRIVAL_INTERVAL = 2.0
"""Seconds between looks for models that are yet to arrive."""

RETRY = 60.0
"""Seconds after which a model that could not be taken in is tried again."""

STOPS = (signal.SIGTERM, signal.SIGINT)
WAITED = (*STOPS, signal.SIGCHLD)


class Stopped(Exception):  # noqa: N818 (no error)
    """SIGTERM or SIGINT came."""


def wait(seconds: float) -> None:
    """Wait, but not beyond the end of a child.

    Raises:
        Stopped: the launcher is told to stop.
    """
    found = signal.sigtimedwait(WAITED, seconds)
    if found is not None and found.si_signo in STOPS:
        raise Stopped


class Launcher:
    """One engine under this process's care."""

    def __init__(self, config: Config, report: Report, given: dict[str, str]) -> None:
        self.config = config
        self.report = report
        self.environment = environment(config, given)
        self.ready = False
        self.taken: list[Model] = []
        self._refused: dict[str, float] = {}

    def run(self) -> int:
        """Start the engine and stay until it ends (never 0) or the launcher is told to stop (0)."""
        child: Child | None = None
        deadline = time.monotonic() + self.config.start_timeout
        try:
            check(self.config)
            if self._store:
                models.tidy(self.config, self._store)
            child = self._start(self.config.command)
            self._wait_ready(child, deadline)
            while (status := child.poll()) is None:
                wait(ARRIVAL_INTERVAL if self._awaited() else 3600)
                self._take_arrived(child)
            raise LaunchError(f"the engine ended by itself, {_words(status)}")
        except Stopped:
            self._stop(child)
            self.report.status("stopped", "stopped", "STOPPING=1")
            return 0
        except LaunchError as error:
            self.report.log(str(error))
            own = child.poll() if child is not None else None  # None: it has to be stopped
            for_good = (child is None or own == EX_CONFIG) and not isinstance(error, AwaitedError)
            self.report.status(UNABLE if for_good else "failed", str(error))
            self._stop(child)
            return own or 1

    @property
    def _store(self) -> str:
        """The directory of the engine's own store, where models in its form go; "" without one."""
        registration = self.config.registration
        return self.environment.get(registration.store, "") if registration else ""

    def _awaited(self) -> list[Model]:
        """The models that the engine does not have yet."""
        return [model for model in self.config.models if model not in self.taken]

    def _start(self, command: tuple[str, ...]) -> Child:
        argv = arguments(command, self.environment)
        return Child.start(argv, self.environment, self.config.state_directory)

    def _wait_ready(self, child: Child, deadline: float) -> None:
        """Return when health is good and all models that are there are listed, and say so."""
        there = [model for model in self.config.models if model.arrived]
        told, told_at = "", 0.0
        while True:
            _alive(child, "while it started")
            reason = unhealthy(self.config) or self._unlisted(there, child, deadline)
            if not reason:
                self.ready, self.taken = True, there
                self.report.status("ready", self._serving(), "READY=1")
                return
            now = time.monotonic()
            if now >= deadline:
                raise LaunchError(f"not ready within {self.config.start_timeout:g} s: {reason}")
            if reason != told or now - told_at >= TELL_INTERVAL:
                self.report.status("starting", f"starting: {reason}")
                self.report.extend(EXTENSION)
                told, told_at = reason, now
            wait(ASK_INTERVAL)

    def _serving(self) -> str:
        """What the engine does, for people."""
        names, awaited = (", ".join(model.name for model in group) for group in (self.taken, self._awaited()))
        serving = f"serving {names}" if names else "serving"
        return f"{serving}; waiting for {awaited} (`hal-provision status`)" if awaited else serving

    def _take_arrived(self, child: Child) -> None:
        """Make models known to the engine that have arrived while it ran; it goes on where one is refused."""
        for model in self._awaited():
            if not model.arrived or time.monotonic() < self._refused.get(model.name, 0.0):
                continue
            self.report.log(f"the model {model.name} has arrived")
            try:
                self._take(model, child, time.monotonic() + self.config.start_timeout)
            except LaunchError as error:
                _alive(child, "while it took a model in")
                self.report.log(f"{error}; tried again in {RETRY:g} s")
                self._refused[model.name] = time.monotonic() + RETRY
            self.report.status("ready", self._serving())

    def _take(self, model: Model, child: Child, deadline: float) -> None:
        check_model(model)
        while reason := self._unlisted([model], child, deadline):
            _alive(child, "while it took a model in")
            if time.monotonic() >= deadline:
                raise LaunchError(reason)
            wait(ASK_INTERVAL)
        self.taken.append(model)

    def _unlisted(self, wanted: list[Model], child: Child, deadline: float) -> str:
        """Register what has to be; then, why not all of `wanted` are there, or empty when they are."""
        found = listed(self.config)
        for model in models.due(self.config, wanted, found):
            self._register(model, child, deadline)
            found = listed(self.config)
        absent = [model.listed for model in wanted if model.listed not in found]
        return f"the model {absent[0]} is not listed" if absent else ""

    def _register(self, model: Model, child: Child, deadline: float) -> None:
        """Make one model known to the running engine."""
        if store.linked(self.config, model):
            store.link(self._store, model)
            self.report.log(f"took the model {model.name} in from {model.path}")
            return
        how = ("ready", self._serving()) if self.ready else ("starting", "starting")
        self.report.status(how[0], f"{how[1]}: registering the model {model.name}")
        command = models.prepare(self.config, model)
        helper = self._start(tuple(command))
        try:
            while (status := helper.poll()) is None:
                _alive(child, "while it registered a model")
                if time.monotonic() >= deadline:
                    raise LaunchError(f"registering the model {model.name} took too long")
                self.report.extend(EXTENSION)
                wait(ASK_INTERVAL)
        finally:
            helper.kill_group()
        if status != 0:
            raise LaunchError(
                f"the engine does not take the model {model.name} from {model.path}: "
                f"{command[0]} ended with {_words(status)}, its own words are above"
            )
        models.registered(self.config, model)
        self.report.log(f"registered the model {model.name} from {model.path}")

    def _stop(self, child: Child | None) -> None:
        """End the engine: SIGTERM, `stop_timeout` seconds of patience, then SIGKILL for all that is left."""
        if child is None:
            return
        if child.poll() is None:
            self.report.extend(self.config.stop_timeout + 5)
            child.signal(signal.SIGTERM)
            end = time.monotonic() + self.config.stop_timeout
            while child.poll() is None and time.monotonic() < end:
                signal.sigtimedwait(WAITED, 0.1)
            if child.status is None:
                self.report.log(f"it did not stop within {self.config.stop_timeout:g} s and is killed")
        child.kill_group()


def _alive(child: Child, when: str) -> None:
    """Return while the engine runs.

    Raises:
        LaunchError: it has ended.
    """
    status = child.poll()
    if status is not None:
        raise LaunchError(f"the engine ended {when}, {_words(status)}; its own words are above")


def _words(status: int) -> str:
    return f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"


def main(argv: list[str] | None = None, directory: str = DIRECTORY) -> int:
    """Exit status: 0 when asked to stop, 2 for wrong usage, otherwise the engine's, or 1."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1 or words[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    report = Report(words[0])
    try:
        launcher = Launcher(load(words[0], directory), report, dict(os.environ))
    except LaunchError as error:
        report.log(str(error))
        report.status(UNABLE, str(error))
        return 1
    return launcher.run()
