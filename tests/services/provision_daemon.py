"""The provisioner's daemon as a process, its files under one directory, and a server of files beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from services.provisioner.config import Config
from tests.services.provision_pins import as_json

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from services.provisioner.cli import main; sys.exit(main())"
DEADLINE = 30.0
"""Seconds for anything here to happen; on an idle machine it takes one."""


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Files:
    """Serves a folder on loopback; `port` is kept when it is closed and opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._server: ThreadingHTTPServer | None = None

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def open(self) -> Files:
        handler = partial(_Handler, directory=str(self.folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Provisioner:
    """`hal-provision run` and its other commands, for one configuration."""

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root
        self.config = config
        self.path = root / "provision.json"
        self.path.write_text(json.dumps(as_json(config)))
        self.process: subprocess.Popen[str] | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(f"{root}/notify")
        self.told: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self) -> Provisioner:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": f"{self.root}/notify"}
        argv = [sys.executable, "-c", PROGRAM, "--config", str(self.path), "run"]
        with (self.root / "log").open("a") as log:
            self.process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, text=True)
        return self

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", PROGRAM, "--config", str(self.path), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=DEADLINE)

    def status(self) -> dict[str, dict[str, Any]]:
        """What status.json says of each model; nothing yet: nothing."""
        try:
            found = json.loads(Path(self.config.status_file).read_text())
        except FileNotFoundError:
            return {}
        return {model["name"]: model for model in found["models"]}

    def wait(self, done: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            found = self.status()
            if found and done(found):
                return found
            assert self.process is None or self.process.poll() is None, self.log
            time.sleep(0.02)
        raise AssertionError(f"{json.dumps(self.status(), indent=1)}\n{self.log}")

    def wait_state(self, name: str, state: str) -> dict[str, Any]:
        return self.wait(lambda found: found[name]["state"] == state)[name]

    def _listen(self) -> None:
        """Hear all that systemd would be told."""
        while (words := self._notify.recv(4096).decode()) != "END":
            self.told += words.split("\n")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    def close(self) -> None:
        self.stop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", f"{self.root}/notify")
