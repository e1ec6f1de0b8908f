"""The shared machine from inside: what runs, as whom, on what, and what it may not do."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.appliance.conftest import Image

UNITS = ("hal-gateway", "hal-selector", "llamacpp")
USERS = {"hal-gateway": 901, "hal-selector": 902, "hal-attestor": 904, "llamacpp": 911}
ASKED = "hal-attestor"
"""What starts when somebody asks it, and stays."""

ROOTS = {"hal-control"}
"""What runs as root: it tells systemd to start and stop engines."""


def process_of(host: Host, unit: str) -> dict[str, str]:
    """The fields of /proc/PID/status of a unit's main process (proc_pid_status(5))."""
    text = host.check_output(f"cat /proc/$(systemctl show --property=MainPID --value {unit})/status")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_active(host: Host, unit: str) -> None:
    assert host.service(unit).is_running


def test_no_unit_has_failed(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""


def test_the_journal_has_no_errors(host: Host) -> None:
    assert host.check_output("journalctl --priority=err --boot --quiet --no-pager") == ""


def test_nothing_runs_that_an_appliance_does_not_need(host: Host) -> None:
    running = host.check_output("systemctl list-units --type=service --state=running --plain --no-legend")
    names = {line.split()[0].removesuffix(".service") for line in running.splitlines()}
    expected = {*UNITS, *ROOTS, "systemd-journald", "systemd-networkd"}
    assert {name for name in names if not name.startswith("hal-ssh@")} - {ASKED} == expected


@pytest.mark.parametrize(("name", "uid"), USERS.items())
def test_users_have_fixed_ids_and_no_shell(host: Host, name: str, uid: int) -> None:
    # Not by getent, which not every base has.
    lines = host.check_output("cat /etc/passwd").splitlines()
    found = {line.split(":")[0]: line.split(":") for line in lines}
    assert found[name][2] == str(uid)
    assert found[name][6] == "/usr/sbin/nologin"


def test_no_account_has_a_password(host: Host) -> None:
    hashes = {line.split(":")[1] for line in host.check_output("cat /etc/shadow").splitlines()}
    assert hashes <= {"*", "!", "!*"}


@pytest.mark.parametrize("unit", UNITS)
def test_services_are_confined(host: Host, unit: str) -> None:
    status = process_of(host, unit)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0
    assert status["Uid"].split()[0] == str(USERS[unit])


@pytest.mark.parametrize("unit", UNITS)
def test_services_cannot_write_outside_their_places(host: Host, unit: str) -> None:
    mounts = host.check_output(f"cat /proc/$(systemctl show --property=MainPID --value {unit})/mounts")
    options = {line.split()[1]: line.split()[3].split(",") for line in mounts.splitlines()}
    assert "ro" in options["/"]
    assert "ro" in options["/var/lib/hal"]


def test_the_root_is_read_only_and_verified(host: Host) -> None:
    root = host.mount_point("/")
    assert root.filesystem == "erofs"
    assert "ro" in root.options
    device = root.device.rpartition("/")[2]
    assert host.check_output(f"cat /sys/block/{device}/ro") == "1"
    # The device-mapper gives verity targets this type of UUID only where veritysetup does; ours has a name.
    assert host.check_output(f"cat /sys/block/{device}/dm/name")
    assert host.run("touch /usr/bin/x").rc != 0


def test_packs_are_mounted_read_only(host: Host) -> None:
    packs = json.loads(host.check_output("cat /run/hal/boot.json"))["packs"]
    assert {pack["state"] for pack in packs} == {"ok"}
    for pack in packs:
        mount = host.mount_point(pack["mountpoint"])
        assert mount.filesystem == "erofs"
        assert {"ro", "nosuid", "nodev"} <= set(mount.options)


def test_state_is_a_partition_from_which_nothing_is_executed(host: Host) -> None:
    mount = host.mount_point("/var/lib/hal")
    assert mount.filesystem == "ext4"
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mount.options)


def test_only_the_gateway_and_ssh_listen_outside(host: Host) -> None:
    sockets = host.check_output("ss --no-header --listening --tcp --udp --numeric").splitlines()
    # A DHCP client listens for its server's answers on its own address.
    locals_ = {line.split()[4] for line in sockets if not line.split()[4].endswith(":68")}
    outside = {address for address in locals_ if not address.startswith(("127.", "[::1]"))}
    assert outside == {"*:7001", "*:22"}


def test_no_program_changes_its_user(host: Host) -> None:
    assert host.check_output("find / -xdev -type f -perm /6000") == ""


def test_the_image_says_what_it_is(host: Host) -> None:
    text = host.file("/etc/os-release").content_string
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert fields["VARIANT_ID"].strip('"') == "debug"
    assert fields["IMAGE_ID"].strip('"')
    assert fields["IMAGE_VERSION"].strip('"') == "1.0.0"
    assert "hal.variant=debug" in host.file("/proc/cmdline").content_string


def test_security_scanners_find_the_packages(host: Host, image: Image) -> None:
    if image.loaded.spec.base == "buildroot":  # no package manager has made it: scanners read the bill
        bill = json.loads((image.built.directory / "sbom.cdx.json").read_text())
        versions = {component["name"]: component.get("version") for component in bill["components"]}
        assert "hal-haproxy" in versions and versions["systemd"].startswith("257")
        return
    assert host.package("haproxy").is_installed
    assert host.package("systemd").version.startswith("257")
