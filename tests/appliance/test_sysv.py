"""`init: sysv` from inside: BusyBox init, init scripts with the LSB's exit codes, supervision.

Testinfra's own idea of a SysV service needs /etc/rc?.d, which BusyBox init lacks: the scripts are called.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from hal.machine.boot import Plan
from hal.render.sysv import ALL_WRITING, services
from tests.appliance.conftest import Appliance, Boot, Build, Image
from tests.appliance.test_tampering import BLOCK, flip, partition
from tests.tiny_model import ANSWER

ENGINE = "S96llamacpp"
CONTROL = "S65hal-control"
SCRIPTS = {
    "S01syslogd": "root",
    "S02klogd": "root",
    "S40network": "root",
    "S60hal-gateway": "hal-gateway",
    CONTROL: "root",
    "S70hal-selector": "hal-selector",
    ENGINE: "llamacpp",
    "S97hal-attestor": "hal-attestor",
    "S99hal-ssh": "root",
}
RUNNING, DEAD, STOPPED = 0, 1, 3
"""Exit codes of `status`: Linux Standard Base 5.0, Core, 22.2 (Init Script Actions)."""


@pytest.fixture(scope="module")
def sysv_image(build_image: Build, write_spec: Callable[..., Path]) -> Image:
    return build_image(write_spec("tiny-sysv", more="init: sysv\n"))


@pytest.fixture(scope="module")
def appliance(sysv_image: Image, boot_image: Boot) -> Iterator[Appliance]:
    with boot_image(sysv_image) as found:
        found.wait_ready(60)
        yield found


@pytest.fixture(scope="module")
def host(appliance: Appliance) -> Host:
    return appliance.ssh()


def act(host: Host, script: str, action: str) -> int:
    """The exit code of an init script's action."""
    code: int = host.run(f"/etc/init.d/{script} {action}").rc
    return code


def name_of(script: str) -> str:
    return script[3:]


def group_of(script: str) -> str:
    return f"engines/{name_of(script)}" if script == ENGINE else name_of(script)


def main_process(host: Host, script: str) -> int:
    """The first process of a service (its supervisor is in the control group above)."""
    found = host.check_output(f"head -n 1 /sys/fs/cgroup/{group_of(script)}/service/cgroup.procs")
    return int(found) if found else 0


def supervisor(host: Host, script: str) -> int:
    return int(host.check_output(f"cat /run/{name_of(script)}.pid"))


def comes_back(appliance: Appliance) -> None:
    appliance.wait_ready(30)


def ask(appliance: Appliance, words: str = "Hi") -> str | None:
    answer = appliance.openai().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": words}], max_tokens=16, temperature=0
    )
    return answer.choices[0].message.content


def test_init_is_busybox_and_systemd_is_not_there(host: Host, sysv_image: Image) -> None:
    assert host.check_output("readlink -f /proc/1/exe").endswith("/bin/busybox")
    assert host.run("test -e /usr/lib/systemd/systemd").rc != 0
    if sysv_image.loaded.spec.base == "buildroot":  # no package manager has made it
        return
    assert not host.package("systemd").is_installed
    assert host.package("busybox").is_installed


def test_an_answer_comes_through_the_gateway_and_leaves_no_trace_in_the_log(
    appliance: Appliance, host: Host
) -> None:
    assert ask(appliance, "Zanzibar") == ANSWER
    log = host.check_output("logread")
    assert "serving through llamacpp" in log
    assert "Zanzibar" not in log and ANSWER not in log


def test_the_scripts_are_all_there_and_only_ours(host: Host) -> None:
    assert set(host.check_output("ls /etc/init.d").split()) == {*SCRIPTS, "rcS", "rcK"}
    for line in host.check_output("head -qn 1 /etc/init.d/*").splitlines():
        assert line == "#!/bin/sh"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_service_runs(host: Host, script: str) -> None:
    assert act(host, script, "status") == RUNNING


@pytest.mark.parametrize(("script", "user"), SCRIPTS.items())
def test_services_run_as_their_users_without_privileges(host: Host, script: str, user: str) -> None:
    text = host.check_output(f"cat /proc/{main_process(host, script)}/status")
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    assert status["Uid"].split() == [str(host.user(user).uid)] * 4
    if script in (CONTROL, "S99hal-ssh"):  # they call what must be root with all capabilities
        return
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == ("0" if user == "root" else "2")
    net_admin, net_raw, syslog = 1 << 12, 1 << 13, 1 << 34
    allowed = {"S40network": net_admin | net_raw, "S02klogd": syslog}.get(script, 0)
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == int(status["CapPrm"], 16) == allowed


