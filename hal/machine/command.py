"""The virtual machine as QEMU's command line: a pure function of values, with no process in sight.

Sources: qemu(1) of QEMU 10; QEMU's docs/system/i386/amd-memory-encryption.rst, docs/system/i386/tdx.rst and
docs/specs/tpm.rst; systemd.system-credentials(7).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path

from hal.errors import UsageError

QEMU = "qemu-system-x86_64"

MACHINE_TYPE = "q35"
"""Measured under TCG, kernel start to PID 1: q35 1.28 s, pc 1.27 s, q35 with usb, smbus, sata and vmport off
1.23 s, all within the noise; Debian's kernel printed nothing on microvm. SEV-SNP and TDX are defined on q35,
so one machine type serves all."""

SNP_CPU = "EPYC-v4"
"""A named model, not `host`: the CPU's signature enters the launch measurement through the initial VMSA."""

SNP_POLICY = 0x30000
"""SMT allowed, and the bit that must be one; debugging and migration stay forbidden (SEV-SNP firmware ABI
specification, 4.3 Guest Policy)."""

QUOTE_SERVICE = Path("/var/run/tdx-qgs/qgs.socket")
"""Where the host's quote generation service listens (Intel's tdx-qgs): it signs a guest's quotes."""

TDX_GUEST = {
    "qom-type": "tdx-guest",
    "id": "tee0",
    "quote-generation-socket": {"type": "unix", "path": str(QUOTE_SERVICE)},
}
"""Without the socket a guest gets no quotes (QEMU's qapi/qom.json, TdxGuestProperties, since 10.1)."""

SNP_C_BIT = 51
"""Position of the encryption bit on every EPYC that has SNP (Milan to Turin)."""


class Accelerator(Enum):
    """What executes the guest: how much slower it is belongs to it."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def cpu(self) -> str:
        """The CPU model: all that can be had."""
        return "host" if self is Accelerator.KVM else "max"

    @property
    def deadline_factor(self) -> float:
        """By how much waiting times are stretched: a boot of 1.5 s under KVM takes about 8 s in emulation."""
        return 1.0 if self is Accelerator.KVM else 6.0

    @property
    def summary(self) -> str:
        """For a person who waits."""
        return (
            "hardware virtualisation" if self is Accelerator.KVM else "emulation (no usable /dev/kvm: slow)"
        )


def choose_accelerator(cpuinfo: str, kvm_writable: bool) -> Accelerator:
    """KVM where the CPU really has it.

    `/dev/kvm` may exist and even create a VM where guests then hang, so the text of `/proc/cpuinfo` must name
    vmx (Intel) or svm (AMD) as well.
    """
    flagged = re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpuinfo, re.MULTILINE) is not None
    return Accelerator.KVM if flagged and kvm_writable else Accelerator.TCG


class Tee(StrEnum):
    """The trusted execution environment that the machine runs in, named as in the spec."""

    NONE = "none"
    SEV_SNP = "sev-snp"
    TDX = "tdx"


class TpmModel(StrEnum):
    """The interface of an emulated TPM."""

    CRB = "tpm-crb"
    TIS = "tpm-tis"


@dataclass(frozen=True)
class Forward:
    """A TCP port of the host's loopback that leads to a port of the guest."""

    host: int
    guest: int


@dataclass(frozen=True)
class Firmware:
    """UEFI firmware: one file for `-bios`, or code with its own variable store for two flash chips."""

    code: Path
    variables: Path | None = None


@dataclass(frozen=True)
class Tpm:
    """A swtpm that listens on a UNIX socket."""

    socket: Path
    model: TpmModel = TpmModel.CRB


@dataclass(frozen=True)
class ApplianceFiles:
    """What a build leaves to boot from. Kernel, initrd and command line for direct boot; without a kernel
    the firmware starts the UKI on the disk."""

    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    firmware: Firmware | None = None
    extra_disks: tuple[Path, ...] = ()
    """Further raw disks, attached read-only (packs that travel apart)."""


