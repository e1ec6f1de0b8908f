"""The loop around the core: one thread, one poll(2), nothing that blocks for long."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from . import core
from .config import Config, ConfigError, parse
from .gateway import Gateway, GatewayError
from .probe import Probe
from .status import LARGEST_REQUEST, answer

if "NOTIFY_SOCKET" in os.environ:
    from systemd.daemon import notify
else:  # started by an init script: nobody listens

    def notify(status: str) -> bool:
        """Stand-in for systemd.daemon.notify."""
        return False


CONFIG = "/etc/hal/selector.json"
CLIENT_TIMEOUT = 5.0
"""Seconds a client of the status socket has to send its request."""

MOST_CLIENTS = 32
"""Clients of the status socket at once; the gateway is the only one."""

LONGEST_WAIT = 5.0
"""Seconds between two turns of the loop at most, well inside the unit's WatchdogSec."""

WATCHDOG_INTERVAL = 5.0
"""Seconds between signs of life to systemd."""


class Client:
    """A connection to the status socket that has not sent its whole request yet."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.head = b""


class Daemon:
    """Performs the core's actions and brings events back."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.clock = clock
        self.state = core.initial(config, clock())
        self.engines = {engine.name: engine for engine in config.engines}
        self.poll = select.poll()
        self.gateway = Gateway(config.gateway_socket)
        self.probes: dict[int, Probe] = {}
        self.clients: dict[int, Client] = {}
        self.handlers: dict[int, Callable[[], None]] = {}
        self.listener = listen(config.status_socket)
        self._watch(self.listener.fileno(), select.POLLIN, self._accept)

    def turn(self) -> None:
        """One turn: what is due, then wait for descriptors and serve them."""
        self._step(core.Tick())
        due = [probe.deadline for probe in self.probes.values()]
        due += [client.deadline for client in self.clients.values()]
        wait = min(LONGEST_WAIT, min([core.next_due(self.state), *due]) - self.clock())
        for descriptor, _ in self.poll.poll(max(0.0, wait) * 1000):
            handler = self.handlers.get(descriptor)
            if handler is not None:  # else an earlier handler of this turn closed it
                handler()
        self._expire()

    def close(self) -> None:
        """Give every descriptor back and take the status socket away."""
        for probe in self.probes.values():
            probe.close()
        for client in self.clients.values():
            client.connection.close()
        self.gateway.close()
        self.listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.config.status_socket)  # noqa: PTH108 (pathlib costs at start-up)

    def _watch(self, descriptor: int, interest: int, handler: Callable[[], None]) -> None:
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, interest)

    def _forget(self, descriptor: int) -> None:
        del self.handlers[descriptor]
        self.poll.unregister(descriptor)

    def _step(self, event: core.Event) -> None:
        events = [event]
        while events:
            self.state, actions = core.step(self.state, events.pop(0), self.clock())
            for action in actions:
                result = self._perform(action)
                if result is not None:
                    events.append(result)

    def _perform(self, action: core.Action) -> core.Event | None:
        if isinstance(action, core.Log):
            print(action.text, flush=True)
            notify(f"STATUS={action.text}")
            return None
        if isinstance(action, core.Probe):
            probe = Probe(self.engines[action.engine], self.clock())
            return self._follow(probe, probe.start())
        try:
            if isinstance(action, core.ConnectGateway):
                self.gateway.connect()
                self._watch(self.gateway.fileno(), select.POLLIN, self._gateway_ended)
                return core.GatewayUp()
            self._set_server(action)
        except GatewayError as error:
            if self.state.gateway:
                print(f"the gateway's runtime API: {error}", flush=True)
            return core.GatewayDown()
        return core.ServerSet(action.engine, action.ready)

    def _set_server(self, action: core.SetServer) -> None:
        descriptor = self.gateway.fileno()
        try:
            self.gateway.set_server(self.engines[action.engine].server, action.ready)
        except GatewayError:
            self._forget(descriptor)
            self.gateway.close()
            raise

    def _gateway_ended(self) -> None:
        """Between commands HAProxy says nothing: what can be read is the end of the connection."""
        self._forget(self.gateway.fileno())
        self.gateway.close()
        self._step(core.GatewayDown())

    def _follow(self, probe: Probe, result: core.Probed | None) -> core.Probed | None:
        """Wait on for a probe that has no result yet."""
        if result is None:
            descriptor = probe.fileno()
            self.probes[descriptor] = probe
            self._watch(descriptor, probe.interest, lambda: self._probe_ready(descriptor))
        return result

    def _probe_ready(self, descriptor: int) -> None:
        probe = self.probes.pop(descriptor)
        self._forget(descriptor)
        result = self._follow(probe, probe.ready())
        if result is not None:
            self._step(result)

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        if len(self.clients) >= MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        descriptor = connection.fileno()
        self.clients[descriptor] = Client(connection, self.clock() + CLIENT_TIMEOUT)
        self._watch(descriptor, select.POLLIN, lambda: self._client_ready(descriptor))

    def _client_ready(self, descriptor: int) -> None:
        client = self.clients[descriptor]
        try:
            chunk = client.connection.recv(LARGEST_REQUEST)
            client.head += chunk
            if chunk and b"\r\n\r\n" not in client.head and len(client.head) < LARGEST_REQUEST:
                return
            if chunk:
                client.connection.send(answer(client.head, self.state, self.config))
        except BlockingIOError:
            return
        except OSError:
            pass  # the client has gone: nobody is left to tell
        self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._forget(descriptor)
        self.clients.pop(descriptor).connection.close()

    def _expire(self) -> None:
        now = self.clock()
        for descriptor, client in list(self.clients.items()):
            if client.deadline <= now:
                self._drop(descriptor)
        for descriptor, probe in list(self.probes.items()):
            if probe.deadline <= now:
                del self.probes[descriptor]
                self._forget(descriptor)
                self._step(probe.expire())


def listen(path: str) -> socket.socket:
    """The status socket; who may connect is up to the unit's UMask and Group."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(path)
    listener.listen(MOST_CLIENTS)
    return listener


def on_stop(number: int, frame: object) -> NoReturn:
    """SIGTERM and SIGINT: leave the loop."""
    raise SystemExit(0)


def main(path: str = CONFIG) -> int:
    """Run until stopped; exit status 1 and one line on stderr when the configuration cannot be used."""
    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            config = parse(file.read())
        daemon = Daemon(config)
    except (ConfigError, OSError) as error:
        print(f"hal-selector: {path}: {error}", file=sys.stderr)
        return 1
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
