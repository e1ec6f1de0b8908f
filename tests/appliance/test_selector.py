"""The selector from inside, under both inits: its command line, and orders to engines by hal-control."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.appliance.conftest import Appliance, Boot, Build, as_user

ENVIRONMENT = "/var/lib/hal/selector.env"
REQUESTS = "/run/hal/control/requests"
AS_SELECTOR = as_user("hal-selector", "hal-gateway", "hal-control")
AS_GATEWAY = as_user("hal-gateway", "hal-gateway")


@pytest.fixture(scope="module", params=["systemd", "sysv"])
def machine(
    request: pytest.FixtureRequest, build_image: Build, boot_image: Boot, write_spec: Callable[..., Path]
) -> Iterator[Appliance]:
    """A serving machine of each init: what is done here leaves traces in its log."""
    name = "tiny" if request.param == "systemd" else "tiny-sysv"
    with boot_image(build_image(write_spec(name, more=f"init: {request.param}\n"))) as found:
        found.wait_ready(60)
        yield found


@pytest.fixture(scope="module")
def inside(machine: Appliance) -> Host:
    return machine.ssh()


def is_sysv(host: Host) -> bool:
    return bool(host.run("test -e /etc/init.d/rcS").rc == 0)


def said(host: Host, command: str = "status") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output(f"hal-selector {command} --json"))
    return found


def test_status(inside: Host) -> None:
    lines = inside.check_output("hal-selector status").splitlines()
    assert lines[0].split()[:4] == ["ENGINE", "ACTIVE", "HEALTHY", "STATE"]
    assert lines[1].split()[:4] == ["llamacpp", "yes", "yes", "ready"]
    found = said(inside)
    assert found["serving"] and found["active"] == "llamacpp" and not found["refused"] and not found["unkept"]


def test_explain_knows_the_hardware(inside: Host) -> None:
    found = said(inside, "explain")
    assert found["hardware"].endswith("GiB of memory, no GPU"), found["hardware"]
    assert found["decisions"] and found["why"]["llamacpp"]


def test_help_routes_and_wrong_usage(inside: Host) -> None:
    assert "hal-selector switch vllm --wait" in inside.check_output("hal-selector --help")
    assert inside.check_output("hal-selector routes").startswith("there are no routes")
    done = inside.run("hal-selector switch vllm")
    assert done.rc == 2 and done.stderr == "hal-selector: 'vllm' is not one of llamacpp\n"
    assert inside.run("hal-selector switch llamacpp --wait").rc == 0


def test_the_state_is_the_selectors_own(inside: Host) -> None:
    file = inside.file("/var/lib/hal/selector/state.json")
    assert (file.user, file.mode) == ("hal-selector", 0o600)
    assert "active" in json.loads(file.content_string)


def test_who_may_give_orders(inside: Host) -> None:
    pipe = inside.file(REQUESTS)
    assert (pipe.user, pipe.group, pipe.mode) == ("root", "hal-control", 0o620)
    assert inside.run(f"{AS_GATEWAY} sh -c 'echo stop llamacpp >{REQUESTS}'").rc != 0
    done = inside.run(f"{AS_GATEWAY} hal-selector drain")
    assert done.rc == 1 and "only root may do this" in done.stderr


def test_hal_control_is_confined(inside: Host) -> None:
    if is_sysv(inside):
        pytest.skip("under SysV it calls init scripts, which must be root with all capabilities")
    process = inside.check_output("systemctl show --property=MainPID --value hal-control")
    lines = inside.check_output(f"cat /proc/{process}/status").splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"


def test_the_selector_stops_and_starts_the_engine(inside: Host, machine: Appliance) -> None:
    """An order to stop, given as the selector gives it; then the selector gives the one to start."""
    cgroup = "/sys/fs/cgroup/engines" + (
        "/llamacpp/service" if is_sysv(inside) else ".slice/llamacpp.service"
    )
    before = inside.check_output(f"head -n 1 {cgroup}/cgroup.procs")
    inside.check_output(
        f"rm -f /run/hal/control/done/llamacpp; {AS_SELECTOR} sh -c 'echo stop llamacpp >{REQUESTS}'"
    )
    # The order is done when nothing of the engine is left.
    inside.check_output(
        "for i in $(seq 300); do [ -e /run/hal/control/done/llamacpp ] && exit 0; sleep 0.1; done; exit 1"
    )

    def again() -> bool:
        found = said(inside)
        pids = inside.run(f"head -n 1 {cgroup}/cgroup.procs").stdout.strip()
        return bool(found["serving"]) and pids not in ("", before)

    machine.vm.wait(again, machine.deadline(30), "the selector has started the engine again")


def test_a_killed_engine_is_noticed_at_once_and_comes_back(inside: Host, machine: Appliance) -> None:
    """The kernel says when the last process of its control group is gone: before any probe finds out."""
    cgroup = "/sys/fs/cgroup/engines" + (
        "/llamacpp/service" if is_sysv(inside) else ".slice/llamacpp.service"
    )
    inside.check_output(f"kill -9 $(cat {cgroup}/cgroup.procs)")
    log = "logread" if is_sysv(inside) else "journalctl --boot --quiet --unit hal-selector"
    words = "engine llamacpp is not healthy: none of its processes is left"
    assert words in inside.check_output(f"sleep 1; {log}")
    machine.vm.wait(lambda: bool(said(inside)["serving"]), machine.deadline(30), "the engine again")


def test_an_engine_stopped_by_hand_stays_stopped(inside: Host, machine: Appliance) -> None:
    service = "/etc/init.d/S96llamacpp {}" if is_sysv(inside) else "systemctl {} llamacpp"
    inside.check_output(service.format("stop"))
    machine.vm.wait(lambda: not said(inside)["serving"], machine.deadline(10), "nothing serves")
    restart = "/etc/init.d/S70hal-selector restart" if is_sysv(inside) else "systemctl restart hal-selector"
    inside.check_output(restart)
    time.sleep(12)  # a selector that has just started orders nothing in the first seconds
    assert not said(inside)["serving"]
    assert "stopped by hand" in said(inside, "explain")["why"]["llamacpp"]
    assert said(inside)["hopeless"] == "llamacpp was stopped by hand"
    answer = machine.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_engine_expected")
    assert answer.elapsed.total_seconds() < 2, "nobody waits for what does not come"
    inside.check_output(service.format("start"))
    machine.vm.wait(lambda: bool(said(inside)["serving"]), machine.deadline(30), "the engine serves again")


def test_a_reload_takes_a_file_in_or_says_what_is_wrong(inside: Host) -> None:
    reload = "/etc/init.d/S70hal-selector reload" if is_sysv(inside) else "systemctl reload hal-selector"
    inside.check_output(f"touch {ENVIRONMENT}; chmod 600 {ENVIRONMENT}")
    assert "may not read it: `chmod 644" in inside.run("hal-selector reload").stderr
    inside.check_output(f"chmod 644 {ENVIRONMENT}; echo LLM_BACKEND=llamacpp >{ENVIRONMENT}; {reload}")
    assert said(inside)["policy_from"] == f"LLM_BACKEND in {ENVIRONMENT}"
    inside.check_output(f"echo LLM_BACKEND=ollama >{ENVIRONMENT}")
    assert inside.run(reload).rc != 0
    done = inside.run("hal-selector reload")
    words = "LLM_BACKEND: 'ollama' (not in this image) is not one of auto, llamacpp"
    assert (done.rc, done.stderr) == (1, f"hal-selector: {ENVIRONMENT}:1: {words}\n")
    assert said(inside)["policy"] == "llamacpp"
    inside.check_output(f"rm {ENVIRONMENT}; {reload}")
    assert said(inside)["policy"] == "auto"


def test_the_selector_is_small(inside: Host) -> None:
    script = (
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q 'hal-selector [r]un' && "
        "grep VmRSS $p/status; done 2>/dev/null || true"
    )
    sizes = [int(line.split()[1]) for line in inside.check_output(script).splitlines()]
    assert sizes and max(sizes) < 40_000, f"{sizes} KiB"
