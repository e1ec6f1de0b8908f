"""hal-engine with an engine of the tests' own, on this machine: started, listened to, ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Archive
from tests.services.conftest import DEADLINE, ROOT, free_port

ENGINE = """\
import http.server, os, sys, time
class H(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        body = b'{"data": [{"id": "%s"}]}' % os.environ.get("LISTED", "tiny").encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
time.sleep(float(os.environ.get("DELAY", "0")))
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"""
"""An engine that is healthy and lists one model."""

LAUNCH = """\
import sys
from services.engine import launcher, report
report.Report.__init__.__defaults__ = (sys.argv[3],)
sys.exit(launcher.main([sys.argv[1]], sys.argv[2]))
"""


class Launched:
    """A launcher under way, with all that it says; `HOME/` in `changes` is the test's directory."""

    def __init__(self, home: Path, changes: dict[str, Any], variables: dict[str, str]) -> None:
        self.home, self.port = home, free_port()
        (home / "run/e").mkdir(parents=True)
        (home / "state").mkdir(exist_ok=True)
        (home / "model").write_bytes(b"weights")
        (home / "engine.py").write_text(ENGINE)
        variables = {"PORT": str(self.port), **variables}
        (home / "e.env").write_text("".join(f'{name}="{value}"\n' for name, value in variables.items()))
        data = {
            "name": "e",
            "command": [sys.executable, str(home / "engine.py")],
            "environment_file": str(home / "e.env"),
            "state_directory": str(home / "state"),
            "host": "127.0.0.1",
            "port": self.port,
            "readiness": {"path": "/health", "status": 200, "models_path": "/v1/models"},
            "models": [{"name": "tiny", "listed": "tiny", "path": str(home / "model"), "sha256": "0" * 64}],
            "registration": None,
            "start_timeout": 20,
            "stop_timeout": 5,
            "devices": [],
            "device_reason": "",
            **changes,
        }
        (home / "e.json").write_text(json.dumps(data).replace("HOME/", f"{home}/"))
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(home / "notify"))
        self.notified.settimeout(DEADLINE)
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, "e", str(home), str(home / "run")],
            env={**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(home / "notify")},
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, wanted: str) -> str:
        """The first notification that holds `wanted`."""
        while wanted not in (text := self.notified.recv(4096).decode()):
            pass
        return text

    def end(self) -> tuple[int, str]:
        """Exit status and standard error."""
        _, said = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, said

    @property
    def state(self) -> str:
        return (self.home / "run/e/state").read_text().strip()

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in found.split()]


Launch = Callable[..., Launched]


@contextmanager
def launching(home: Path) -> Iterator[Launch]:
    """Starts launchers, with variables and with changes of their configuration; all end with the block."""
    made: list[Launched] = []

    def start(variables: dict[str, str] | None = None, **changes: Any) -> Launched:
        made.append(Launched(home, changes, variables or {}))
        return made[-1]

    yield start
    for launched in made:
        for child in launched.children() if launched.process.poll() is None else []:
            os.kill(child, signal.SIGKILL)
        launched.process.kill()
        launched.process.wait()
        launched.notified.close()


def unpack(ollama: Archive, directory: Path) -> Path:
    """Ollama's program, out of its archive, which is unpacked as in its pack."""
    path = ollama.option.partition("=")[2].partition("#")[0]
    if not path.endswith("gz"):
        pytest.skip("Python cannot unpack this archive; the test in the guest does")
    with tarfile.open(path) as archive:
        archive.extractall(directory, filter="tar")
    return directory / "bin/ollama"
