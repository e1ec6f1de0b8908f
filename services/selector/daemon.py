"""The daemon around the core: performs its actions and brings events back, without ever blocking for long."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from . import core, hardware, runtime, settings, status, store
from .commands import Commands
from .config import Config, ConfigError
from .core.events import GatewayDown, Saved
from .gateway import Gateway, GatewayError
from .loop import READ, Loop
from .models import Models
from .probe import Probe
from .report import Facts
from .server import Fetch, Reply, Server
from .settings import CONFIG, Settings
from .status import Counts
from .successor import Successor
from .watching import Watching

if "NOTIFY_SOCKET" in os.environ:
    from systemd.daemon import notify
else:  # started by an init script: nobody listens

    def notify(status: str) -> bool:
        """Stand-in for systemd.daemon.notify."""
        return False


LONGEST_WAIT = 5.0
"""Seconds between two turns of the loop at most, well inside the unit's WatchdogSec."""

WATCHDOG_INTERVAL = 5.0
"""Seconds between signs of life to systemd."""

HARDWARE_INTERVAL = 1.0
"""Seconds between looks for hal-control's file while it is not there yet."""

CONNECT_INTERVAL = 0.25
"""Seconds after a failure of the gateway's until it is tried again: others are served in between."""

EXPORTER_TIMEOUT = 2.0
CONTROL_MODE = 0o600


