"""What the selector and hal-control are told, as they themselves read it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from hal.image.root import write_files
from hal.profiles import profile_names
from hal.render import Rendered, render
from hal.spec.loading import LoadedSpec, load_spec, parse_spec
from services.selector.config import Config, parse
from services.selector.environment import applied
from services.selector.environment import parse as variables
from tests.render.test_sysv import shellcheck

CONTROL = "/usr/lib/hal/control"
TARGET = "/usr/lib/systemd/system/appliance.target"
TWO = """\
appliance: {name: two, version: '1'}
variant: debug
engines:
  - vllm: {settings: {device: cuda, tensor_parallel_size: 2, gpu_memory_utilization: 0.5}}
  - ollama: {settings: {gpu: nvidia}}
models: [smollm2-135m, smollm2-135m-safetensors]
disk: {state: 1G}
machine: {memory: 8G}
"""


def two(more: str = "") -> LoadedSpec:
    return parse_spec(TWO + more, Path("two.yaml"))


def config(files: Rendered) -> Config:
    return parse(files["/etc/hal/selector.json"].content)


@pytest.fixture(params=profile_names())
def profile(request: pytest.FixtureRequest) -> LoadedSpec:
    return load_spec(f"profiles/{request.param}")


def test_the_selector_takes_its_configuration(profile: LoadedSpec) -> None:
    files = render(profile, [])
    found = config(files)
    assert {engine.name for engine in found.engines} == {choice.name for choice in profile.spec.engines}
    assert found.trusted_state == (profile.spec.variant == "debug")
    path = found.env_files[0]
    wanted = applied(found, variables(files[path].content, path))
    assert wanted.backend == profile.spec.selector.policy and wanted.config == found


def test_the_control_program_is_good_shell(profile: LoadedSpec, tmp_path: Path) -> None:
    files = render(profile, [])
    write_files({CONTROL: files[CONTROL]}, tmp_path)
    shellcheck(tmp_path / CONTROL.lstrip("/"))
    names = " ".join(engine.name for engine in profile.engines)
    assert f'engines="{names}"\n' in files[CONTROL].content
    assert ("systemctl" in files[CONTROL].content) == (profile.spec.init == "systemd")


def test_needs_are_weights_over_the_share_of_the_gpu() -> None:
    loaded = two()
    vllm, ollama = config(render(loaded, [])).engines
    weights = sum(file.size for file in loaded.models[1].files)
    assert (vllm.needs.gpu, vllm.needs.gpus, vllm.needs.vram) == ("nvidia", 2, 2 * weights)
    assert vllm.tensor_parallel == "2" and vllm.needs.memory == loaded.engines[0].resources.memory
    assert (ollama.needs.gpu, ollama.needs.gpus) == ("nvidia", 1)
    assert ollama.listed("x") == "x:latest" and ollama.listed("x:1b") == "x:1b"


@pytest.mark.parametrize(
    ("more", "started"),
    [
        ("", {"vllm"}),
        ("selector: {policy: ollama}\n", {"ollama"}),
        ("selector: {preference: [ollama, vllm]}\n", {"ollama"}),
        ("selector: {exclusive: false}\n", {"vllm", "ollama"}),
    ],
)
def test_where_only_one_may_run_one_is_started(more: str, started: set[str]) -> None:
    files = render(two(more), [])
    wants = {line.removeprefix("Wants=") for line in files[TARGET].content.splitlines() if "Wants=" in line}
    assert {name for name in ("vllm", "ollama") if f"{name}.service" in wants} == started
    assert json.loads(files["/etc/hal/selector.json"].content)["exclusive"] == (len(started) == 1)


def test_only_the_engines_names_are_accepted(tmp_path: Path) -> None:
    """The program with a pipe of the test's, and an init system that only writes down what it is told."""
    directory = tmp_path / "control"
    text = render(two(), [])[CONTROL].content.replace("/run/hal/control", str(directory))
    told = tmp_path / "told"
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{told}\n')
    (tmp_path / "systemctl").chmod(0o755)
    directory.mkdir()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    process = subprocess.Popen(
        ["sh", "-c", text], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        pipe, done = directory / "requests", directory / "done/ollama"
        while not pipe.is_fifo():
            assert process.poll() is None
        lines = [
            "start sshd",
            "start ../vllm",
            "start vllm;reboot",
            "reboot vllm",
            "start",
            "start vllm ollama",
            "",
            " ",
        ]
        with pipe.open("w") as orders:
            orders.write("".join(f"{line}\n" for line in [*lines, "start vllm", "stop ollama"]))
        while (
            not done.exists() or not done.read_text() or not told.exists() or "start" not in told.read_text()
        ):
            assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
    assert done.read_text() == "stop 0\n"
    assert sorted(told.read_text().splitlines()) == ["--no-block start vllm.service", "stop ollama.service"]
    assert said.count(b"dropped an order that is none") == len(lines)