def test_start_twice_is_start_once(host: Host) -> None:
    before = supervisor(host, ENGINE), main_process(host, ENGINE)
    assert act(host, ENGINE, "start") == 0
    assert (supervisor(host, ENGINE), main_process(host, ENGINE)) == before


def test_stop_twice_and_start_again(appliance: Appliance, host: Host) -> None:
    assert act(host, ENGINE, "stop") == 0
    assert act(host, ENGINE, "status") == STOPPED
    assert host.run("pgrep -u llamacpp").rc == 1, "a process of the engine is left"
    assert act(host, ENGINE, "stop") == 0
    assert act(host, ENGINE, "status") == STOPPED
    appliance.vm.wait(
        lambda: appliance.get("/health").status_code == 503, appliance.deadline(10), "the gateway's no"
    )
    assert act(host, ENGINE, "start") == 0
    assert act(host, ENGINE, "status") == RUNNING
    comes_back(appliance)
    assert ask(appliance) == ANSWER


@pytest.mark.parametrize("action", ["restart", "reload"])
def test_restart_starts_anew(appliance: Appliance, host: Host, action: str) -> None:
    before = main_process(host, ENGINE)
    assert act(host, ENGINE, action) == 0
    assert main_process(host, ENGINE) != before
    assert act(host, ENGINE, "status") == RUNNING
    comes_back(appliance)


def test_a_stale_pid_file_hides_nothing_and_hinders_nothing(appliance: Appliance, host: Host) -> None:
    assert act(host, ENGINE, "stop") == 0
    for number in (1, supervisor(host, "S60hal-gateway"), 4_000_000):  # other programs, and nobody
        host.check_output(f"echo {number} > /run/llamacpp.pid")
        assert act(host, ENGINE, "status") == DEAD
    assert act(host, ENGINE, "start") == 0
    assert act(host, ENGINE, "status") == RUNNING
    assert act(host, "S60hal-gateway", "status") == RUNNING
    comes_back(appliance)


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "S99hal-ssh"])
def test_a_killed_service_comes_back(appliance: Appliance, host: Host, script: str) -> None:
    before = main_process(host, script)
    host.check_output(f"kill -9 {before}")
    appliance.vm.wait(
        lambda: main_process(host, script) not in (0, before), appliance.deadline(10), f"{script} again"
    )
    comes_back(appliance)
    assert act(host, script, "status") == RUNNING
    assert ask(appliance) == ANSWER


def test_a_killed_supervisor_is_noticed_and_start_leaves_no_orphan(appliance: Appliance, host: Host) -> None:
    orphan = main_process(host, ENGINE)
    host.check_output(f"kill -9 {supervisor(host, ENGINE)}")
    assert act(host, ENGINE, "status") == DEAD
    assert act(host, ENGINE, "start") == 0
    assert act(host, ENGINE, "status") == RUNNING
    left = host.run(f"ps -o stat= -p {orphan}").stdout.strip()
    assert left in ("", "Z"), "it runs on beside the new one"
    comes_back(appliance)


def test_the_log_survives_a_restart_of_syslogd(host: Host) -> None:
    assert act(host, "S01syslogd", "restart") == 0
    host.check_output("kill -9 $(head -n 1 /sys/fs/cgroup/hal-selector/service/cgroup.procs)")
    for _ in range(100):
        if "connected to the gateway" in host.check_output("logread"):
            return
        time.sleep(0.2)
    pytest.fail(f"nothing of the selector in the log:\n{host.check_output('logread')}")


def test_an_unknown_action_is_refused(host: Host) -> None:
    done = host.run(f"/etc/init.d/{ENGINE} enable")
    assert done.rc == 2
    assert "start|stop|restart|reload|status" in done.stderr


def test_only_the_gateway_and_ssh_listen_outside(host: Host) -> None:
    sockets = host.check_output("ss --no-header --listening --tcp --udp --numeric").splitlines()
    outside = {line.split()[4] for line in sockets if not line.split()[4].startswith(("127.", "[::1]"))}
    assert {address.rpartition(":")[2] for address in outside} == {"7001", "22"}


def test_engines_have_no_network_but_loopback(host: Host) -> None:
    connect = "import socket; socket.create_connection(('10.0.2.2', 9), 3)"
    asked = host.run(f'setpriv --reuid llamacpp --clear-groups python3 -c "{connect}"')
    assert "PermissionError" in asked.stderr
    assert "PermissionError" not in host.run(f'python3 -c "{connect}"').stderr


