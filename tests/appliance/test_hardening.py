"""A production image from inside: what it leaves open, to those who are in it and to the host around it.

Both init systems, each looked at once by a program that is added to the image (probe.py). One more machine
gets all that a host can hand over without changing a measurement: it looks as if nobody had.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hal.attest.connection import fetch_document, parse_place
from hal.cli.main import main
from hal.machine import qemu
from hal.machine.boot import Plan, Wishes
from hal.machine.command import qemu_command
from hal.render.sysctl import PATH, settings
from tests.appliance import variables
from tests.appliance.conftest import TOKEN, Boot, Build, Image
from tests.appliance.probing import add_probe, altered, told
from tests.appliance.test_boots import EVERYTHING
from tests.services.gateways import digest

CAP_SYS_MODULE = 16

TEMPORARY = {"dt /tmp", "dt /var/tmp", "dt /dev/shm"}
DEVICES = {
    f"c /dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx")
}
"""Devices that hold nothing, and give each process its own."""

SOCKETS = {
    "s /run/systemd/notify": "a service says that it is ready",
    "s /run/systemd/journal/dev-log": "log",
    "s /run/systemd/journal/socket": "log",
    "s /run/systemd/journal/stdout": "log",
    "s /run/systemd/io.systemd.ManagedOOM": "systemd asks for the sender's user",
    "s /run/systemd/userdb/io.systemd.DynamicUser": "which users there are",
    "s /run/systemd/netif/io.systemd.Network": "networkd asks for the sender's user",
    "s /run/hal/log": "BusyBox's log",
    "s /dev/log": "BusyBox's log",
}
"""Sockets that every process may speak to, and what they are for."""

SEES_ALL = {"systemd", "systemd-journal", "init"}
"""PID 1, and the journal, which notes whose line it is (it has CAP_SYS_PTRACE for it)."""


NOT_IN_OUR_KERNEL = (
    "kernel.core_pattern",
    "kernel.io_uring_disabled",
    "kernel.kexec_load_disabled",
    "kernel.modules_disabled",
    "kernel.sysrq",
    "kernel.unprivileged_userns_clone",
    "vm.unprivileged_userfaultfd",
)
"""Settings of what Buildroot's kernel is built without (the switch for user namespaces is Debian's own)."""


@dataclass(frozen=True)
class Found:
    """What the program found, and in which image."""

    init: str
    image: Image
    report: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.report[name]


SERIAL = "buildroot: {kernel: [CONFIG_SERIAL_8250=y, CONFIG_SERIAL_8250_CONSOLE=y]}\n"
"""A production kernel of Buildroot's has no driver for the line on which the probe tells what it finds."""


@pytest.fixture(scope="module")
def images(
    request: pytest.FixtureRequest, build_image: Build, write_spec: Callable[..., Path]
) -> Callable[[str], Image]:
    def made(init: str) -> Image:
        more = EVERYTHING.format(init=init, token=digest(TOKEN))
        if request.config.getoption("--base") == "buildroot":
            more += SERIAL
        with altered(add_probe):
            return build_image(write_spec(f"tiny-probed-{init}", "production", more))

    return made


@pytest.fixture(scope="module", params=["systemd", "sysv"])
def found(request: pytest.FixtureRequest, images: Callable[[str], Image], boot_image: Boot) -> Found:
    image = images(request.param)
    with boot_image(image) as machine:
        return Found(request.param, image, told(machine))


# --- to the network ------------------------------------------------------------------------------


def test_only_the_gateway_listens(found: Found) -> None:
    sockets = found["sockets"]
    outside = {place for place in sockets["tcp"] + sockets["tcp6"] if not place.startswith("0100007F:")}
    assert outside == {f"{'0' * 32}:{7001:04X}"}


def test_nothing_waits_for_datagrams_but_the_client_of_dhcp(found: Found) -> None:
    sockets = found["sockets"]
    assert {place.partition(":")[2] for place in sockets["udp"]} <= {f"{68:04X}"}
    assert [place for name in ("udp6", "udplite", "udplite6", "raw") for place in sockets[name]] == []
    assert {place.partition(":")[2] for place in sockets["raw6"]} <= {f"{58:04X}"}  # router advertisements
    assert sockets["abstract"] == []


# --- to those who are in it ----------------------------------------------------------------------


def test_no_terminal_and_no_shell(found: Found) -> None:
    assert found["terminals"] == []
    names = {service["name"] for service in found["services"]}
    assert not {name for name in names if "getty" in name or name in ("login", "sulogin", "sshd", "bash")}
    passwords = {line.split(":")[1] for line in found["users"].splitlines() if line.count(":") == 8}
    assert passwords and passwords <= {"*", "!", "!*"}


def test_nothing_changes_its_user(found: Found) -> None:
    assert found["files"]["setuid"] == []
    assert found["files"]["capable"] == []


def test_nothing_is_writable_to_all_outside_of_tmp(found: Found) -> None:
    writable = set(found["files"]["writable"])
    assert writable >= TEMPORARY
    assert writable - TEMPORARY - DEVICES - SOCKETS.keys() == set()


def test_the_kernel_is_locked_down(found: Found) -> None:
    assert found["lockdown"] == "none integrity [confidentiality]"
    refused = {name: how for name, how in found["attempts"].items() if how == "done"}
    assert refused == {}


def test_no_module_comes_in_after_boot(found: Found) -> None:
    if found.image.loaded.spec.base == "buildroot":  # its kernel knows no modules
        closed, error = None, "ENOSYS"
    else:
        closed, error = "1", "EPERM"
    assert found["settings"]["kernel.modules_disabled"] == closed
    assert found["attempts"]["load a module"] == found["attempts"]["load a module from memory"] == error
    for service in found["services"]:
        assert not service["bounding"] >> CAP_SYS_MODULE & 1, service