class Daemon:
    """One selector."""

    def __init__(
        self, path: str, found: Settings, saved: Saved | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.settings = found
        self.loop = Loop(clock)
        self.clock = clock
        self.state = core.initial(found.config, clock(), saved)
        self.counts = Counts()
        self.hardware = hardware.Hardware()
        self.unkept = ""
        self.gateway = Gateway(found.config.gateway_socket)
        self.successor = Successor(found.config.gateway_socket, clock)
        self._followed: int | None = None
        self._connect_at = clock()
        self.probes: dict[str, Probe] = {}
        self.watching = Watching(self.loop, self.step)
        self.watching.follow(found.config)
        self._hardware_at = clock()
        self.models = Models(found.config, clock, self.step)
        config = found.config
        connected = self.successor.connected
        self.servers = [Server(self.loop, config.status_socket, b"\r\n\r\n", self._http, connected=connected)]
        if config.control_socket:
            own = frozenset((0, os.geteuid()))
            commands = Commands(self)
            self.servers.append(
                Server(
                    self.loop, config.control_socket, b"\n", commands.handle, mode=CONTROL_MODE, allowed=own
                )
            )

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.settings.config

    def turn(self) -> None:
        """One turn: what is due, then wait for descriptors and serve them."""
        now = self.clock()
        if self._hardware_at <= now:
            self.look_at_hardware()
        if self.successor.due <= now:
            self._look_for_a_successor()
        if self.models.due <= now:
            self.models.look()
        if self.watching.due <= now:
            self.watching.look(lambda: self.state)
        self.step(core.Tick())
        due = min(core.next_due(self.state), self.watching.due, self.models.due, self._hardware_at)
        self.loop.turn(min(due, self.successor.due, self.clock() + LONGEST_WAIT))

    def close(self) -> None:
        """Give every descriptor back and take the sockets away."""
        for probe in self.probes.values():
            probe.close()
        for server in self.servers:
            server.close()
        self.gateway.close()

    def step(self, event: core.Event) -> None:
        """Tell the core, and do what it asks for; what comes of that at once is told as well."""
        events = [event]
        while events:
            before = self.state
            self.state, actions = core.step(self.state, events.pop(0), self.clock())
            self.counts = self.counts.after(before, self.state, time.time())
            for action in actions:
                result = self._perform(action)
                if result is not None:
                    events.append(result)

    def reload(self) -> str:
        """Read everything anew; what is wrong, in which case all stays as it is, or empty."""
        try:
            found = settings.read(self.path, strict=True)
            maps = settings.maps(found.config)
        except (ConfigError, OSError, ValueError) as error:
            self.counts = self.counts._replace(refused=self.counts.refused + 1)
            print(f"not reloaded: {error}", flush=True)
            return str(error)
        self.settings = found
        self.watching.follow(found.config)
        self.step(core.Reconfigured(found.config))
        self.look_at_hardware()
        self.models.follow(found.config)
        problem = runtime.give_maps(self.gateway, maps)
        self.counts = self.counts._replace(reloads=self.counts.reloads + 1)
        print(f"reloaded; {problem}" if problem else "reloaded", flush=True)
        return problem

    def prefer(self, names: tuple[str, ...]) -> None:
        """Take another order of preference, over restarts too."""
        config = settings.reordered(self.config, names)
        order = tuple(engine.name for engine in config.engines)
        self._keep(store.save_names(settings.preference_path(config), order))
        self.settings = self.settings._replace(config=config)
        self.step(core.Reconfigured(config))

    def facts(self) -> Facts:
        """What operators are told beside the state; open requests are counted now."""
        streams: dict[str, int] | None = None
        if self.state.gateway and self.gateway.connected:
            try:
                streams = {e.name: self.gateway.streams(runtime.servers_of(e)) for e in self.config.engines}
            except GatewayError as error:
                self.step(self._gateway_lost(error))
        return Facts(
            streams, self.hardware, self.settings.source, self.settings.refused, self.unkept, self.models.seen
        )

    def look_at_hardware(self) -> None:
        """Read what hal-control found, and tell the core which engines that is enough for."""
        self.hardware = hardware.read(self.config.hardware_file)
        unknown = self.config.hardware_file and not self.hardware.known
        self._hardware_at = self.clock() + HARDWARE_INTERVAL if unknown else float("inf")
        for name, reason in hardware.fits(self.config.engines, self.hardware).items():
            self.step(core.Fits(name, reason))

    def _perform(self, action: core.Action) -> core.Event | None:
        if isinstance(action, core.Log):
            print(action.text, flush=True)
            notify(f"STATUS={action.text}")
            return None
        if isinstance(action, core.Probe):
            probe = Probe(self.config.engine(action.engine), self.clock())
            return self._follow(probe, probe.start())
        if isinstance(action, core.Start | core.Stop):
            return self.watching.order(action, self.config.control_pipe)
        if isinstance(action, core.Save):
            self._keep(store.save(self.config.state_path, action.saved))
            return None
        try:
            if isinstance(action, core.ConnectGateway):
                if self.clock() < self._connect_at:
                    return GatewayDown()
                if not self.gateway.connected:
                    self.gateway.connect()
                self._followed = self.gateway.fileno()
                self.loop.watch(self._followed, READ, self._gateway_ended)
                runtime.give_replaced_maps(self.gateway, self.config)
                return core.GatewayUp()
            return runtime.perform(action, self.gateway, self.config)
        except GatewayError as error:
            return self._gateway_lost(error)

    def _gateway_lost(self, error: GatewayError) -> core.Event:
        if self.state.gateway:
            print(f"the gateway's runtime API: {error}", flush=True)
        if self._followed is not None:  # also where the connection was closed when a command failed
            self.loop.forget(self._followed)
            self._followed = None
        self.gateway.close()
        self._connect_at = self.clock() + CONNECT_INTERVAL
        return GatewayDown()

    def _look_for_a_successor(self) -> None:
        """Go over to HAProxy's new process, where a reload has made one."""
        fresh = self.successor.look(self.gateway)
        if fresh is None:
            return
        event = self._gateway_lost(GatewayError("HAProxy was reloaded"))
        self.gateway, self._connect_at = fresh, self.clock()
        self.step(event)

    def _gateway_ended(self) -> None:
        """Between commands HAProxy says nothing: what can be read is the end of the connection."""
        self.step(self._gateway_lost(GatewayError("the connection ended")))

    def _keep(self, problem: str) -> None:
        if problem and problem != self.unkept:
            print(f"commands are not kept over a restart: {problem}", flush=True)
        self.unkept = problem

    def _follow(self, probe: Probe, result: core.Probed | None) -> core.Probed | None:
        """Wait on for a probe that has no result yet."""
        if result is not None:
            self.probes.pop(probe.engine.name, None)
            return result
        self.probes[probe.engine.name] = probe
        descriptor = probe.fileno()

        def ready() -> None:
            self.loop.forget(descriptor)
            found = self._follow(probe, probe.ready())
            if found is not None:
                self.step(found)

        def expire() -> None:
            self.probes.pop(probe.engine.name, None)
            self.step(probe.expire())

        self.loop.watch(descriptor, probe.interest, ready, probe.deadline, expire)
        return None

    def _http(self, head: bytes, reply: Reply) -> None:
        """A request to the status socket; HAProxy's own series come from its exporter."""

        def done(exported: bytes) -> None:
            before = status.body_of(exported)
            reply(status.answer(head, self.state, self.config, self.counts, before, self.models.seen))

        if self.config.gateway_metrics and status.asks_for_all_metrics(head):
            request = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n"
            Fetch(self.loop, self.config.gateway_metrics, request, EXPORTER_TIMEOUT, done)
        else:
            done(b"")


def on_stop(number: int, frame: object) -> NoReturn:
    """SIGTERM and SIGINT: leave the loop."""
    raise SystemExit(0)


def main(path: str = CONFIG) -> int:
    """Run until stopped; exit status 1 and one line on stderr when the configuration cannot be used."""
    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    try:
        found = settings.read(path, strict=False)
        saved, problem = store.load(found.config.state_path)
        daemon = Daemon(path, found, saved)
    except (ConfigError, OSError, ValueError) as error:
        print(f"hal-selector: {path}: {error}", file=sys.stderr)
        return 1
    for words in (problem, found.refused):
        if words:
            print(words, flush=True)
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def reload() -> None:
        with contextlib.suppress(BlockingIOError):
            while signal.SIGHUP in os.read(wake, 64):
                daemon.reload()

    signal.signal(signal.SIGHUP, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    daemon.loop.watch(wake, READ, reload)
    notify("READY=1\nSTATUS=waiting for an engine")
    alive = time.monotonic()
    try:
        while True:
            daemon.turn()
            if time.monotonic() - alive >= WATCHDOG_INTERVAL:
                alive = time.monotonic()
                notify("WATCHDOG=1")
    finally:
        notify("STOPPING=1")
        daemon.close()
