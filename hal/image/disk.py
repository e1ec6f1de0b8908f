"""The boot artefacts: command line, unified kernel image, and the GPT disk that holds everything.

Models that are delivered on a disk of their own have one each, with one partition.

Partitions, in this order: EFI system partition with the UKI, root, root's hash tree, one per pack, state.
Their labels are what the initrd looks for; what it trusts is the command line alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.image.identifiers import named_uuid
from hal.image.kernel import Kernel
from hal.image.root import RootImage
from hal.packs.build import Pack
from hal.sandbox import Sandbox

MIB = 1024 * 1024
SECTOR = 512
ESP_SIZE = 48 * MIB
"""Room for two UKIs of 15 MB and a boot loader, should updates want them."""

DISK = "disk.img"
"""The appliance's own disk, in its build's directory."""

STATE_LABEL = "state"
LAZY = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
"""Leaves a new ext4 sparse: the guest's kernel writes its tables when it is idle (mke2fs(8))."""

PARTITION_TYPES = {
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "root-x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "root-verity-x86_64": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
    "root-aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
    "root-verity-aarch64": "df3300ce-d69f-4c92-978c-9bfb0f38d820",
    "linux": "0fc63daf-8483-4772-8e79-3d69d8477de4",
}
"""Source: the Discoverable Partitions Specification (UAPI.2)."""

COMMON_ARGUMENTS = (
    "ro",
    "panic=-1",
    "random.trust_cpu=on",
    "tsc=reliable",
    "no_timer_check",
    "audit=0",
    "cryptomgr.notests",
    "lsm=landlock,lockdown,yama",
    "efi=noruntime",
    "systemd.show_status=0",
    "TERM=dumb",
)
"""panic=-1 ends the machine at once when dm-verity finds a damaged block. The timer options skip
calibrations, and cryptomgr.notests self-tests of ciphers, that cost a second without telling anything new.
`lsm` names the security modules that do something here: AppArmor, TOMOYO, IPE and BPF have no policy in the
image, and for the last systemd loads a program at each start (half a second in emulation). efi=noruntime:
UEFI variables are the host's and no register here holds them; systemd would take options out of one
(SystemdOptions) on a kernel that has a file system for them. TERM=dumb keeps systemd from sending escape
sequences to the serial line."""

VARIANT_ARGUMENTS = {
    # Warnings and worse on the serial line: for the host they are the only sign of why a machine stopped.
    "production": (
        "quiet",
        "loglevel=4",
        "lockdown=confidentiality",  # not even root reads or changes the running kernel (kernel_lockdown(7))
        "systemd.import_credentials=no",
        "hal.variant=production",
    ),
    "debug": ("loglevel=5", "lockdown=integrity", "hal.variant=debug"),
}
CONSOLES = {"x86_64": "console=ttyS0", "aarch64": "console=ttyAMA0"}


SILENT = "console=ttynull"
"""Without it such a kernel has no console at all, and programs cannot open theirs."""


def command_line(
    arch: str, variant: str, root_label: str, root: RootImage, *, state: bool, silent: bool = False
) -> str:
    """The kernel's command line, which is measured: it names the root hash, the variant and the state.

    `silent` is for a kernel without a driver for the serial port.
    """
    verity = root.verity
    return " ".join(
        [
            SILENT if silent else CONSOLES[arch],
            *COMMON_ARGUMENTS,
            *VARIANT_ARGUMENTS[variant],
            f"hal.root={root_label},{verity.data_blocks},{verity.salt},{verity.root_hash}",
            *([f"hal.state={STATE_LABEL}"] if state else []),
        ]
    )


def unified_kernel_image(
    kernel: Kernel, initrd: Path, cmdline: str, os_release: str, directory: Path, tools: Sandbox
) -> Path:
    """`uki.efi`: kernel, initrd and command line in one EFI program (ukify(1))."""
    target = directory / "uki.efi"
    release = directory / "os-release"
    release.write_text(os_release)
    tools.run(
        [
            *("ukify", "build", f"--linux={kernel.image}", f"--initrd={initrd}"),
            *(f"--cmdline={cmdline}", f"--os-release=@{release}", f"--uname={kernel.release}"),
            f"--output={target}",
        ],
        readable=[kernel.image, initrd],
        writable=[directory],
        what="ukify (making the unified kernel image)",
    )
    release.unlink()
    return target


@dataclass(frozen=True)
class Partition:
    """One partition: its label, its type (a name in PARTITION_TYPES), its size in bytes, its content."""

    label: str
    type: str
    size: int
    content: Path | None


@dataclass(frozen=True)
class Placed:
    """A partition and where on the disk it begins, in bytes."""

    partition: Partition
    offset: int


def layout(partitions: Sequence[Partition]) -> tuple[list[Placed], int]:
    """Place partitions one behind the other on MiB boundaries; also gives the disk's size in bytes."""
    placed, offset = [], MIB
    for partition in partitions:
        placed.append(Placed(partition, offset))
        offset += _aligned(partition.size)
    return placed, offset + MIB