def test_services_write_only_where_they_may(sysv_image: Image, host: Host) -> None:
    """The same privileges as in the gateway's init script, with another program."""
    gateway = next(found for found in services(sysv_image.loaded) if found.name == "hal-gateway")
    confined = " ".join(gateway.privileges)
    allowed = host.run(f"WRITE={ALL_WRITING}; {confined} touch /run/hal/gateway/x")
    assert allowed.rc == 0, allowed.stderr
    refused = host.run(f"WRITE={ALL_WRITING}; {confined} touch /tmp/x")
    assert "Permission denied" in refused.stderr
    assert host.run("setpriv --reuid hal-gateway --clear-groups touch /tmp/x").rc == 0, (
        "only Landlock forbids"
    )


def test_an_engine_moves_files_between_its_directories(sysv_image: Image, host: Host) -> None:
    """Landlock forbids that unless it is told otherwise, and caches are filled that way."""
    engine = next(found for found in services(sysv_image.loaded) if found.name == "llamacpp")
    move = 'mkdir -p a b && touch a/x && python3 -Ic \'import os; os.rename("a/x", "b/x")\' && ls b'
    confined = f"cd /var/cache/hal/llamacpp; WRITE={ALL_WRITING}; {' '.join(engine.privileges)}"
    assert host.check_output(f"{confined} sh -c {shlex.quote(move)}") == "x"


def test_services_make_no_namespaces(sysv_image: Image, host: Host) -> None:
    gateway = next(found for found in services(sysv_image.loaded) if found.name == "hal-gateway")
    confined = f"WRITE={ALL_WRITING}; {' '.join(gateway.privileges)}"
    namespace = "python3 -Ic 'import os; os.unshare(os.CLONE_NEWUSER)'"
    assert "Operation not permitted" in host.run(f"{confined} {namespace}").stderr
    assert host.run(f"{confined} true").rc == 0


def test_users_do_not_see_each_others_processes(host: Host) -> None:
    seen = host.check_output("setpriv --reuid llamacpp --regid llamacpp --clear-groups ps -e -o user:20=")
    assert set(seen.split()) == {"llamacpp"}


def test_the_root_is_read_only_and_state_is_a_partition(host: Host) -> None:
    assert host.mount_point("/").filesystem == "erofs"
    assert host.mount_point("/var/lib/hal").filesystem == "ext4"
    for place in ("/tmp", "/var/tmp", "/var/cache", "/var/log"):
        assert {"nosuid", "nodev"} <= set(host.mount_point(place).options)


def test_nothing_asks_for_a_login(appliance: Appliance, host: Host) -> None:
    assert not re.search(r"getty|askfirst|respawn", host.file("/etc/inittab").content_string)
    assert host.run("pgrep -x getty").rc == 1
    assert "login:" not in appliance.vm.serial()


def test_shutdown_is_in_order_and_state_outlives_it(
    sysv_image: Image, boot_image: Boot, tmp_path: Path
) -> None:
    with boot_image(sysv_image, directory=tmp_path) as machine:
        machine.wait_ready(60)
        host = machine.ssh()
        host.check_output("echo kept > /var/lib/hal/note")
        host.run("poweroff")
        machine.vm.wait_end(machine.deadline(20))
        log = machine.vm.serial()
    stopped = re.findall(r"Stopping (\S+): OK", log)
    others = sorted(SCRIPTS.keys() - {CONTROL}, reverse=True)
    assert stopped == [name_of(script) for script in (CONTROL, *others)]
    with boot_image(sysv_image, directory=tmp_path) as machine:
        host = machine.ssh()
        assert host.file("/var/lib/hal/note").content_string == "kept\n"
        assert "recovery" not in host.check_output("logread"), "the state partition was not unmounted"


def test_an_engine_that_cannot_start_says_why(sysv_image: Image, boot_image: Boot) -> None:
    (pack,) = (pack for pack in sysv_image.built.manifest["packs"] if pack["kind"] == "model")

    def change(plan: Plan) -> Plan:
        start = partition(plan.files.disk, pack["label"], sysv_image.tools)
        flip(plan.files.disk, start + pack["data_blocks"] // 2 * BLOCK + 7)
        return plan

    with boot_image(sysv_image, change=change) as machine:
        machine.wait_gateway()
        host = machine.ssh()
        machine.vm.wait(
            lambda: act(host, ENGINE, "status") == DEAD, machine.deadline(15), "the engine's failure"
        )
        said = host.run(f"/etc/init.d/{ENGINE} status").stdout
        assert "cannot read the model /srv/models/tiny/tiny.gguf" in said
        assert machine.status()["healthy"] is False
        assert act(host, ENGINE, "stop") == 0
        assert act(host, ENGINE, "status") == STOPPED
