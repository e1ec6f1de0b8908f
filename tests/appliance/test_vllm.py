"""vLLM on a CPU, inside: the unit, the answers, and what becomes of its processes. Minutes without KVM.

One machine for all of it, in the order of the file: a start of vLLM costs minutes where the CPU is emulated.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build
from tests.tiny_model import ANSWER

pytestmark = pytest.mark.large

NAMES = ["tiny", "orchestrator", "specialist"]
START = 180
"""Seconds with KVM; deadlines stretch them where the CPU is emulated."""
STOP = 60 + 10
"""`stop_timeout` of the engine's file, and a little for systemd."""

SPEC = """\
appliance: {name: tiny-vllm, version: 1.0.0}
variant: debug
engines:
  vllm:
    settings: {device: cpu, dtype: float32, served_model_names: orchestrator specialist}
models:
  - name: tiny
    format: safetensors
    files:
"""
FILE = """\
      - name: {name}
        size: {size}
        sha256: {sha256}
        source: {{kind: file, path: tiny/{name}}}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vllm")
    text = SPEC
    for file in sorted(tiny_model.write_safetensors(directory / "tiny").iterdir()):
        content = file.read_bytes()
        text += FILE.format(name=file.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    path = directory / "tiny-vllm.yaml"
    path.write_text(text + "machine: {memory: 6G}\n")
    return path


@pytest.fixture(scope="module")
def appliance(spec: Path, build_image: Build, boot_image: Boot) -> Iterator[Appliance]:
    with boot_image(build_image(spec)) as found:
        ready = found.wait_ready(START)
        print(f"vLLM was ready {ready:.0f} s after QEMU's start")
        yield found


@pytest.fixture(scope="module")
def host(appliance: Appliance) -> Host:
    return appliance.ssh()


def show(host: Host, name: str) -> str:
    text: str = host.check_output(f"systemctl show --property={name} --value vllm")
    return text


def processes(host: Host) -> dict[int, str]:
    """The processes of the unit's control group, by number, with their command lines."""
    numbers = host.run("cat /sys/fs/cgroup/engines.slice/vllm.service/cgroup.procs").stdout.split()
    found = {}
    for number in numbers:
        done = host.run(f"tr '\\0' ' ' < /proc/{number}/cmdline")
        if done.rc == 0:
            found[int(number)] = done.stdout
    return found


def one(host: Host, word: str) -> int:
    (number,) = (number for number, line in processes(host).items() if word in line)
    return number


def wait_active(appliance: Appliance, host: Host, seconds: float = START) -> None:
    appliance.vm.wait(
        lambda: show(host, "ActiveState") == "active", appliance.deadline(seconds), "vllm.service"
    )


def ask(appliance: Appliance, model: str) -> str | None:
    answer = appliance.openai().chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=16, temperature=0
    )
    return answer.choices[0].message.content


def test_active_means_healthy_and_every_name_listed(host: Host) -> None:
    assert show(host, "ActiveState") == "active"
    assert "tiny" in show(host, "StatusText")
    program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000{}').read().decode())"
    assert host.run(f'python3 -c "{program.format("/health")}"').rc == 0
    listed = json.loads(host.check_output(f'python3 -c "{program.format("/v1/models")}"'))["data"]
    assert [entry["id"] for entry in listed] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_llamacpps_for_the_same_weights(appliance: Appliance, name: str) -> None:
    """`test_serving.py` asserts the same of llama.cpp, and tiny_model.py gives both the same weights."""
    assert ask(appliance, name) == ANSWER


def test_it_runs_as_its_own_user_and_on_loopback_only(host: Host) -> None:
    assert host.user("vllm").uid == 912
    for number in processes(host):
        fields = host.check_output(f"cat /proc/{number}/status")
        uid = next(line.split()[1] for line in fields.splitlines() if line.startswith("Uid:"))
        assert uid == "912"
    sockets = host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
    outside = {line.split()[3] for line in sockets} - {"*:7001", "*:22", "0.0.0.0:7001", "0.0.0.0:22"}
    assert all(address.startswith(("127.", "[::1]")) for address in outside), outside


def test_the_journal_holds_no_prompt(host: Host) -> None:
    assert "Hello from" not in host.check_output("journalctl --unit=vllm --no-pager --output=cat")


def started_anew(appliance: Appliance, host: Host, before: dict[int, str]) -> None:
    """Every process of before is gone, and the unit starts again."""
    appliance.vm.wait(
        lambda: not set(before) & set(processes(host)) and show(host, "SubState") == "start",
        appliance.deadline(60),
        "the old processes to go and new ones to start",
    )


def test_a_killed_process_takes_the_group_along_and_it_comes_back(appliance: Appliance, host: Host) -> None:
    """The engine core while it serves, then the API process while it starts (a whole start takes minutes)."""
    before = processes(host)
    host.check_output(f"kill -9 {one(host, 'VLLM::EngineCore')}")
    started_anew(appliance, host, before)
    api = "entrypoints.cli.main serve"
    appliance.vm.wait(
        lambda: any(api in line for line in processes(host).values()),
        appliance.deadline(20),
        "the API process",
    )
    before = processes(host)
    host.check_output(f"kill -9 {one(host, api)}")
    started_anew(appliance, host, before)
    assert int(show(host, "NRestarts")) == 2
    wait_active(appliance, host)
    appliance.wait_ready(30)  # the selector asks from time to time
    assert ask(appliance, "tiny") == ANSWER


def test_restart_and_stop_leave_nothing_behind(appliance: Appliance, host: Host) -> None:
    before = processes(host)
    host.check_output("systemctl restart --no-block vllm")
    started_anew(appliance, host, before)
    begin = time.monotonic()
    host.check_output("systemctl stop vllm")
    assert time.monotonic() - begin < STOP
    assert show(host, "ActiveState") == "inactive"
    assert host.run("pgrep --uid vllm").stdout == ""
    assert appliance.get("/health").status_code == 503
