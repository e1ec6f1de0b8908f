"""hal-engine on this machine: what it checks before a start, what ready means, and how each end is told.

The engine is a small program of the tests' own, or the stand-in for Ollama with the tiny model.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.engine import config as configuration
from services.engine.config import LaunchError, arguments, parse_environment
from services.selector.probe import own_words
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
        (home / "state").mkdir()
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


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []

    def start(variables: dict[str, str] | None = None, **changes: Any) -> Launched:
        made.append(Launched(tmp_path, changes, variables or {}))
        return made[-1]

    yield start
    for launched in made:
        for child in launched.children() if launched.process.poll() is None else []:
            os.kill(child, signal.SIGKILL)
        launched.process.kill()
        launched.process.wait()
        launched.notified.close()


def test_ready_means_healthy_and_listed_and_sigterm_ends_it(launch: Callable[..., Launched]) -> None:
    launched = launch({"DELAY": "0.5"})
    assert "nothing listens" in launched.told("starting")
    assert launched.told("READY=1") == "STATUS=serving tiny\nREADY=1"
    assert launched.state == "ready serving tiny"
    (child,) = launched.children()
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end() == (0, "")
    assert launched.state == "stopped stopped"
    assert not Path(f"/proc/{child}").exists()


def test_a_model_under_another_name_is_not_ready(launch: Callable[..., Launched]) -> None:
    status, said = launch({"LISTED": "other"}, start_timeout=1).end()
    assert status == 1
    assert said == "hal-engine: not ready within 1 s: the model tiny is not listed\n"


def test_a_missing_gpu_names_its_nodes_and_starts_nothing(launch: Callable[..., Launched]) -> None:
    launched = launch(devices=["/dev/null", "/dev/nvidia-absent"], device_reason="the spec asks for nvidia")
    status, said = launched.end()
    reason = (
        "no GPU: the device node /dev/nvidia-absent missing (the spec asks for nvidia); not run without it"
    )
    assert (status, said) == (1, f"hal-engine: {reason}\n")
    assert own_words(str(launched.home / "run/e/state")) == reason


def test_a_missing_model_says_that_its_pack_is_not_mounted(launch: Callable[..., Launched]) -> None:
    models = [{"name": "m", "listed": "m", "path": "/srv/models/m/m.gguf", "sha256": "0" * 64}]
    status, said = launch(models=models).end()
    assert status == 1
    assert "the model m is not at /srv/models/m/m.gguf: its pack is not mounted" in said


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/opt/absent/bin/x"], "/opt/absent/bin/x is missing: the engine's pack is not mounted"),
        (["/proc/version"], "cannot start /proc/version: Permission denied"),
        (["/bin/sh", "-c", "exit 7"], "the engine ended while it started, exit status 7"),
    ],
)
def test_an_engine_that_cannot_start(
    launch: Callable[..., Launched], command: list[str], reason: str
) -> None:
    launched = launch(command=command)
    status, said = launched.end()
    assert status == (7 if "exit 7" in command else 1)
    assert reason in said
    assert launched.state.startswith(f"failed {reason[:40]}")


def test_a_killed_engine_is_a_failure_with_its_signal(launch: Callable[..., Launched]) -> None:
    launched = launch()
    launched.told("READY=1")
    (child,) = launched.children()
    os.kill(child, signal.SIGKILL)
    assert launched.end() == (137, "hal-engine: the engine ended by itself, killed by signal 9\n")
    assert launched.state.startswith("failed ")


def test_one_that_does_not_stop_is_killed_with_what_it_started(launch: Callable[..., Launched]) -> None:
    script = f"trap '' TERM; sleep 1000 & {sys.executable} $0 & wait; wait; wait"
    launched = launch(stop_timeout=0.5, command=["/bin/bash", "-c", script, "HOME/engine.py"])
    launched.told("READY=1")
    (child,) = launched.children()
    launched.process.send_signal(signal.SIGTERM)
    status, said = launched.end()
    assert status == 0
    assert "did not stop within 0.5 s and is killed" in said
    alive = [p for p in Path("/proc").glob("[0-9]*/stat") if _group(p) == child]
    assert alive == []


def _group(stat: Path) -> int:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[2]) if fields[0] != "Z" else 0


def test_environment_and_arguments_as_systemd_has_them() -> None:
    variables = parse_environment('# c\nA=1\nB="two \\"words\\" \\$x"\nC=\n')
    assert variables == {"A": "1", "B": 'two "words" $x', "C": ""}
    assert arguments(("x", "--a=${A}", "$C", "$A", "${C}"), variables) == ["x", "--a=1", "1", ""]
    assert arguments(("$M",), {"M": "--x 'a b'"}) == ["--x", "a b"]


def test_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="No such file"):
        configuration.load("absent", str(tmp_path))
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(LaunchError, match="'registration' is missing"):
        configuration.load("e", str(tmp_path))


@pytest.fixture(scope="module")
def unpacked(ollama: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ollama's archive as its pack has it."""
    path = ollama.option.partition("=")[2].partition("#")[0]
    if not path.endswith("gz"):
        pytest.skip("Python cannot unpack this archive; the test in the guest does")
    directory = tmp_path_factory.mktemp("opt-ollama")
    with tarfile.open(path) as archive:
        archive.extractall(directory, filter="tar")
    yield directory
    shutil.rmtree(directory)


def test_ollama_takes_the_images_models_in_once(
    launch: Callable[..., Launched], unpacked: Path, tiny: Path, tmp_path: Path
) -> None:
    from hal.engines import load_engine

    program = str(unpacked / "bin/ollama")
    registration = load_engine("ollama").registration
    assert registration is not None
    launched = launch(
        {"OLLAMA_MODELS": str(tmp_path / "state/models"), "HOME": str(tmp_path / "state")},
        command=["/usr/bin/env", "OLLAMA_HOST=127.0.0.1:${PORT}", program, "serve"],
        readiness={"path": "/", "status": 200, "models_path": "/v1/models"},
        models=[{"name": "tiny", "listed": "tiny:latest", "path": str(tiny), "sha256": "1" * 64}],
        registration={
            "text": registration.text + "\n",
            "command": [
                "/usr/bin/env",
                "OLLAMA_HOST=127.0.0.1:${PORT}",
                program,
                *registration.command[1:],
            ],
        },
    )
    launched.told("READY=1")
    names = httpx.get(f"http://127.0.0.1:{launched.port}/api/tags", timeout=30).json()["models"]
    assert [entry["name"] for entry in names] == ["tiny:latest"]
    assert json.loads((tmp_path / "state/hal-models.json").read_text()) == {"tiny": "1" * 64}
    launched.process.send_signal(signal.SIGTERM)
    status, said = launched.end()
    assert (status, said.count("registered the model tiny")) == (0, 1)
