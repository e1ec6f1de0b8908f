"""What a verifier expects: `measurements.json` of a build, with what it must say of TPMs at least."""

from __future__ import annotations

from pathlib import Path

from hal.errors import HalError
from hal.measure.document import Measurements, SnpLaunch, TdxRegisters, TpmPcrs, read

__all__ = ["Measurements", "SnpLaunch", "TdxRegisters", "TpmPcrs", "pcr_values", "read_measurements", "words"]

NEEDED_PCRS = frozenset({4, 11, 12})
"""Without these, a TPM's entry would not say what was booted, nor with which command line."""

PCRS = range(24)


def read_measurements(path: Path) -> Measurements:
    """The measurements in `path`, or of the build in that directory.

    Raises:
        HalError: it is no such file, or a TPM's entry lacks what makes it worth something.
    """
    found = read(path)
    for shape in found.platforms.tpm:
        pcr_values(shape)
    return found


def pcr_values(shape: TpmPcrs) -> dict[int, bytes]:
    """The PCRs of an entry, by number.

    Raises:
        HalError: a number that no PCR has, or one of those missing that say what was booted.
    """
    found = {
        int(number): bytes.fromhex(value)
        for number, value in shape.pcrs.items()
        if number.isascii() and number.isdigit() and int(number) in PCRS
    }
    missing = sorted(NEEDED_PCRS - found.keys())
    if missing or len(found) != len(shape.pcrs):
        raise HalError(
            f"measurements of a TPM name the PCRs {', '.join(shape.pcrs) or 'none'}",
            f"they need {', '.join(map(str, sorted(NEEDED_PCRS)))}, which say what was booted, to 23",
        )
    return dict(sorted(found.items()))


def words(shape: SnpLaunch | TdxRegisters) -> str:
    """A machine's shape in a few words."""
    firmware = f"firmware {shape.firmware_sha256[:12]}…"
    if isinstance(shape, SnpLaunch):
        return f"{shape.vcpus} vCPUs {shape.vcpu_type}, {firmware}"
    return f"{shape.boot} boot, {shape.vcpus} vCPUs, {shape.memory >> 20} MiB, {firmware}"