LINK = "net0"
"""What the network interface's cable is called in QEMU's machine protocol."""


@dataclass(frozen=True)
class Machine:
    """The machine's shape.

    `memory` in bytes. `keep_state` lets the guest write to the disk file; otherwise all its writes go to a
    temporary file that vanishes with it. `credentials` are systemd system credentials, passed by SMBIOS,
    which only debug images read; those that are secret are in `credential_files`, an SMBIOS string each
    (hal/machine/credentials.py), since a command line can be read by everyone on the host.
    """

    memory: int = 2 << 30
    cpus: int = 1
    tee: Tee = Tee.NONE
    forwards: tuple[Forward, ...] = ()
    keep_state: bool = False
    tpm: Tpm | None = None
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    credential_files: tuple[Path, ...] = ()
    clock: str | None = None
    """What the machine's clock says at its start, as 1970-01-01; None: what the host's says."""
    serial_log: Path | None = None
    """Where the serial port's output goes; None: QEMU's own standard output."""
    monitor: Path | None = None
    """The UNIX socket of QEMU's machine protocol (QMP)."""


def qemu_command(
    machine: Machine, files: ApplianceFiles, accelerator: Accelerator, *, program: str = QEMU
) -> list[str]:
    """QEMU's command line for this machine, these files and this accelerator.

    Raises:
        UsageError: the combination cannot exist (a TEE without KVM or without its firmware, nothing to boot).
    """
    _check(machine, files, accelerator)
    return [
        program,
        *("-nodefaults", "-no-user-config"),
        *("-display", "none"),
        "-no-reboot",  # a panicking guest (panic=-1) ends the process instead of starting over
        *_platform(machine, files, accelerator),
        *("-m", f"{machine.memory >> 20}M"),
        *("-smp", str(machine.cpus)),
        *(("-rtc", f"base={machine.clock}") if machine.clock else ()),
        *_boot(files),
        *_disks(machine, files),
        *_network(machine),
        *("-device", "virtio-rng-pci"),
        *_tpm(machine),
        *_credentials(machine),
        *_channels(machine),
    ]


def swtpm_command(state: Path, socket: Path) -> list[str]:
    """The TPM emulator for `Tpm(socket)`, with its persistent state in a directory; it ends with QEMU."""
    return [
        *("swtpm", "socket", "--tpm2", "--terminate"),
        *("--tpmstate", f"dir={state}"),
        *("--ctrl", f"type=unixio,path={socket}"),
    ]


def _check(machine: Machine, files: ApplianceFiles, accelerator: Accelerator) -> None:
    if files.kernel is None and files.firmware is None:
        raise UsageError("nothing to boot: neither a kernel nor UEFI firmware is given")
    if machine.tee is Tee.NONE:
        return
    if accelerator is not Accelerator.KVM:
        raise UsageError(
            f"a {machine.tee} machine needs KVM on a host with {machine.tee}",
            "boot the image without its TEE: `--tee none`",
        )
    if files.firmware is None:
        raise UsageError(f"a {machine.tee} machine needs its UEFI firmware", "give it with `--firmware FILE`")
    if files.firmware.variables is not None:
        raise UsageError(f"a {machine.tee} machine takes firmware as one file, without a variable store")


def _quoted(value: Path | str) -> str:
    """A value inside a QEMU option: a comma there is written twice (qemu(1))."""
    return str(value).replace(",", ",,")


