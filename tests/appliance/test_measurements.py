"""What was computed before is what a booted machine's TPM has measured."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from testinfra.host import Host

from hal.machine.boot import Plan, Wishes
from hal.measure import gpt, pe, tdx, tpm, uki
from hal.measure.document import Measurements, TpmPcrs, read
from hal.measure.registers import SEPARATOR
from hal.render.manifest import PATH
from tests.appliance.conftest import Boot, Image
from tests.event_log import Event, events

TPM = "/sys/class/tpm/tpm0/pcr-sha256"
LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"


@pytest.fixture(scope="module")
def expected(image: Image) -> Measurements:
    return read(image.built.directory)


def log_of(host: Host) -> list[Event]:
    return list(events(base64.b64decode(host.check_output(f"base64 -w 0 {LOG}"))))


def digests(log: list[Event], register: int) -> list[bytes]:
    return [event.digests["sha256"] for event in log if event.register == register]


def plain(expected: Measurements) -> TpmPcrs:
    """What is expected where firmware asks for no signatures; test_signing.py has the other."""
    (entry,) = (entry for entry in expected.platforms.tpm if not entry.secure_boot)
    return entry


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_a_uki_boot_has_the_pcrs_that_were_computed(
    image: Image, boot_image: Boot, expected: Measurements
) -> None:
    with boot_image(image, wishes=Wishes(port=0, firmware="ovmf", tpm=True)) as appliance:
        host = appliance.ssh()
        entry = plain(expected)
        found = {number: host.check_output(f"cat {TPM}/{number}").lower() for number in entry.pcrs}
        assert found == entry.pcrs
        assert host.check_output(f"sha256sum {PATH}").split()[0] == expected.manifest_sha256
        log = log_of(host)
    # PCR 5 is no expectation, but TDX's RTMR 1 has these events of it.
    disk = sha256(gpt.event(image.built.directory / "disk.img"))
    leaving = tdx.BEHAVIOURS[0].leaving
    assert digests(log, 5) == [sha256(SEPARATOR), disk, *map(sha256, leaving)]
    program = pe.parse((image.built.directory / "uki.efi").read_bytes(), "uki.efi")
    loaded = [f"{expected.inputs.command_line}\0".encode("utf-16-le"), uki.initrd_handed_on(program)]
    assert digests(log, 9) == [sha256(data) for data in loaded]


def test_a_command_line_that_the_host_adds_is_in_pcr_12(
    image: Image, boot_image: Boot, expected: Measurements, tmp_path: Path
) -> None:
    """By SMBIOS, which systemd-stub obeys outside of confidential machines (systemd-stub(7))."""
    added = tmp_path / "added"
    added.write_text("io.systemd.stub.kernel-cmdline-extra=hal.added=1")

    def change(plan: Plan) -> Plan:
        return replace(plan, machine=replace(plan.machine, credential_files=(added,)))

    wishes = Wishes(port=0, firmware="ovmf", tpm=True)
    with boot_image(image, wishes=wishes, change=change) as appliance:
        host = appliance.ssh()
        assert host.check_output("cat /proc/cmdline").endswith(" hal.added=1")
        entry = plain(expected)
        found = {number: host.check_output(f"cat {TPM}/{number}").lower() for number in entry.pcrs}
    assert {number for number in found if found[number] != entry.pcrs[number]} == {"12"}


def test_a_direct_boot_has_the_events_that_rtmrs_are_computed_from(
    image: Image, boot_image: Boot, expected: Measurements
) -> None:
    """The lock's firmware with a TPM: what it logs in PCR 4, 5 and 9 goes to RTMR 1 and 2 under TDX."""
    directory = image.built.directory

    def change(plan: Plan) -> Plan:
        files = replace(
            plan.files,
            kernel=directory / "vmlinuz",
            initrd=directory / "initrd",
            cmdline=expected.inputs.command_line,
        )
        return replace(plan, files=files)

    wishes = Wishes(port=0, firmware="ovmf", tpm=True)
    with boot_image(image, wishes=wishes, change=change) as appliance:
        log = log_of(appliance.ssh())
    behaviour = tdx.BEHAVIOURS[0]
    kernel = pe.parse((directory / "vmlinuz").read_bytes(), "vmlinuz").authenticode("sha256")
    assert digests(log, 4) == [kernel, sha256(tpm.BOOT_OPTION), sha256(SEPARATOR)]
    assert digests(log, 5) == [sha256(SEPARATOR), *map(sha256, behaviour.leaving)]
    options = behaviour.load_options(expected.inputs.command_line)
    assert digests(log, 9) == [sha256(options), sha256((directory / "initrd").read_bytes())]
