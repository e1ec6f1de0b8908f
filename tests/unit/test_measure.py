"""What artefacts measure as: each rule by itself, and against a real TDX machine's event log."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import HalError, UsageError
from hal.machine import boot
from hal.measure import gpt, pe, snp, tdvf, tdx, tpm, uki
from hal.measure.compute import OVMF
from hal.measure.registers import SEPARATOR, replayed
from hal.measure.snp import DirectBoot
from tests.event_log import Event, events
from tests.unit import measured_files as made

EVIDENCE = Path(__file__).parents[1] / "data" / "evidence"


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


# --- EFI programs


def test_a_checksum_and_a_signature_do_not_enter_the_digest() -> None:
    plain = pe.parse(made.efi_program({".text": b"code"}), "it")
    signed = pe.parse(made.efi_program({".text": b"code"}, checksum=7, signature=b"s" * 24), "it")
    assert plain.authenticode("sha256") == signed.authenticode("sha256")
    assert plain.authenticode("sha384") != plain.authenticode("sha256")


@given(st.data())
def test_every_other_bit_of_a_program_does(data: st.DataObject) -> None:
    program = made.efi_program({".text": b"code", ".data": b"more"})
    parsed = pe.parse(program, "it")
    checksum = parsed.optional_header + pe.CHECKSUM
    directory = parsed.optional_header + pe.SECURITY_DIRECTORY
    left_out = [*range(checksum, checksum + 4), *range(directory, directory + 8)]
    place = data.draw(st.sampled_from([place for place in range(len(program)) if place not in left_out]))
    altered = bytearray(program)
    altered[place] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(HalError):  # it may be no program any more
        assert pe.parse(bytes(altered), "it").authenticode("sha256") != parsed.authenticode("sha256")


@given(st.integers(0, 1536))
def test_a_program_that_is_cut_off_is_refused_in_words(size: int) -> None:
    program = made.efi_program({".text": b"code", ".data": b"more"})
    with pytest.raises(HalError, match="it: no EFI program"):
        pe.parse(program[: min(size, len(program) - 1)], "it")


def test_a_section_that_is_larger_in_memory_ends_in_zeros() -> None:
    program = bytearray(made.efi_program({".text": b"code"}))
    place = program.index(b".text") + 8
    struct.pack_into("<I", program, place, 1000)
    content = pe.parse(bytes(program), "it").content(".text")
    assert content == b"code".ljust(1000, b"\0")


# --- TPM


def test_pcrs_by_hand() -> None:
    linux = made.kernel()
    image = made.uki(b"ro quiet", linux)
    found = tpm.pcrs(image)
    programs = [pe.parse(data, "it").authenticode("sha256") for data in (image, linux)]
    register = bytes(32)
    for digest in [sha256(b"Calling EFI Application from Boot Option"), sha256(bytes(4)), *programs]:
        register = sha256(register + digest)
    assert found["4"] == register.hex()
    register = bytes(32)
    for name, content in {
        ".linux": linux,
        ".osrel": b"ID=debian\n",
        ".cmdline": b"ro quiet",
        ".initrd": b"an initrd",
        ".uname": b"6.12",
        ".sbat": b"sbat,1\n",
    }.items():
        register = sha256(register + sha256(name.encode() + b"\0"))
        register = sha256(register + sha256(content))
    assert found["11"] == register.hex()
    assert found["12"] == "00" * 32
    register = bytes(32)
    for digest in [sha256(b"Calling EFI Application from Boot Option"), sha256(bytes(4)), programs[0]]:
        register = sha256(register + digest)
    assert tpm.pcrs(image, secure_boot=True) == {**found, "4": register.hex()}


def test_another_command_line_is_another_pcr_4_and_11() -> None:
    first, second = tpm.pcrs(made.uki(b"ro")), tpm.pcrs(made.uki(b"ro hal.variant=debug"))
    assert first["4"] != second["4"] and first["11"] != second["11"]


@pytest.mark.parametrize("section", ["profile", "dtbauto", "hwids", "efifw"])
def test_a_uki_that_chooses_by_the_host_is_refused(section: str) -> None:
    with pytest.raises(HalError, match=f"chosen at boot .\\.{section}."):
        tpm.pcrs(made.uki(**{section: b"x"}))


def test_a_signature_of_the_pcrs_is_not_measured() -> None:
    assert tpm.pcrs(made.uki(pcrsig=b"{}"))["11"] == tpm.pcrs(made.uki())["11"]


def test_a_uki_without_a_kernel_is_refused() -> None:
    with pytest.raises(HalError, match="no kernel in it"):
        tpm.pcrs(made.efi_program({".osrel": b"x"}))


def test_the_firmware_of_the_document_is_what_hal_boots() -> None:
    assert Path("/") / OVMF == boot.OVMF / "OVMF_CODE_4M.fd"


# --- the partition table


def test_the_partition_table_is_its_header_and_what_is_in_use(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(made.partition_table(2))
    found = gpt.event(disk)
    assert found[:8] == b"EFI PART"
    assert found[92:] == struct.pack("<Q", 2) + b"\1" * 128 + b"\2" * 128
    disk.write_bytes(bytes(4096))
    with pytest.raises(HalError, match="no GPT"):
        gpt.event(disk)


# --- SEV-SNP


@pytest.fixture
def direct(tmp_path: Path) -> DirectBoot:
    (tmp_path / "vmlinuz").write_bytes(made.kernel())
    (tmp_path / "initrd").write_bytes(b"an initrd")
    return DirectBoot(tmp_path / "vmlinuz", tmp_path / "initrd", "ro hal.root=x,1,aa,bb quiet")


@pytest.fixture
def ovmf(tmp_path: Path) -> Path:
    path = tmp_path / "OVMF.amdsev.fd"
    path.write_bytes(made.snp_firmware())
    return path


def test_launch_digests_are_those_of_the_command_line(ovmf: Path, direct: DirectBoot) -> None:
    """Each of a matrix is what the program `sev-snp-measure` prints."""
    found = snp.launches(ovmf, direct, (1, 2, 3, 8, 64), snp.VCPU_TYPES)
    assert len({launch.launch_digest for launch in found}) == len(found) == 20
    for launch in found:
        printed = subprocess.check_output(
            [
                *(Path(sys.executable).with_name("sev-snp-measure"), "--mode", "snp"),
                *("--vcpus", str(launch.vcpus), "--vcpu-type", launch.vcpu_type, "--ovmf", ovmf),
                *("--kernel", direct.kernel, "--initrd", direct.initrd, "--append", direct.cmdline),
            ],
            text=True,
        )
        assert launch.launch_digest == printed.strip()
        assert launch.firmware_sha256 == hashlib.sha256(ovmf.read_bytes()).hexdigest()


def test_each_input_changes_the_launch_digest(ovmf: Path, direct: DirectBoot) -> None:
    def digest(boot: DirectBoot = direct) -> str:
        return snp.launches(ovmf, boot, (2,), ("EPYC-v4",))[0].launch_digest

    found = {digest(), digest(DirectBoot(direct.kernel, direct.initrd, "ro"))}
    direct.initrd.write_bytes(b"another initrd")
    found.add(digest())
    direct.kernel.write_bytes(made.kernel(b"another"))
    found.add(digest())
    ovmf.write_bytes(made.snp_firmware(fill=b"\xcc"))
    found.add(digest())
    assert len(found) == 5


def test_firmware_without_room_for_the_hashes_is_refused(ovmf: Path, direct: DirectBoot) -> None:
    ovmf.write_bytes(made.snp_firmware(made.SNP_SECTIONS[:3]))
    with pytest.raises(HalError, match="SNP_KERNEL_HASHES") as refused:
        snp.launches(ovmf, direct, (1,), ("EPYC-v4",))
    assert "AmdSev" in str(refused.value.hint)


@pytest.mark.parametrize("content", [b"", b"root:x:0:0\n", bytes(4096)], ids=["empty", "text", "zeros"])
def test_what_is_no_firmware_is_refused(ovmf: Path, direct: DirectBoot, content: bytes) -> None:
    ovmf.write_bytes(content)
    with pytest.raises(HalError, match=r"not measured for sev-snp: .+"):
        snp.launches(ovmf, direct, (1,), ("EPYC-v4",))
    with pytest.raises(HalError, match=r"no TDX firmware: .+"):
        tdvf.mrtd(content, "it")


@given(
    noise=st.binary(min_size=1, max_size=4), place=st.sampled_from([*range(0x8000, 0x8048), *range(-180, -4)])
)
def test_damaged_firmware_never_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    directory = tmp_path_factory.getbasetemp()
    firmware = bytearray(made.snp_firmware())
    place %= len(firmware)
    firmware[place : place + len(noise)] = noise
    path, empty = directory / "damaged.fd", directory / "empty"
    path.write_bytes(firmware)
    empty.touch()
    with suppress(HalError):
        snp.launches(path, DirectBoot(empty, empty, "ro"), (1,), ("EPYC-v4",))


def test_an_unknown_cpu_type_is_refused_with_the_known_ones(ovmf: Path, direct: DirectBoot) -> None:
    with pytest.raises(UsageError, match="unknown CPU type EPYC-Naples"):
        snp.launches(ovmf, direct, (1,), ("EPYC-Naples",))


# --- TDX

BOOT_VOLUME = (0x0, 0x2000, 0xFFFFC000, 0x2000, 0, tdvf.MEASURE_CONTENT)
HAND_OFF = (0, 0, 0x809000, 0x1000, 2, 0)
LATER = (0, 0, 0x0, 0x80000000, 4, tdvf.ADDED_LATER)


def test_mrtd_by_hand() -> None:
    firmware = made.tdx_firmware([BOOT_VOLUME, HAND_OFF, LATER])
    state = hashlib.sha384()
    for page in (0xFFFFC000, 0xFFFFD000):
        state.update(b"MEM.PAGE.ADD".ljust(16, b"\0") + struct.pack("<Q", page) + bytes(104))
        for offset in range(0, 4096, 256):
            state.update(b"MR.EXTEND".ljust(16, b"\0") + struct.pack("<Q", page + offset) + bytes(104))
            begin = page - 0xFFFFC000 + offset
            state.update(firmware[begin : begin + 256])
    state.update(b"MEM.PAGE.ADD".ljust(16, b"\0") + struct.pack("<Q", 0x809000) + bytes(104))
    assert tdvf.mrtd(firmware, "it") == state.hexdigest()


PUBLISHED = {
    "9e807cb2cd4313406a3aa4becc0836671a5c64ca7bdc08a45e15260184b446bf": (
        "7357a10d2e2724dffe68813e3cc4cfcde6814d749f2fb62e3953e54f6e0b50a219786afe2cd478f684b52c61837e1114"
    )
}
"""MRTDs by the SHA-256 of their firmware: OVMF.fd of Ubuntu's package ovmf 2025.02-3ubuntu2, as the project
virtee/tdx-measure has it in tests/fixtures, and as quotes of real machines of Tinfoil's carry it."""


