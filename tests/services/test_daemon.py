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