def _platform(machine: Machine, files: ApplianceFiles, accelerator: Accelerator) -> list[str]:
    accel = ["-accel", accelerator.value]
    size = f"{machine.memory >> 20}M"
    match machine.tee:
        case Tee.NONE:
            return ["-machine", MACHINE_TYPE, *accel, "-cpu", accelerator.cpu]
        case Tee.SEV_SNP:
            guest = f"sev-snp-guest,id=tee0,cbitpos={SNP_C_BIT},reduced-phys-bits=1,policy={SNP_POLICY:#x}"
            if files.kernel is not None:
                # The hashes of kernel, initrd and command line become part of the measured firmware.
                guest += ",kernel-hashes=on"
            return [
                *(
                    "-machine",
                    f"{MACHINE_TYPE},confidential-guest-support=tee0,memory-backend=ram0,vmport=off",
                ),
                *accel,
                *("-cpu", SNP_CPU),
                *("-object", f"memory-backend-memfd,id=ram0,size={size},share=true,prealloc=false"),
                *("-object", guest),
            ]
        case Tee.TDX:
            return [
                # QEMU 10.1 or later. The TDX module owns the local APIC, so the interrupt chip is split.
                *("-machine", f"{MACHINE_TYPE},confidential-guest-support=tee0,kernel-irqchip=split"),
                *accel,
                *("-cpu", accelerator.cpu),
                *("-object", json.dumps(TDX_GUEST)),
            ]


def _boot(files: ApplianceFiles) -> list[str]:
    argv = []
    if files.firmware is not None:
        code, variables = files.firmware.code, files.firmware.variables
        if variables is None:
            argv += ["-bios", str(code)]
        else:
            argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_quoted(code)}"]
            argv += ["-drive", f"if=pflash,unit=1,format=raw,file={_quoted(variables)}"]
    if files.kernel is not None:
        argv += ["-kernel", str(files.kernel)]
        argv += ["-initrd", str(files.initrd)] if files.initrd else []
        argv += ["-append", files.cmdline]
    return argv


def _disks(machine: Machine, files: ApplianceFiles) -> list[str]:
    drive = f"if=none,id=disk0,format=raw,discard=unmap,file={_quoted(files.disk)}"
    # What is thrown away afterwards needs no flush to the host's disk.
    drive += "" if machine.keep_state else ",snapshot=on,cache=unsafe"
    # Without an index OVMF first tries the network, for a minute.
    index = ",bootindex=1" if files.firmware is not None and files.kernel is None else ""
    argv = ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk0,serial=hal{index}"]
    for number, path in enumerate(files.extra_disks, start=1):
        argv += ["-drive", f"if=none,id=disk{number},format=raw,readonly=on,file={_quoted(path)}"]
        argv += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    return argv


def _network(machine: Machine) -> list[str]:
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{f.host}-:{f.guest}" for f in machine.forwards)
    # An empty romfile: no option ROM, no network boot.
    return ["-netdev", f"user,id={LINK}{forwards}", "-device", f"virtio-net-pci,netdev={LINK},romfile="]


def _tpm(machine: Machine) -> list[str]:
    if machine.tpm is None:
        return []
    return [
        *("-chardev", f"socket,id=tpm0,path={_quoted(machine.tpm.socket)}"),
        *("-tpmdev", "emulator,id=tpmdev0,chardev=tpm0"),
        *("-device", f"{machine.tpm.model},tpmdev=tpmdev0"),
    ]


def _credentials(machine: Machine) -> list[str]:
    argv = []
    for name, value in machine.credentials.items():
        encoded = base64.b64encode(value).decode()
        argv += ["-smbios", f"type=11,value=io.systemd.credential.binary:{_quoted(name)}={encoded}"]
    for path in machine.credential_files:
        argv += ["-smbios", f"type=11,path={_quoted(path)}"]
    return argv


def _channels(machine: Machine) -> list[str]:
    argv = []
    if machine.serial_log is None:
        argv += ["-serial", "stdio"]
    else:
        argv += [
            "-chardev",
            f"file,id=serial0,path={_quoted(machine.serial_log)}",
            "-serial",
            "chardev:serial0",
        ]
    if machine.monitor is not None:
        argv += ["-chardev", f"socket,id=qmp0,path={_quoted(machine.monitor)},server=on,wait=off"]
        argv += ["-mon", "chardev=qmp0,mode=control"]
    return argv
