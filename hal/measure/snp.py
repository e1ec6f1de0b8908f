"""SEV-SNP launch digests, through `sev-snp-measure`: the one place that knows this library.

A launch digest covers the firmware, the hashes of kernel, initrd and command line (`kernel-hashes=on`), and
the first state of every virtual CPU. So it differs by the number of CPUs and by their model's signature, and
by nothing else that the host chooses. Sources: AMD SEV-SNP Firmware ABI (56860), 8.17; QEMU's
docs/system/i386/amd-memory-encryption.rst.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.errors import HalError, UsageError
from hal.machine.command import SNP_CPU
from hal.measure.document import SnpLaunch

VCPUS = (1, 2, 4, 8, 16, 32, 64)
"""The counts that are computed unless others are asked for; a spec's own is always among them."""

VCPU_TYPES = (SNP_CPU, "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin")
"""QEMU's names of CPU models: the one that `hal boot` takes, and the generations that have SNP."""

GUEST_FEATURES = 0x1
"""SEV_FEATURES of the first CPU state: SNP is active and nothing else (AMD's APM 2, B.4; QEMU's default)."""

MENDING = "take OVMF's AmdSev build (OvmfPkg/AmdSev): it has room for the kernel's hashes"


@dataclass(frozen=True)
class DirectBoot:
    """What QEMU is given to boot directly."""

    kernel: Path
    initrd: Path
    cmdline: str


def launches(
    firmware: Path, boot: DirectBoot, vcpus: Sequence[int], vcpu_types: Sequence[str]
) -> tuple[SnpLaunch, ...]:
    """The launch digest for each number of virtual CPUs and each of their types.

    Raises:
        UsageError: a CPU type is unknown.
        HalError: the firmware is not made for SNP with a kernel that is booted directly.
    """
    from sevsnpmeasure import guest  # slow to load
    from sevsnpmeasure import vcpu_types as known
    from sevsnpmeasure.sev_mode import SevMode

    unknown = [name for name in vcpu_types if name not in known.CPU_SIGS]
    if unknown:
        raise UsageError(
            f"unknown CPU type {', '.join(unknown)}", f"known are: {', '.join(sorted(known.CPU_SIGS))}"
        )
    digest = hashlib.sha256(firmware.read_bytes()).hexdigest()
    found = []
    for vcpu_type in vcpu_types:
        for count in vcpus:
            try:
                launch = guest.calc_launch_digest(
                    SevMode.SEV_SNP,
                    count,
                    known.CPU_SIGS[vcpu_type],
                    str(firmware),
                    str(boot.kernel),
                    str(boot.initrd),
                    boot.cmdline,
                    GUEST_FEATURES,
                )
            except (RuntimeError, ValueError, AssertionError, KeyError) as error:
                reason = str(error) or "it does not end as OVMF does"
                raise HalError(f"{firmware}: not measured for sev-snp: {reason}", MENDING) from None
            found.append(
                SnpLaunch(
                    vcpus=count, vcpu_type=vcpu_type, firmware_sha256=digest, launch_digest=launch.hex()
                )
            )
    return tuple(found)