def test_a_published_mrtd_is_what_hal_computes() -> None:
    given = os.environ.get("HAL_TDX_FIRMWARE")
    if given is None:
        pytest.skip("HAL_TDX_FIRMWARE names no file: OVMF.fd of Ubuntu's package ovmf 2025.02-3ubuntu2")
    firmware = Path(given).read_bytes()
    assert tdvf.mrtd(firmware, given) == PUBLISHED[sha256(firmware).hex()]


@pytest.mark.parametrize(
    "section",
    [
        (0, 0x2000, 0xFFFFC001, 0x2000, 0, 1),
        (0, 0x2000, 0xFFFFC000, 0x2001, 0, 1),
        (0, 0x3000, 0xFFFFC000, 0x2000, 0, 1),
        (0, 0x1000, 0xFFFFC000, 0x2000, 0, 1),
        (0x3000, 0x2000, 0xFFFFC000, 0x2000, 0, 1),
        (0, 0x2000, 0xFFFFC000, 0x2000, 0, 3),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(section: tuple[int, int, int, int, int, int]) -> None:
    with pytest.raises(HalError, match="section 0 of its TDX metadata"):
        tdvf.mrtd(made.tdx_firmware([section]), "it")


@given(st.integers(0, 0x4000 - 1))
def test_firmware_that_is_cut_off_is_refused_in_words(size: int) -> None:
    firmware = made.tdx_firmware([BOOT_VOLUME, HAND_OFF])
    with pytest.raises(HalError, match="no TDX firmware"):
        tdvf.mrtd(firmware[:size], "it")


@given(st.binary(min_size=1, max_size=4), st.integers(0, 200))
def test_a_damaged_table_never_ends_in_a_traceback(noise: bytes, from_end: int) -> None:
    firmware = bytearray(made.tdx_firmware([BOOT_VOLUME, HAND_OFF]))
    place = len(firmware) - from_end - len(noise)
    firmware[place : place + len(noise)] = noise
    try:
        assert len(tdvf.mrtd(bytes(firmware), "it")) == 96
    except HalError as error:
        assert "\n" not in error.message


def test_tdx_registers_by_hand(tmp_path: Path, direct: DirectBoot) -> None:
    firmware = tmp_path / "OVMF.inteltdx.fd"
    firmware.write_bytes(made.tdx_firmware([BOOT_VOLUME, HAND_OFF]))
    image, partitions = made.uki(linux=made.kernel()), b"EFI PART".ljust(300, b"x")
    found = {(part.boot, part.behaviour): part for part in tdx.parts(firmware, direct, image, partitions)}
    linux = pe.parse(made.kernel(), "linux").authenticode("sha384")
    calling, separator = sha384(b"Calling EFI Application from Boot Option"), sha384(SEPARATOR)
    leaving, left = sha384(tdx.EXIT), sha384(tdx.EXIT_DONE)
    assert found["direct", "edk2-2025.02"].rtmr1 == chain(linux, calling, separator, leaving, left)
    started = [sha384(partitions), pe.parse(image, "uki").authenticode("sha384"), linux]
    assert found["uki", "edk2-2025.02"].rtmr1 == chain(calling, separator, *started, leaving, left)
    failed = [leaving, sha384(tdx.EXIT_FAILED), leaving, left]
    assert found["uki", "edk2-2026.08"].rtmr1 == chain(calling, separator, *started, *failed)
    initrd = sha384(b"an initrd")
    options = sha384(f"{direct.cmdline} initrd=initrd\0".encode("utf-16-le"))
    assert found["direct", "edk2-2025.02"].rtmr2 == chain(options, initrd)
    options = sha384(f"initrd=initrd {direct.cmdline}\0".encode("utf-16-le"))
    assert found["direct", "edk2-2026.08"].rtmr2 == chain(options, initrd)
    options = sha384(f"{direct.cmdline}\0".encode("utf-16-le"))
    sections = uki.section_digests(pe.parse(image, "uki"), "sha384")
    handed_on = sha384(uki.initrd_handed_on(pe.parse(image, "uki")))
    assert found["uki", "edk2-2025.02"].rtmr2 == chain(*sections, options, handed_on)
    assert {part.rtmr3 for part in found.values()} == {"00" * 48}
    whole = tdx.whole(found["direct", "edk2-2025.02"], "ab" * 48, 4, 2 << 30)
    assert (whole.rtmr0, whole.vcpus, whole.memory) == ("ab" * 48, 4, 2 << 30)


def test_the_initrd_that_a_uki_hands_on(tmp_path: Path) -> None:
    """Behind the initrd an archive that cpio can read, with the os-release file."""
    handed_on = uki.initrd_handed_on(pe.parse(made.uki(), "uki"))
    assert handed_on.startswith(b"an initrd" + bytes(3) + b"070701")
    (tmp_path / "archive").write_bytes(handed_on[12:])
    if shutil.which("cpio"):
        with (tmp_path / "archive").open("rb") as archive:
            subprocess.run(["cpio", "-id", "--quiet"], stdin=archive, cwd=tmp_path, check=True)
        assert (tmp_path / ".extra/os-release").read_bytes() == b"ID=debian\n"
    with pytest.raises(HalError, match=r"further initrds .\.ucode."):
        uki.initrd_handed_on(pe.parse(made.uki(ucode=b"x"), "uki"))


def chain(*digests: bytes) -> str:
    return replayed("sha384", digests).hex()


# --- a real machine's event log (a TDX guest; tests/data/evidence/README.md)


@pytest.fixture(scope="module")
def log() -> list[Event]:
    path = EVIDENCE / "tdx-ccel-eventlog.bin.gz"
    if not path.exists():
        pytest.skip("no samples of evidence in tests/data")
    return list(events(gzip.decompress(path.read_bytes())))


def test_a_real_log_replayed_is_what_the_quote_has(log: list[Event]) -> None:
    """A quote has RTMR 0 to 3 from byte 376 on (Intel TDX DCAP Quoting Library API, A.3.2)."""
    quote = (EVIDENCE / "tdx-ccel-quote.bin").read_bytes()
    for number in range(4):
        register = replayed("sha384", [one.digests["sha384"] for one in log if one.register == number + 1])
        assert register == quote[376 + 48 * number : 424 + 48 * number]


def test_a_real_log_has_the_events_that_hal_counts_on(log: list[Event]) -> None:
    """RTMR 1 of a boot from a disk: words, separator, partition table, programs, and words again."""
    second = [event for event in log if event.register == 2]
    digests = [event.digests["sha384"] for event in second]
    assert digests[:2] == [sha384(tpm.BOOT_OPTION), sha384(SEPARATOR)]
    table = second[2].data
    assert table[:8] == b"EFI PART" and digests[2] == sha384(table)
    assert digests[-2:] == [sha384(tdx.EXIT), sha384(tdx.EXIT_DONE)]
    assert not [event for event in log if event.register == 4]
