"""`hal-engine NAME`: the order of an engine's life."""

from __future__ import annotations

import os
import signal
import sys
import time

from . import models
from .answers import listed, unhealthy
from .checks import check
from .child import Child
from .config import DIRECTORY, Config, LaunchError, Model, arguments, environment, load
from .report import Report

USAGE = "usage: hal-engine NAME"
EXIT_USAGE = 2

ASK_INTERVAL = 0.25
"""Seconds between questions to an engine that starts."""

EXTENSION = 30.0
"""Seconds of patience that systemd is asked for, again and again, while a start goes on."""

TELL_INTERVAL = 5.0
"""Seconds after which it is asked again when nothing has changed."""

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

    def run(self) -> int:
        """Start the engine and stay until it ends (never 0) or the launcher is told to stop (0)."""
        child: Child | None = None
        deadline = time.monotonic() + self.config.start_timeout
        try:
            check(self.config)
            child = self._start(self.config.command)
            self._wait_ready(child, deadline)
            while (status := child.poll()) is None:
                wait(3600)
            raise LaunchError(f"the engine ended by itself, {_words(status)}")
        except Stopped:
            self._stop(child)
            self.report.status("stopped", "stopped", "STOPPING=1")
            return 0
        except LaunchError as error:
            self.report.log(str(error))
            self.report.status("failed", str(error))
            own = child.poll() if child is not None else None  # None: it has to be stopped
            self._stop(child)
            return own or 1

    def _start(self, command: tuple[str, ...]) -> Child:
        argv = arguments(command, self.environment)
        return Child.start(argv, self.environment, self.config.state_directory)

    def _wait_ready(self, child: Child, deadline: float) -> None:
        """Return when health is good and all models are listed, and say so."""
        names = ", ".join(model.name for model in self.config.models)
        told, told_at = "", 0.0
        while True:
            _alive(child, "while it started")
            reason = unhealthy(self.config) or self._unlisted(child, deadline)
            if not reason:
                self.report.status("ready", f"serving {names}" if names else "serving", "READY=1")
                return
            now = time.monotonic()
            if now >= deadline:
                raise LaunchError(f"not ready within {self.config.start_timeout:g} s: {reason}")
            if reason != told or now - told_at >= TELL_INTERVAL:
                self.report.status("starting", f"starting: {reason}")
                self.report.extend(EXTENSION)
                told, told_at = reason, now
            wait(ASK_INTERVAL)

    def _unlisted(self, child: Child, deadline: float) -> str:
        """Register what has to be; then, why not all models are there, or empty when they are."""
        found = listed(self.config)
        for model in models.due(self.config, found):
            self._register(model, child, deadline)
            found = listed(self.config)
        absent = [model.listed for model in self.config.models if model.listed not in found]
        return f"the model {absent[0]} is not listed" if absent else ""

    def _register(self, model: Model, child: Child, deadline: float) -> None:
        """Make one model known to the running engine."""
        self.report.status("starting", f"starting: registering the model {model.name}")
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
        report.status("failed", str(error))
        return 1
    return launcher.run()