def test_the_kernels_settings_are_those_of_the_file(found: Found) -> None:
    wanted = {setting.key: setting.value for setting in settings("production")}
    if found.image.loaded.spec.base == "buildroot":
        wanted |= dict.fromkeys(NOT_IN_OUR_KERNEL)
    assert found["settings"] == wanted, PATH


def test_nobody_leaves_a_core_dump(found: Found) -> None:
    assert found["crash"]["signal"] == 11
    assert found["crash"]["left"] == []
    limits = {service["name"]: service["core"] for service in found["services"] if service["pid"] != 1}
    assert {name for name, (soft, hard) in limits.items() if (soft, hard) != ("0", "0")} == set()


def test_services_do_not_see_each_other(found: Found) -> None:
    """With init scripts root's helpers are root; the services are users there as well."""
    seen = {
        (service["name"], service["uid"]): service["sees"]
        for service in found["services"]
        if service["name"] not in SEES_ALL and (service["uid"] or found.init == "systemd")
    }
    assert {uid for _, uid in seen} >= {901, 902, 904, 911}
    assert {name: uids for name, uids in seen.items() if uids != [name[1]]} == {}


# --- to the host ---------------------------------------------------------------------------------

UNIT = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo given >/run/given'\n"
GIVEN = {
    "passwd.hashed-password.root": "$6$given$given",
    "passwd.plaintext-password.root": "given",
    "ssh.authorized_keys.root": "ssh-ed25519 AAAAgiven",
    "systemd.extra-unit.given.service": UNIT,
    "systemd.unit-dropin.hal-gateway.service": "[Service]\nEnvironment=GIVEN=1\n",
    "systemd.unit-dropin.hal-attestor.service": "[Service]\nExecStartPre=/bin/false\n",
    "sysctl.extra": "kernel.sysrq = 1\n",
    "tmpfiles.extra": "f /run/given 0644 root root - given\n",
    "sysusers.extra": "u given 4711\n",
    "fstab.extra": "tmpfs /srv tmpfs defaults 0 0\n",
    "system.hostname": "given",
    "firstboot.root-password": "given",
    "journal.forward_to_socket": "vsock:2:1",
    "network.network.00-given": "[Match]\nName=*\n[Network]\nDNS=192.0.2.1\n",
    "network.dns": "192.0.2.1",
    "getty.auto": "yes",
    "api-key": "given",
}
"""System credentials that systemd obeys (systemd.system-credentials(7)), and one of our gateway's."""

OPTIONS = "systemd.unit=rescue.target systemd.setenv=GIVEN=1 systemd.import_credentials=yes init=/bin/sh"

SAME = (
    "lockdown",
    "settings",
    "terminals",
    "files",
    "attempts",
    "sockets",
    "hostname",
    "users",
    "root's home",
    "credentials",
    "given units",
    "generated",
    "units",
    "environment",
    "command line",
)
"""What is the same in a machine that was given nothing and in one that was given everything."""


FW_CFG_NAME = 55
"""Characters that QEMU takes as a file's name in fw_cfg."""


def handed_over() -> list[str]:
    """QEMU's arguments for all of it: SMBIOS strings, fw_cfg files, a product's name."""
    argv = []
    for name, value in GIVEN.items():
        encoded = base64.b64encode(value.encode()).decode()
        argv += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={encoded}"]
        file = f"opt/io.systemd.credentials/{name}"
        if len(file) <= FW_CFG_NAME:
            argv += ["-fw_cfg", f"name={file},string={value.replace(',', ',,')}"]
    argv += ["-smbios", f"type=11,value=io.systemd.boot.kernel-cmdline-extra={OPTIONS}"]
    argv += ["-smbios", "type=1,manufacturer=given,product=given,serial=given"]
    return [*argv, "-fw_cfg", f"name=opt/hal/cmdline,string={OPTIONS}"]


def booted_with(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    def command(*values: Any, **options: Any) -> list[str]:
        return [*qemu_command(*values, **options), *arguments]

    monkeypatch.setattr(qemu, "qemu_command", command)


def test_what_a_host_hands_over_changes_nothing(
    found: Found, boot_image: Boot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under systemd by UEFI, with options in its variables, and verified; with init scripts directly."""
    uefi = found.init == "systemd"
    wishes = Wishes(port=0, firmware="ovmf", tpm=True) if uefi else Wishes(port=0)

    def change(plan: Plan) -> Plan:
        booted_with(monkeypatch, handed_over())
        if plan.files.firmware and plan.files.firmware.variables:
            variables.set_text(plan.files.firmware.variables, "SystemdOptions", OPTIONS)
        return plan

    with ExitStack() as stack:
        machine = stack.enter_context(boot_image(found.image, wishes=wishes, change=change))
        report = told(machine)
        if uefi:
            key = tmp_path / "key"
            document = json.loads(fetch_document(parse_place(machine.url), bytes(32), 60)[0])
            key.write_bytes(base64.b64decode(document["evidence"]["key"]))
            measurements = found.image.built.directory / "measurements.json"
            arguments = ["verify", machine.url, "--measurements", str(measurements), "--tpm-key", str(key)]
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0, done.output
        log = machine.vm.serial()
    assert "given" not in json.dumps({name: report[name] for name in SAME if name != "given units"})
    assert {name: report[name] for name in SAME} == {name: found[name] for name in SAME}
    assert report["EFI variables"] == []
    assert "GIVEN" not in log
