"""hal-engine on this machine: what it checks before a start, what ready means, and how each end is told.

The engine is a small program of the tests' own, or the stand-in for Ollama with the tiny model.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.engine import config as configuration
from services.engine.config import LaunchError, arguments, parse_environment
from services.selector.probe import own_words
from tests.conftest import Archive
from tests.services.launched import Launch, launching, unpack


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launching(tmp_path) as start:
        yield start


def test_ready_means_healthy_and_listed_and_sigterm_ends_it(launch: Launch) -> None:
    launched = launch({"DELAY": "0.5"})
    assert "nothing listens" in launched.told("starting")
    assert launched.told("READY=1") == "STATUS=serving tiny\nREADY=1"
    assert launched.state == "ready serving tiny"
    (child,) = launched.children()
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end() == (0, "")
    assert launched.state == "stopped stopped"
    assert not Path(f"/proc/{child}").exists()


def test_a_model_under_another_name_is_not_ready(launch: Launch) -> None:
    status, said = launch({"LISTED": "other"}, start_timeout=1).end()
    assert status == 1
    assert said == "hal-engine: not ready within 1 s: the model tiny is not listed\n"


def test_a_missing_gpu_names_its_nodes_and_starts_nothing(launch: Launch) -> None:
    launched = launch(devices=["/dev/null", "/dev/nvidia-absent"], device_reason="the spec asks for nvidia")
    status, said = launched.end()
    reason = (
        "no GPU: the device node /dev/nvidia-absent missing (the spec asks for nvidia); not run without it"
    )
    assert (status, said) == (1, f"hal-engine: {reason}\n")
    assert own_words(str(launched.home / "run/e/state")) == reason


def test_a_missing_model_says_that_its_pack_is_not_mounted(launch: Launch) -> None:
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
def test_an_engine_that_cannot_start(launch: Launch, command: list[str], reason: str) -> None:
    launched = launch(command=command)
    status, said = launched.end()
    assert status == (7 if "exit 7" in command else 1)
    assert reason in said
    assert launched.state.startswith(f"{'failed' if 'exit 7' in command else 'unable'} {reason[:40]}")


def test_a_killed_engine_is_a_failure_with_its_signal(launch: Launch) -> None:
    launched = launch()
    launched.told("READY=1")
    (child,) = launched.children()
    os.kill(child, signal.SIGKILL)
    assert launched.end() == (137, "hal-engine: the engine ended by itself, killed by signal 9\n")
    assert launched.state.startswith("failed ")


def test_one_that_does_not_stop_is_killed_with_what_it_started(launch: Launch) -> None:
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
def program(ollama: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("opt-ollama")
    yield unpack(ollama, directory)
    shutil.rmtree(directory)


def test_ollama_takes_the_images_models_in_once(
    launch: Launch, program: Path, tiny: Path, tmp_path: Path
) -> None:
    from hal.engines import load_engine

    registration = load_engine("ollama").registration
    assert registration is not None
    launched = launch(
        {"OLLAMA_MODELS": str(tmp_path / "state/models"), "HOME": str(tmp_path / "state")},
        command=["/usr/bin/env", "OLLAMA_HOST=127.0.0.1:${PORT}", str(program), "serve"],
        readiness={"path": "/", "status": 200, "models_path": "/v1/models"},
        models=[{"name": "tiny", "listed": "tiny:latest", "path": str(tiny), "sha256": "1" * 64}],
        registration={
            "text": registration.text + "\n",
            "command": [
                "/usr/bin/env",
                "OLLAMA_HOST=127.0.0.1:${PORT}",
                str(program),
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