def partition_table(placed: Sequence[Placed], seed: str) -> str:
    """The sfdisk(8) script of the disk."""
    lines = ["label: gpt", f"label-id: {named_uuid(seed, 'disk')}", "unit: sectors", "first-lba: 2048"]
    for number, item in enumerate(placed):
        part = item.partition
        lines.append(
            f"start={item.offset // SECTOR}, size={_aligned(part.size) // SECTOR}, "
            f"type={PARTITION_TYPES[part.type]}, "
            f'uuid={named_uuid(seed, f"partition-{number}-{part.label}")}, name="{part.label}"'
        )
    return "\n".join(lines) + "\n"


def disk_image(
    *,
    arch: str,
    seed: str,
    root: RootImage,
    uki: Path,
    packs: Sequence[Pack],
    state_size: int,
    directory: Path,
    tools: Sandbox,
) -> Path:
    """`disk.img`: a sparse file with the partition table and every partition's content."""
    esp = _system_partition(uki, seed, directory, tools)
    partitions = [
        Partition("esp", "esp", ESP_SIZE, esp),
        Partition(seed, f"root-{arch}", root.image.stat().st_size, root.image),
        Partition(f"{seed}_verity", f"root-verity-{arch}", root.tree.stat().st_size, root.tree),
        *(Partition(pack.ref.label, "linux", pack.path.stat().st_size, pack.path) for pack in packs),
        *([Partition(STATE_LABEL, "linux", state_size, None)] if state_size else []),
    ]
    placed, size = layout(partitions)
    target = directory / DISK
    with target.open("wb") as disk:
        disk.truncate(size)
        for item in placed:
            if item.partition.content is not None:
                _copy(item.partition.content, disk.fileno(), item.offset)
    commands = ['sfdisk --quiet --no-reread --no-tell-kernel "$1"']
    if state_size:
        uuid = named_uuid(seed, "state")
        extended = f"offset={placed[-1].offset},hash_seed={uuid},root_owner=0:0,{LAZY}"
        # 4 KiB blocks: with smaller ones growing the file system takes minutes. With fs-verity a model's
        # files can be sealed: each later read is checked by the kernel against what was verified.
        commands.append(
            f"mke2fs -q -t ext4 -O verity -L {STATE_LABEL} -U {uuid} -b 4096 -m 0 "
            f'-E {extended} -F "$1" {state_size // 1024}k'
        )
    tools.run(
        ["sh", "-euc", "\n".join(commands), "disk", str(target)],
        input=partition_table(placed, seed).encode(),
        writable=[directory],
        what="writing the partition table",
    )
    esp.unlink()
    return target


def replace_uki(disk: Path, uki: Path, seed: str, directory: Path, tools: Sandbox) -> None:
    """Put another UKI in the EFI system partition of a disk that `disk_image` made with this seed."""
    esp = _system_partition(uki, seed, directory, tools)
    placed, _ = layout([Partition("esp", "esp", ESP_SIZE, esp)])
    with disk.open("r+b") as file:
        _copy(esp, file.fileno(), placed[0].offset)
    esp.unlink()


def pack_disk_name(name: str) -> str:
    """The file of a build that is the disk of one model's pack."""
    return f"pack-{name}.img"


def pack_disk(pack: Pack, target: Path, tools: Sandbox) -> Path:
    """A disk to be attached to an appliance, whose only partition is a pack; equal packs give equal bytes."""
    placed, size = layout([Partition(pack.ref.label, "linux", pack.path.stat().st_size, pack.path)])
    with target.open("wb") as disk:
        disk.truncate(size)
        _copy(pack.path, disk.fileno(), placed[0].offset)
    tools.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(target)],
        input=partition_table(placed, pack.ref.label).encode(),
        writable=[target.parent],
        what=f"writing the partition table of {target.name}",
    )
    return target


def _system_partition(uki: Path, seed: str, directory: Path, tools: Sandbox) -> Path:
    """A FAT file system whose only program is the UKI, under the name that firmware starts by itself.

    512-byte sectors: with larger ones OVMF does not find it. Times are the epoch's (`-i` and
    `--invariant` fix the volume's number; mcopy -m keeps the file's time).
    """
    target = directory / "esp.img"
    volume = named_uuid(seed, "esp").replace("-", "")[:8]
    os.utime(uki, (tools.epoch, tools.epoch))
    script = """
    truncate -s "$2" "$1"
    mkfs.vfat --invariant -S 512 -s 4 -i "$4" -n ESP "$1" >/dev/null
    mmd -i "$1" ::/EFI ::/EFI/BOOT
    mcopy -m -i "$1" "$3" ::/EFI/BOOT/BOOTX64.EFI
    """
    tools.run(
        ["sh", "-euc", script, "esp", str(target), str(ESP_SIZE), str(uki), volume],
        writable=[directory],
        env={"MTOOLS_SKIP_CHECK": "1"},
        what="making the EFI system partition",
    )
    return target


def _copy(source: Path, disk: int, offset: int) -> None:
    with source.open("rb") as file:
        left = source.stat().st_size
        while left:
            try:
                done = os.copy_file_range(file.fileno(), disk, left, None, offset)
            except OSError:  # between file systems older kernels refuse it
                done = os.pwrite(disk, os.read(file.fileno(), 4 * MIB), offset)
            left -= done
            offset += done


def _aligned(size: int) -> int:
    return -(-size // MIB) * MIB
