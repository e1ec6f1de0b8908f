"""What a user may ask `hal measure` for beyond what a build knows: firmware, and shapes of machines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hal.errors import HalError, UsageError
from hal.measure.snp import VCPU_TYPES, VCPUS
from hal.spec.model import Machine

PLATFORMS = ("sev-snp", "tdx")
"""Platforms whose measurement begins with the firmware's own bytes."""


@dataclass(frozen=True)
class Wishes:
    """Firmware files by platform; virtual CPUs and their types for sev-snp; and for tdx RTMR 0, as read on a
    machine with the spec's own virtual CPUs and memory (in bytes)."""

    firmware: Mapping[str, Path] = field(default_factory=dict)
    vcpus: tuple[int, ...] = VCPUS
    vcpu_types: tuple[str, ...] = VCPU_TYPES
    rtmr0: str | None = None
    own_vcpus: int = 1
    own_memory: int = 0


def wishes(
    machine: Machine,
    firmware: Sequence[str] = (),
    vcpus: Sequence[int] = (),
    vcpu_types: Sequence[str] = (),
    rtmr0: str | None = None,
) -> Wishes:
    """What the options of `hal measure` mean for a spec with this machine.

    Raises:
        UsageError: a value is not understood.
        HalError: a firmware file cannot be read, or is not the one that its digest says.
    """
    files = dict(_firmware(value) for value in firmware)
    if rtmr0 is not None and re.fullmatch("[0-9a-f]{96}", rtmr0) is None:
        raise UsageError("--rtmr0: not understood", "96 small hexadecimal digits, as quotes have them")
    if rtmr0 is not None and "tdx" not in files:
        raise UsageError("--rtmr0 alone says nothing", "give the firmware too: `--firmware tdx=FILE`")
    counts = tuple(sorted(set(vcpus or (*VCPUS, machine.cpus))))
    types = tuple(vcpu_types) or VCPU_TYPES
    return Wishes(files, counts, types, rtmr0, machine.cpus, machine.memory)


def _firmware(value: str) -> tuple[str, Path]:
    platform, _, rest = value.partition("=")
    name, _, digest = rest.partition("#sha256=")
    if platform not in PLATFORMS or not name:
        raise UsageError(
            f"--firmware {value}: not understood",
            "PLATFORM=FILE[#sha256=DIGEST], as in sev-snp=OVMF.amdsev.fd",
        )
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise HalError(f"--firmware {name}: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if digest and found != digest.lower():
        wrong = f"--firmware {name}: its sha256 is {found}, not {digest}"
        raise HalError(wrong, "take the file that was pinned")
    return platform, Path(name)
