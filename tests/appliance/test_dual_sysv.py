"""Two engines in one appliance, started by init scripts: the same checks for each of them.

Ollama's archive is the stand-in of the tests, or the real one: `pytest … --artifact ollama=FILE`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testinfra.host import Host

from hal.engines import load_engine
from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build
from tests.conftest import Archive
from tests.tiny_model import ANSWER

RUNNING, STOPPED = 0, 3
START = {"llamacpp": 20, "ollama": 30, "vllm": 240}
"""Seconds to readiness with KVM; deadlines stretch them where the CPU is emulated."""

CONFIGURED = {"vllm": "vllm: {settings: {device: cpu, dtype: float32, served_model_names: tiny}}"}

SAFETENSORS = """\
  - name: tiny-safetensors
    format: safetensors
    files:
"""
FILE = """\
      - {{name: {name}, size: {size}, sha256: {sha256}, source: {{kind: file, path: tiny-st/{name}}}}}
"""


@dataclass
class Guest:
    """A machine, its inside, and its engines."""

    appliance: Appliance
    host: Host
    engines: tuple[str, ...]

    def act(self, engine: str, action: str) -> int:
        code: int = self.host.run(f"/etc/init.d/S96{engine} {action}").rc
        return code

    def says(self, engine: str) -> str:
        text: str = self.host.run(f"/etc/init.d/S96{engine} status").stdout
        return text

    def processes(self, engine: str) -> set[str]:
        return set(self.host.run(f"cat /sys/fs/cgroup/engines/{engine}/service/cgroup.procs").stdout.split())

    def listed(self, engine: str) -> str:
        """What the engine itself lists, asked over loopback; empty while it does not answer."""
        url = f"http://127.0.0.1:{load_engine(engine).port}/v1/models"
        program = f"import urllib.request as r; print(r.urlopen('{url}', timeout=30).read().decode())"
        return str(self.host.run("python3 -c %s", program).stdout)

    def wait_listed(self, engine: str) -> None:
        """Until the engine lists its model."""
        self.appliance.vm.wait(
            lambda: "tiny" in self.listed(engine), self.appliance.deadline(START[engine]), engine
        )

    def wait_quick(self, engine: str) -> None:
        """The same, but for vLLM: one of its starts costs minutes where the CPU is emulated."""
        if engine != "vllm":
            self.wait_listed(engine)


PAIRS = [("ollama", "llamacpp"), pytest.param(("ollama", "vllm"), marks=pytest.mark.large)]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def engines(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture(scope="module")
def guest(
    engines: tuple[str, ...],
    build_image: Build,
    write_spec: Callable[..., Path],
    ollama: Archive,
    boot_image: Boot,
) -> Iterator[Guest]:
    configured = {**CONFIGURED, "ollama": f"ollama: {{version: {ollama.version}}}"}
    chosen = ", ".join(f"{{{configured[name]}}}" if name in configured else name for name in engines)
    more = "init: sysv\ndisk: {state: 256M}\nmachine: {memory: 6G}\n"
    path = write_spec("tiny-dual", engines=f"[{chosen}]")
    models = SAFETENSORS if "vllm" in engines else ""
    if models:
        for file in sorted(tiny_model.write_safetensors(path.parent / "tiny-st").iterdir()):
            content = file.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            models += FILE.format(name=file.name, size=len(content), sha256=sha256)
    path.write_text(path.read_text() + models + more)
    with boot_image(build_image(path, ollama.option)) as machine:
        machine.wait_ready(60)
        found = Guest(machine, machine.ssh(), engines)
        for engine in engines:
            found.wait_listed(engine)
            print(f"{engine} was ready {machine.vm.uptime:.0f} s after QEMU's start")
        yield found


def test_each_engine_runs_as_its_own_user(guest: Guest) -> None:
    for engine in guest.engines:
        assert guest.act(engine, "status") == RUNNING
        users = {guest.host.check_output(f"stat -c %U /proc/{pid}") for pid in guest.processes(engine)}
        assert users == {engine}


def test_each_engine_listens_on_loopback_only(guest: Guest) -> None:
    lines = guest.host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
    addresses = {line.split()[3] for line in lines}
    for engine in guest.engines:
        assert f"127.0.0.1:{load_engine(engine).port}" in addresses
    outside = {address for address in addresses if not address.startswith(("127.", "[::1]"))}
    assert {address.rpartition(":")[2] for address in outside} == {"7001", "22"}


def test_the_gateway_serves_through_one_of_them(guest: Guest) -> None:
    assert guest.appliance.status()["backend"] in guest.engines
    answer = guest.appliance.openai().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.content == ANSWER


def test_start_twice_is_start_once(guest: Guest) -> None:
    for engine in guest.engines:
        before = guest.processes(engine)
        assert guest.act(engine, "start") == 0
        assert before <= guest.processes(engine)


def test_a_killed_process_takes_its_group_along_and_comes_back(guest: Guest) -> None:
    # The last process that vLLM started, its engine core; then the launcher of each engine.
    for engine, place in [("vllm", -1), *((engine, 0) for engine in guest.engines)]:
        if engine not in guest.engines:
            continue
        before = guest.processes(engine)
        guest.host.run(f"kill -9 {sorted(before, key=int)[place]}")

        def back(engine: str = engine, before: set[str] = before) -> bool:
            now = guest.processes(engine)
            return bool(now) and not now & before

        guest.appliance.vm.wait(back, guest.appliance.deadline(20), f"{engine}, started again")
        guest.wait_quick(engine)


def test_restart(guest: Guest) -> None:
    for engine in guest.engines:
        before = guest.processes(engine)
        assert guest.act(engine, "restart") == 0
        assert not guest.processes(engine) & before
        guest.wait_quick(engine)


def test_a_stale_pid_file_hinders_nothing(guest: Guest) -> None:
    engine = guest.engines[-1]
    assert guest.act(engine, "stop") == 0
    guest.host.check_output(f"echo 1 > /run/{engine}.pid")
    assert guest.act(engine, "status") == 1
    assert guest.act(engine, "start") == 0
    assert guest.act(engine, "status") == RUNNING
    guest.wait_listed(engine)


def test_stop_twice_leaves_no_process(guest: Guest) -> None:
    for engine in guest.engines:
        assert guest.act(engine, "stop") == 0
        assert guest.act(engine, "status") == STOPPED
        assert guest.processes(engine) == set()
        assert guest.host.run(f"pgrep --uid {engine}").stdout == ""
        assert guest.act(engine, "stop") == 0
        assert guest.act(engine, "status") == STOPPED
    machine = guest.appliance
    machine.vm.wait(
        lambda: machine.get("/health").status_code == 503, machine.deadline(10), "the gateway's no"
    )


def test_a_missing_gpu_is_named_and_nothing_runs_on_the_cpu(
    build_image: Build, write_spec: Callable[..., Path], ollama: Archive, boot_image: Boot
) -> None:
    engines = f"[{{ollama: {{version: {ollama.version}, settings: {{gpu: nvidia}}}}}}]"
    path = write_spec("tiny-gpu-sysv", engines=engines, more="init: sysv\ndisk: {state: 256M}\n")
    with boot_image(build_image(path, ollama.option)) as machine:
        guest = Guest(machine, machine.ssh(), ("ollama",))
        machine.vm.wait(lambda: "no GPU" in guest.says("ollama"), machine.deadline(10), "the reason")
        machine.vm.wait(
            lambda: guest.act("ollama", "status") == 1, machine.deadline(10), "status to say that it failed"
        )
        assert "/dev/nvidiactl" in guest.says("ollama")
        assert "no GPU" in guest.host.check_output("logread | grep ' ollama: '")
        assert guest.host.run("pgrep --uid ollama --full 'ollama serve'").stdout == ""
