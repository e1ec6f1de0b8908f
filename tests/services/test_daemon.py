"""The daemon with stand-ins that misbehave: it goes on, and takes no CPU for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.selector.config import Config, EngineConfig
from services.selector.daemon import Daemon
from services.selector.settings import Settings


class HungGateway:
    """A runtime API that takes connections, gives its prompt once, and never an answer."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            connection.recv(100)
            connection.sendall(b"\n> ")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    engine = EngineConfig(
        "a", "127.0.0.1", port, f"http://127.0.0.1:{port}/v1", "/health", 200, "", "m", "m", "engines/a"
    )
    config = Config("auto", (engine,), str(tmp_path / "admin"), str(tmp_path / "http"))
    made = Daemon("absent", Settings(config), None)
    yield made
    made.close()


def turns(daemon: Daemon, seconds: float) -> int:
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        daemon.turn()
        count += 1
    return count


def test_a_gateway_that_hangs_costs_time_and_no_cpu(daemon: Daemon, tmp_path: Path) -> None:
    gateway = HungGateway(str(tmp_path / "admin"))
    began = time.process_time()
    assert turns(daemon, 4) < 200
    assert time.process_time() - began < 1
    assert len(gateway.connections) >= 2, "it connects anew"
    gateway.listener.close()


def test_a_gateway_that_is_away(daemon: Daemon) -> None:
    assert turns(daemon, 2) < 100
    assert not daemon.state.gateway


def test_status_is_answered_meanwhile(daemon: Daemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "http"))
        client.sendall(b"GET /api/v1/inference/status HTTP/1.1\r\n\r\n")
        turns(daemon, 0.5)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_clients_that_say_nothing_are_dropped_and_bounded(daemon: Daemon, tmp_path: Path) -> None:
    clients = []
    for _ in range(20):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(tmp_path / "http"))
    turns(daemon, 0.3)
    assert len(daemon.servers[0].clients) == 20
    turns(daemon, 5.5)
    assert not daemon.servers[0].clients, "they had 5 s"
    for client in clients:
        client.close()


def test_a_reload_of_what_is_not_there_changes_nothing(daemon: Daemon) -> None:
    before = daemon.config
    assert "absent" in daemon.reload()
    assert daemon.config is before and daemon.counts.refused == 1


class RuntimeApi:
    """A runtime API that does as told; another one at its path takes its place, and this one lives on."""

    def __init__(self, path: Path, process: int) -> None:
        self.connections = 0
        self.process = process
        self.listener = socket.socket(socket.AF_UNIX)
        fresh = path.with_suffix(".new")
        self.listener.bind(str(fresh))
        self.listener.listen()
        fresh.rename(path)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while command := connection.recv(1000):
                words = f"Name: HAProxy\nPid: {self.process}\n" if command == b"show info\n" else ""
                connection.sendall(f"{words}\n> ".encode())


def connects(tmp_path: Path) -> None:
    """Somebody connects to the status socket, as HAProxy does when it checks it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "http"))


def test_a_reload_is_noticed_while_the_old_process_lives_on(daemon: Daemon, tmp_path: Path) -> None:
    old = RuntimeApi(tmp_path / "admin", 1)
    turns(daemon, 0.5)
    assert daemon.state.gateway and daemon.gateway.process == "1"
    new = RuntimeApi(tmp_path / "admin", 2)
    turns(daemon, 0.3)
    assert daemon.gateway.process == "1", "nothing has told of it"
    connects(tmp_path)
    began = time.monotonic()
    while daemon.gateway.process != "2" or not daemon.state.gateway:
        daemon.turn()
        assert time.monotonic() - began < 1
    made = new.connections
    turns(daemon, 0.5)
    connects(tmp_path)
    turns(daemon, 0.5)
    assert (made, new.connections) == (1, 1), "a process that is known says nothing new"
    for api in (old, new):
        api.listener.close()


def test_a_stranger_that_connects_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    api = RuntimeApi(tmp_path / "admin", 1)
    turns(daemon, 0.5)
    before = daemon.gateway
    connects(tmp_path)
    turns(daemon, 1.5)
    assert daemon.gateway is before and daemon.state.gateway
    asked = api.connections
    turns(daemon, 0.5)
    assert asked == api.connections, "it was looked into for a second"
    api.listener.close()
