"""Models that arrive by network, in a guest with systemd: what happens meanwhile, and with a disk that fills.

One machine for all tests, in their order. Its clock begins in 1970.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from testinfra.host import Host

from hal.lock.file import load_lock
from hal.machine.boot import Plan
from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build, Image
from tests.appliance.provisioning import (
    HOST,
    MIB,
    Mirror,
    Model,
    StatePartition,
    padded,
    pins,
    provision_status,
    wait_status,
)
from tests.misbehaving.certificates import Authority
from tests.misbehaving.server import misbehaving_server

SLOW = 8_000_000
"""Bytes per second at which there is time to see something."""

ALMOST_FULL = 28 * MIB
"""Free bytes at which a model gives way: less than half of what is reserved for all others."""

STORE = "/var/lib/hal/models"


@dataclass(frozen=True)
class World:
    """An image with four models: `secure` comes over TLS, `given` by hand, the others from a mirror."""

    image: Image
    mirror: Mirror
    tiny: Model
    big: Model
    secure: Model
    given: Model


@pytest.fixture(scope="module")
def world(build_image: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("arriving")
    weights = tiny_model.write(directory / "tiny.gguf").read_bytes()
    authority = Authority(directory)
    with ExitStack() as stack:
        mirror = Mirror(stack.enter_context(misbehaving_server()))
        # Valid for an hour: to a clock that says the lock's time it is not valid yet.
        context = authority.server(timedelta(hours=-1), timedelta(days=1), HOST)
        safe = stack.enter_context(misbehaving_server(tls=context))
        url = f"https://{HOST}:{safe.url.rpartition(':')[2]}"
        tiny = Model("tiny", {"tiny.gguf": weights})
        big = Model("big", {"big.gguf": padded(weights, 96 * MIB, "big")})
        secure = Model("secure", {"secure.gguf": padded(weights, MIB, "secure")}, url)
        given = Model("given", {"given.gguf": padded(weights, MIB, "given")}, delivery="import")
        mirror.add(tiny, big, given)
        safe.files["/secure/secure.gguf"] = secure.files["secure.gguf"]
        mirror.pace(SLOW)
        spec = directory / "arriving.yaml"
        more = f"  ca: {authority.file.name}\n  concurrency: 1\n"
        text = mirror.spec("arriving", tiny, big, secure, given, state="280M", only=False, provision=more)
        spec.write_text(text)
        yield World(build_image(spec), mirror, tiny, big, secure, given)


def in_1970(plan: Plan) -> Plan:
    return replace(plan, machine=replace(plan.machine, clock="1970-01-01"))


@pytest.fixture(scope="module")
def appliance(world: World, boot_image: Boot) -> Iterator[Appliance]:
    with boot_image(world.image, change=in_1970) as found:
        print(f"gateway {found.wait_gateway():.1f} s")
        yield found


@pytest.fixture(scope="module")
def host(appliance: Appliance) -> Host:
    return appliance.ssh()


def test_the_disk_fills_at_60_per_cent(world: World, appliance: Appliance, host: Host) -> None:
    mark = world.big.size * 6 // 10
    wait_status(appliance, host, lambda found: found["big"]["bytes"] >= mark, "60 % of a model")
    free = int(host.check_output("df --block-size=1 --output=avail /var/lib/hal | tail -1"))
    assert provision_status(host)["secure"]["state"] == "waiting", "its turn comes after that"
    host.check_output(f"fallocate -l {free - ALMOST_FULL} /var/lib/hal/filler")
    found = wait_status(appliance, host, lambda found: found["big"]["state"] == "no-space", "no space")
    assert "space" in found["big"]["reason"]
    wait_status(appliance, host, lambda found: found["big"]["bytes"] == 0, "the space given back")
    wait_status(
        appliance,
        host,
        lambda found: {found[name]["state"] for name in ("tiny", "secure")} == {"ready"},
        "the other models",
    )
    parts = host.check_output("find /var/lib/hal/provisioner/parts /var/lib/hal/models/.staging -type f")
    assert parts == "", "the space is given back"
    assert not host.file(f"{STORE}/big").exists and not host.file("/run/hal/models/big").exists
    print("no space:", found["big"]["reason"])


def test_the_appliance_serves_what_it_has(appliance: Appliance) -> None:
    appliance.wait_ready(30)
    models = {model["name"]: model["state"] for model in appliance.status()["models"]}
    assert models == {"tiny": "ready", "big": "no-space", "secure": "ready", "given": "missing"}
    answer = appliance.openai().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.content == tiny_model.ANSWER


def test_it_goes_on_by_itself_when_there_is_space_again(
    world: World, appliance: Appliance, host: Host
) -> None:
    host.check_output("rm /var/lib/hal/filler")
    world.mirror.pace(None)
    found = wait_status(appliance, host, lambda found: found["big"]["state"] == "ready", "the model")
    assert found["big"]["attempts"] >= 2 and found["big"]["bytes"] == world.big.size


def test_a_model_is_given_by_hand(world: World, appliance: Appliance, host: Host) -> None:
    assert "hal-provision import" in provision_status(host)["given"]["reason"]
    url = f"{world.mirror.url}/files/{pins(world.given)['given.gguf']}"
    fetch = f"import urllib.request as u; open('/tmp/given', 'wb').write(u.urlopen({url!r}).read())"
    host.check_output("python3 -c %s", fetch)
    print(host.check_output("hal-provision import /tmp/given"))
    wait_status(appliance, host, lambda found: found["given"]["state"] == "ready", "the model")
    assert (
        host.check_output("sha256sum < /srv/models/given/given.gguf").split()[0] in pins(world.given).values()
    )


def test_a_clock_in_1970_is_advanced_to_the_locks_time(world: World, host: Host) -> None:
    created = int(load_lock().debian.created.timestamp())
    assert created <= int(host.check_output("date +%s")) < created + 1800
    journal = host.check_output("journalctl --no-pager --unit=hal-provision")
    assert "its certificate is not valid yet" in journal, (
        "TLS goes on with a certificate from the future, and says so"
    )


def test_name_servers_come_by_dhcp(host: Host) -> None:
    assert host.file("/etc/resolv.conf").linked_to == "/run/hal/resolver/resolv.conf"
    assert host.file("/etc/resolv.conf").content_string == "nameserver 10.0.2.3\n"


def test_whole_models_are_sealed_and_nobody_can_change_them(world: World, host: Host) -> None:
    assert {model["sealed"] for model in provision_status(host).values()} == {True}
    path = f"/srv/models/big/{next(iter(world.big.files))}"
    assert host.run(f"sh -c 'echo >> {path}'").rc != 0
    assert host.check_output(f"sha256sum < {path}").split()[0] == pins(world.big)["big.gguf"]
    assert host.check_output(f"stat -Lc '%U %a' {path}") == "hal-provision 644"


def test_a_restart_fetches_nothing_again_and_disturbs_nobody(
    world: World, appliance: Appliance, host: Host
) -> None:
    sent, engine = world.mirror.sent(world.big), host.check_output("systemctl show -P MainPID llamacpp")
    host.check_output("systemctl restart hal-provision")
    everything = lambda found: {model["state"] for model in found.values()} == {"ready"}  # noqa: E731
    wait_status(appliance, host, everything, "all models")
    assert world.mirror.sent(world.big) == sent
    assert host.check_output("systemctl show -P MainPID llamacpp") == engine
    assert appliance.get("/health").status_code == 200
    shown = json.loads(host.check_output("hal-provision status --json"))
    assert {model["name"] for model in shown["models"]} == {"tiny", "big", "secure", "given"}


def test_it_takes_little_memory_and_gives_up_its_rights(host: Host) -> None:
    process = host.check_output("systemctl show -P MainPID hal-provision")
    status = host.check_output(f"cat /proc/{process}/status")
    peak = int(status.partition("VmHWM:")[2].split()[0])
    print(f"hal-provision: {peak} kB at most")
    assert peak < 80_000
    assert "CapEff:\t0000000000000000" in status and "Seccomp:\t2" in status
    assert host.check_output(f"stat -c %U /proc/{process}") == "hal-provision"


def test_the_disk_holds_what_the_spec_pins(
    world: World, boot_image: Boot, appliance: Appliance, host: Host, tmp_path: Path
) -> None:
    host.run("systemctl poweroff")
    appliance.vm.wait_end(appliance.deadline(20))
    state = StatePartition(appliance.plan.files.disk, world.image.tools)
    for model in (world.tiny, world.big, world.secure, world.given):
        assert state.visible(model.name, tmp_path) == pins(model)
    sent, began = world.mirror.sent(world.big), time.monotonic()
    with boot_image(world.image, directory=appliance.plan.run_directory) as again:
        again.wait_ready(30)
        print(f"served again {time.monotonic() - began:.1f} s after the second start")
    assert world.mirror.sent(world.big) == sent, "a finished model is never fetched again"
