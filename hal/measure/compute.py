"""From a build's files to its measurements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hal.measure import gpt, snp, tdx, tpm
from hal.measure.document import (
    Image,
    Inputs,
    Measurements,
    Parts,
    Platform,
    Platforms,
    Refusal,
    SnpLaunch,
    TdxPart,
    TdxRegisters,
    TpmPcrs,
)
from hal.measure.shapes import Wishes
from hal.packs.reference import PackRef

OVMF = Path("usr/share/OVMF/OVMF_CODE_4M.fd")
"""The UEFI firmware that `hal boot --firmware` starts, in the tools tree: the lock pins its package."""

NO_FIRMWARE = (
    "no firmware is given, and the lock has none: Debian 13 ships none that is made for {platform}. "
    "`hal measure SPEC --firmware {platform}=FILE` computes it"
)


FIRST_VALUES: tuple[tuple[Platform, str], ...] = (("sev-snp", "launch_digest"), ("tdx", "mrtd"))
"""What a platform measures of its firmware."""


@dataclass(frozen=True)
class Files:
    """A build's files that are measured, and the firmware of its TPM boots."""

    kernel: Path
    initrd: Path
    uki: Path
    disk: Path
    cmdline: str
    ovmf: Path

    @classmethod
    def of(cls, directory: Path, tools: Path) -> Files:
        """Those of a build's directory; `tools` is the tools tree."""
        return cls(
            directory / "vmlinuz",
            directory / "initrd",
            directory / "uki.efi",
            directory / "disk.img",
            (directory / "cmdline").read_text().rstrip("\n"),
            tools / OVMF,
        )

    @property
    def direct(self) -> snp.DirectBoot:
        """What QEMU gets to boot directly."""
        return snp.DirectBoot(self.kernel, self.initrd, self.cmdline)


def of_build(
    image: Image, root_hash: str, packs: Iterable[PackRef], manifest: str, files: Files
) -> Measurements:
    """The measurements that follow from a build alone; `manifest` is the text of its manifest in the image.

    Raises:
        HalError: a file is not what hal builds.
    """
    plain = Measurements(
        image=image,
        root_hash=root_hash,
        packs=named(packs),
        manifest_sha256=_sha256(manifest.encode()),
        inputs=Inputs(
            kernel=_sha256(files.kernel.read_bytes()),
            initrd=_sha256(files.initrd.read_bytes()),
            command_line=files.cmdline,
            uki=_sha256(files.uki.read_bytes()),
            partition_table=_sha256(gpt.event(files.disk)),
        ),
        platforms=Platforms(),
    )
    return with_firmware(plain, files, Wishes())


def with_firmware(known: Measurements, files: Files, wishes: Wishes) -> Measurements:
    """The same with the values of platforms whose firmware is given.

    Raises:
        HalError: a firmware is not made for its platform.
    """
    firmware, uki = wishes.firmware, files.uki.read_bytes()
    launches: tuple[SnpLaunch, ...] = ()
    if "sev-snp" in firmware:
        launches = snp.launches(firmware["sev-snp"], files.direct, wishes.vcpus, wishes.vcpu_types)
    parts: tuple[TdxPart, ...] = ()
    if "tdx" in firmware:
        parts = tuple(tdx.parts(firmware["tdx"], files.direct, uki, gpt.event(files.disk)))
    registers: list[TdxRegisters] = []
    if wishes.rtmr0 is not None:
        registers = [
            tdx.whole(part, wishes.rtmr0, wishes.own_vcpus, wishes.own_memory)
            for part in parts
            if part.boot == "direct"  # as `hal boot --tee tdx` does; other boot options are another RTMR 0
        ]
    platforms = Platforms(
        sev_snp=launches,
        tdx=tuple(registers),
        tpm=(
            TpmPcrs(firmware_sha256=_sha256(files.ovmf.read_bytes()), pcrs=tpm.pcrs(uki)),
            TpmPcrs(secure_boot=True, pcrs=tpm.pcrs(uki, secure_boot=True)),
        ),
    )
    changes = {"platforms": platforms, "partial": Parts(tdx=parts), "refused": tuple(_refused(wishes))}
    return known.model_copy(update=changes)


def _refused(wishes: Wishes) -> Iterator[Refusal]:
    for platform, value in FIRST_VALUES:
        if platform not in wishes.firmware:
            yield Refusal(platform=platform, value=value, why=NO_FIRMWARE.format(platform=platform))
    if "tdx" in wishes.firmware and wishes.rtmr0 is None:
        yield Refusal(platform="tdx", value="rtmr0", why=tdx.RTMR0)


def named(packs: Iterable[PackRef]) -> Mapping[str, str]:
    """The root hash of each pack by its name; an engine and a model of one name are told apart by kind."""
    refs = list(packs)
    names = [ref.name for ref in refs]
    return {
        f"{ref.kind}:{ref.name}" if names.count(ref.name) > 1 else ref.name: ref.root_hash for ref in refs
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
