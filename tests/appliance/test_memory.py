"""An engine that takes all memory ends, whole, and comes back; the gateway and the selector go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from hal.render.memory import engines_share
from tests.appliance.conftest import Appliance, Boot, Build, Image

MEMORY = "640M"
HOG = "held = [b'x' * (16 << 20) for _ in range(64)]; input()"
"""More than the machine has, piece by piece: the kernel refuses what can never be had at once."""

GROUPS = {
    "systemd": ("/sys/fs/cgroup/engines.slice", "llamacpp.service"),
    "sysv": ("/sys/fs/cgroup/engines", "llamacpp/service"),
}


@pytest.fixture(scope="module", params=GROUPS)
def image(request: pytest.FixtureRequest, build_image: Build, write_spec: Callable[..., Path]) -> Image:
    more = f"init: {request.param}\nmachine: {{memory: {MEMORY}}}\n"
    return build_image(write_spec(f"tiny-memory-{request.param}", more=more))


@pytest.fixture(scope="module")
def appliance(image: Image, boot_image: Boot) -> Iterator[Appliance]:
    with boot_image(image) as found:
        found.wait_ready(60)
        yield found


@pytest.fixture(scope="module")
def host(appliance: Appliance) -> Host:
    return appliance.ssh()


def number(host: Host, path: str) -> int:
    return int(host.check_output(f"cat {path}"))


def test_all_engines_have_one_limit(image: Image, host: Host) -> None:
    slice_, group = GROUPS[image.loaded.spec.init]
    total = int(host.check_output("grep MemTotal /proc/meminfo").split()[1]) * 1024
    limit = number(host, f"{slice_}/memory.max")
    assert abs(limit - total * engines_share(image.loaded) // 100) < 1 << 20
    assert number(host, f"{slice_}/{group.partition('/')[0]}/memory.swap.max") == 0
    assert number(host, f"{slice_}/{group.partition('/')[0]}/memory.oom.group") == 1


def test_a_full_slice_ends_the_engine_and_nothing_else(
    image: Image, appliance: Appliance, host: Host
) -> None:
    slice_, group = GROUPS[image.loaded.spec.init]
    processes = f"{slice_}/{group}/cgroup.procs"
    engine = set(host.check_output(f"cat {processes}").split())
    others = host.check_output("pgrep --exact 'haproxy|hal-selector'").split()
    assert engine
    assert len(others) >= 2
    host.run(f'echo $$ > {processes}; exec python3 -c "{HOG}"')
    events = dict(line.split() for line in host.check_output(f"cat {slice_}/memory.events").splitlines())
    assert int(events["oom"]) >= 1
    assert appliance.get("/api/v1/inference/status").status_code == 200, "the gateway goes on"
    appliance.vm.wait(
        lambda: bool(after := set(host.run(f"cat {processes}").stdout.split())) and not after & engine,
        appliance.deadline(20),
        "the engine to be started again",
    )
    appliance.wait_ready(60)
    assert host.check_output("pgrep --exact 'haproxy|hal-selector'").split() == others
    if image.loaded.spec.init == "systemd":
        assert "oom-kill" in host.check_output("journalctl --no-pager --unit=llamacpp")
