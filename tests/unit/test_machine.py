"""QEMU's command line as text, for each way to boot; and QEMU's own opinion of it where one is installed."""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from hal.errors import UsageError
from hal.machine.command import (
    Accelerator,
    ApplianceFiles,
    Firmware,
    Forward,
    Machine,
    Tee,
    Tpm,
    TpmModel,
    choose_accelerator,
    qemu_command,
    swtpm_command,
)
from hal.machine.qemu import free_port
from hal.run import run
from hal.sandbox import Sandbox

DIRECT = ApplianceFiles(
    Path("/b/disk.img"), Path("/b/vmlinuz"), Path("/b/initrd"), "console=ttyS0 hal.state=state"
)
UKI = ApplianceFiles(Path("/b/disk.img"), firmware=Firmware(Path("/f/OVMF.fd")))
MACHINE = Machine(serial_log=Path("/b/serial.log"), forwards=(Forward(7001, 7001), Forward(2222, 22)))


def values(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_direct_boot_is_exactly_this() -> None:
    assert shlex.join(qemu_command(MACHINE, DIRECT, Accelerator.TCG)) == (
        "qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot"
        " -machine q35 -accel tcg -cpu max -m 2048M -smp 1"
        " -kernel /b/vmlinuz -initrd /b/initrd -append 'console=ttyS0 hal.state=state'"
        " -drive if=none,id=disk0,format=raw,discard=unmap,file=/b/disk.img,snapshot=on,cache=unsafe"
        " -device virtio-blk-pci,drive=disk0,serial=hal"
        " -netdev user,id=net0,hostfwd=tcp:127.0.0.1:7001-:7001,hostfwd=tcp:127.0.0.1:2222-:22"
        " -device virtio-net-pci,netdev=net0,romfile="
        " -device virtio-rng-pci"
        " -chardev file,id=serial0,path=/b/serial.log -serial chardev:serial0"
    )


def test_every_forward_is_bound_to_loopback() -> None:
    (netdev,) = values(qemu_command(MACHINE, DIRECT, Accelerator.TCG), "-netdev")
    forwards = [part for part in netdev.split(",") if part.startswith("hostfwd=")]
    assert len(forwards) == 2
    assert all(part.startswith("hostfwd=tcp:127.0.0.1:") for part in forwards)


def test_a_clock_of_its_own() -> None:
    argv = qemu_command(replace(MACHINE, clock="1970-01-01"), DIRECT, Accelerator.TCG)
    assert values(argv, "-rtc") == ["base=1970-01-01"]


def test_kvm_uses_the_hosts_cpu() -> None:
    argv = qemu_command(MACHINE, DIRECT, Accelerator.KVM)
    assert values(argv, "-accel") == ["kvm"]
    assert values(argv, "-cpu") == ["host"]


def test_memory_cpus_and_kept_state() -> None:
    machine = replace(MACHINE, memory=3 << 30, cpus=4, keep_state=True)
    argv = qemu_command(machine, DIRECT, Accelerator.TCG)
    assert values(argv, "-m") == ["3072M"]
    assert values(argv, "-smp") == ["4"]
    assert values(argv, "-drive") == ["if=none,id=disk0,format=raw,discard=unmap,file=/b/disk.img"]


def test_uki_boots_from_the_disk_without_trying_the_network() -> None:
    argv = qemu_command(MACHINE, UKI, Accelerator.TCG)
    assert values(argv, "-bios") == ["/f/OVMF.fd"]
    assert "virtio-blk-pci,drive=disk0,serial=hal,bootindex=1" in argv
    assert "virtio-net-pci,netdev=net0,romfile=" in argv
    assert "-kernel" not in argv
    assert "-append" not in argv


def test_firmware_with_a_variable_store_becomes_two_flash_chips() -> None:
    files = replace(UKI, firmware=Firmware(Path("/f/CODE.fd"), Path("/b/VARS.fd")))
    argv = qemu_command(MACHINE, files, Accelerator.TCG)
    assert values(argv, "-drive")[:2] == [
        "if=pflash,unit=0,format=raw,readonly=on,file=/f/CODE.fd",
        "if=pflash,unit=1,format=raw,file=/b/VARS.fd",
    ]
    assert "-bios" not in argv


def test_sev_snp_measures_kernel_initrd_and_command_line() -> None:
    files = replace(DIRECT, firmware=Firmware(Path("/f/OVMF.amdsev.fd")))
    argv = qemu_command(replace(MACHINE, tee=Tee.SEV_SNP), files, Accelerator.KVM)
    assert values(argv, "-machine") == ["q35,confidential-guest-support=tee0,memory-backend=ram0,vmport=off"]
    assert values(argv, "-object") == [
        "memory-backend-memfd,id=ram0,size=2048M,share=true,prealloc=false",
        "sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on",
    ]
    assert values(argv, "-cpu") == ["EPYC-v4"]
    assert values(argv, "-bios") == ["/f/OVMF.amdsev.fd"]


def test_sev_snp_policy_forbids_debugging() -> None:
    debug_bit = 1 << 19
    argv = qemu_command(replace(MACHINE, tee=Tee.SEV_SNP), UKI, Accelerator.KVM)
    (guest,) = [v for v in values(argv, "-object") if v.startswith("sev-snp-guest")]
    policy = int(guest.partition("policy=")[2].partition(",")[0], 16)
    assert policy & debug_bit == 0
    assert "kernel-hashes" not in guest  # there is no kernel to hash: the firmware measures the UKI


def test_tdx() -> None:
    argv = qemu_command(replace(MACHINE, tee=Tee.TDX), UKI, Accelerator.KVM)
    assert values(argv, "-machine") == ["q35,confidential-guest-support=tee0,kernel-irqchip=split"]
    (guest,) = map(json.loads, values(argv, "-object"))
    assert (guest["qom-type"], guest["id"]) == ("tdx-guest", "tee0")
    assert guest["quote-generation-socket"]["type"] == "unix"
    assert values(argv, "-cpu") == ["host"]
    assert values(argv, "-bios") == ["/f/OVMF.fd"]


@pytest.mark.parametrize("model", list(TpmModel))
def test_tpm(model: TpmModel) -> None:
    argv = qemu_command(replace(MACHINE, tpm=Tpm(Path("/r/tpm"), model)), DIRECT, Accelerator.TCG)
    assert "socket,id=tpm0,path=/r/tpm" in values(argv, "-chardev")
    assert values(argv, "-tpmdev") == ["emulator,id=tpmdev0,chardev=tpm0"]
    assert f"{model.value},tpmdev=tpmdev0" in values(argv, "-device")


def test_swtpm() -> None:
    assert shlex.join(swtpm_command(Path("/s"), Path("/r/tpm"))) == (
        "swtpm socket --tpm2 --terminate --tpmstate dir=/s --ctrl type=unixio,path=/r/tpm"
    )


def test_credentials_survive_any_byte() -> None:
    key = b"ssh-ed25519 AAAA,me\n"
    machine = replace(MACHINE, credentials={"ssh.authorized_keys.root": key})
    (option,) = values(qemu_command(machine, DIRECT, Accelerator.TCG), "-smbios")
    name, _, encoded = option.removeprefix("type=11,value=").partition("=")
    assert name == "io.systemd.credential.binary:ssh.authorized_keys.root"
    assert base64.b64decode(encoded) == key
    assert "," not in encoded


def test_commas_in_paths_are_doubled() -> None:
    files = replace(DIRECT, disk=Path("/a,b/disk.img"), extra_disks=(Path("/c,d/pack.img"),))
    argv = qemu_command(replace(MACHINE, monitor=Path("/e,f/qmp")), files, Accelerator.TCG)
    assert "file=/a,,b/disk.img," in values(argv, "-drive")[0]
    assert values(argv, "-drive")[1] == "if=none,id=disk1,format=raw,readonly=on,file=/c,,d/pack.img"
    assert "socket,id=qmp0,path=/e,,f/qmp,server=on,wait=off" in values(argv, "-chardev")


@pytest.mark.parametrize(
    ("machine", "files", "accelerator", "message"),
    [
        (MACHINE, ApplianceFiles(Path("/d")), Accelerator.TCG, "nothing to boot"),
        (replace(MACHINE, tee=Tee.TDX), UKI, Accelerator.TCG, "a tdx machine needs KVM"),
        (replace(MACHINE, tee=Tee.SEV_SNP), DIRECT, Accelerator.KVM, "needs its UEFI firmware"),
        (
            replace(MACHINE, tee=Tee.SEV_SNP),
            replace(UKI, firmware=Firmware(Path("/c"), Path("/v"))),
            Accelerator.KVM,
            "without a variable store",
        ),
    ],
)
def test_impossible_machines(
    machine: Machine, files: ApplianceFiles, accelerator: Accelerator, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        qemu_command(machine, files, accelerator)


@pytest.mark.parametrize(
    ("flags", "writable", "expected"),
    [
        ("fpu vmx sse", True, Accelerator.KVM),
        ("fpu sse svm", True, Accelerator.KVM),
        ("fpu svm", False, Accelerator.TCG),
        ("fpu sse", True, Accelerator.TCG),  # /dev/kvm is there, but guests would hang
        ("fpu svm_lock vmxnet", True, Accelerator.TCG),
        ("", True, Accelerator.TCG),
    ],
)
def test_accelerator(flags: str, writable: bool, expected: Accelerator) -> None:
    cpuinfo = f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\nvmx flags\t: vnmi\n"
    assert choose_accelerator(cpuinfo, writable) is expected


def test_emulation_gets_more_time() -> None:
    assert Accelerator.KVM.deadline_factor == 1
    assert Accelerator.TCG.deadline_factor > 2


def test_qemu_accepts_the_options(tmp_path: Path, tools: Sandbox) -> None:
    """A real QEMU 10 parses the options and creates every device; `-S` keeps the guest from running."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    # A firmware's bare name is looked up in QEMU's own data directory.
    files = ApplianceFiles(disk, firmware=Firmware(Path("bios-256k.bin")), extra_disks=(disk,))
    machine = Machine(
        memory=256 << 20,
        forwards=(Forward(free_port(), 7001),),
        credentials={"a": b"b"},
        serial_log=tmp_path / "serial.log",
        monitor=tmp_path / "qmp",
    )
    argv = [*qemu_command(machine, files, Accelerator.TCG), "-S", "-monitor", "stdio"]
    command = tools.command(argv, writable=[tmp_path], network=True, env={"TMPDIR": str(tmp_path)})
    done = run(command, input=b"quit\n", check=False)
    assert done.returncode == 0, done.stderr
