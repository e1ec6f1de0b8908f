"""Models that arrive by network, with init scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hal.lock.file import load_lock
from tests import tiny_model
from tests.appliance.conftest import Boot, Build
from tests.appliance.provisioning import Mirror, Model, pins, provision_status
from tests.misbehaving.server import misbehaving_server

SCRIPT = "/etc/init.d/S80hal-provision"


def test_a_model_arrives_and_is_served(build_image: Build, boot_image: Boot, tmp_path: Path) -> None:
    tiny = Model("tiny", {"tiny.gguf": tiny_model.write(tmp_path / "tiny.gguf").read_bytes()})
    with misbehaving_server() as server:
        mirror = Mirror(server)
        mirror.add(tiny)
        spec = tmp_path / "arriving-sysv.yaml"
        spec.write_text(mirror.spec("arriving-sysv", tiny, init="sysv"))
        image = build_image(spec)
        with boot_image(
            image, change=lambda plan: replace(plan, machine=replace(plan.machine, clock="1970-01-01"))
        ) as appliance:
            print(f"served after {appliance.wait_ready(60):.1f} s")
            host = appliance.ssh()
            found = provision_status(host)["tiny"]
            assert (found["state"], found["sealed"], found["attempts"]) == ("ready", True, 1)
            created = int(load_lock().debian.created.timestamp())
            assert created <= int(host.check_output("date +%s")) < created + 1800
            assert host.file("/etc/resolv.conf").content_string == "nameserver 10.0.2.3\n"
            assert (
                host.check_output("sha256sum < /srv/models/tiny/tiny.gguf").split()[0] in pins(tiny).values()
            )
            assert host.check_output("stat -Lc '%U %a' /srv/models/tiny/tiny.gguf") == "hal-provision 644"
            assert host.check_output("stat -c '%U %a' /var/lib/hal/provisioner") == "hal-provision 700"
            done = host.run(f"{SCRIPT} status")
            assert done.rc == 0 and "hal-provision runs" in done.stdout

            process = host.check_output("head -n 1 /sys/fs/cgroup/hal-provision/service/cgroup.procs")
            status = host.check_output(f"cat /proc/{process}/status")
            assert "CapEff:\t0000000000000000" in status and "Seccomp:\t2" in status

            connect = "import socket; socket.create_connection((%r, %d), 5)"
            address = ("10.0.2.2", int(mirror.url.rpartition(":")[2]))
            for user, allowed in (("hal-provision", True), ("hal-selector", False), ("llamacpp", False)):
                command = f"setpriv --reuid {user} --regid {user} --clear-groups python3 -c %s"
                if user == "hal-selector":
                    command = command.replace("--regid hal-selector", "--regid hal-gateway")
                assert (host.run(command, connect % address).rc == 0) is allowed, user
            assert host.run(f"{SCRIPT} restart").rc == 0
        assert mirror.sent(tiny) == tiny.size
