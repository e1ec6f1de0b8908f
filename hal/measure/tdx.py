"""TDX's registers for an appliance: MRTD by the firmware, RTMR 1 and 2 by what the firmware starts.

RTMR 0 is not computed (see RTMR0); RTMR 3 is zeros, since nothing in the appliance extends it. Which register
an event goes to: PCR 2 to 6 are RTMR 1, PCR 8 to 15 are RTMR 2 (Intel TDX Virtual Firmware Design Guide,
8.2.2).

The order of events is what two releases of edk2 log, each seen under QEMU with a TPM, whose log comes from
the same code; on TDX hardware it was not seen (docs/measurements.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hal.measure import pe, tdvf
from hal.measure.document import TdxPart, TdxRegisters
from hal.measure.registers import SEPARATOR, Algorithm, digest, replayed
from hal.measure.snp import DirectBoot
from hal.measure.tpm import BOOT_OPTION, kernel_of
from hal.measure.uki import initrd_handed_on, section_digests

BANK: Algorithm = "sha384"

RTMR0 = (
    "it holds the memory map, the ACPI tables and the boot options, into which go QEMU's version, every "
    "device and the host's CPU: read it on a machine that you trust and give it with `--rtmr0`"
)

EXIT = b"Exit Boot Services Invocation"
EXIT_FAILED = b"Exit Boot Services Returned with Failure"
EXIT_DONE = b"Exit Boot Services Returned with Success"


@dataclass(frozen=True)
class Behaviour:
    """What differs between releases of edk2: where its word on the command line stands, and how it ends."""

    name: str
    initrd_word_first: bool
    leaving: tuple[bytes, ...]

    def load_options(self, cmdline: str) -> bytes:
        """The command line as the kernel measures it: with the firmware's word, in UTF-16, ended by zero."""
        words = ("initrd=initrd", cmdline) if self.initrd_word_first else (cmdline, "initrd=initrd")
        return _utf16(" ".join(words))


BEHAVIOURS = (
    Behaviour("edk2-2025.02", False, (EXIT, EXIT_DONE)),
    # Its first attempt to leave boot services was seen to fail each time, and the kernel's second to succeed.
    Behaviour("edk2-2026.08", True, (EXIT, EXIT_FAILED, EXIT, EXIT_DONE)),
)


def parts(firmware: Path, boot: DirectBoot, uki: bytes, partitions: bytes) -> Iterator[TdxPart]:
    """All but RTMR 0 for direct boot and for the UKI, for each behaviour of the firmware.

    `partitions` is the partition table's event (hal.measure.gpt), which only a boot from the disk measures.

    Raises:
        HalError: the firmware is not made for TDX.
    """
    content = firmware.read_bytes()
    common = {
        "firmware_sha256": hashlib.sha256(content).hexdigest(),
        "mrtd": tdvf.mrtd(content, str(firmware)),
        "rtmr3": _register([]),
    }
    program = pe.parse(uki, "uki.efi")
    unified = {"rtmr2": _unified_loaded(program, boot.cmdline), **common}
    kernel, initrd = boot.kernel.read_bytes(), boot.initrd.read_bytes()
    for behaviour in BEHAVIOURS:
        loaded = _digests(behaviour.load_options(boot.cmdline), initrd)
        registers = {"rtmr1": _direct(behaviour, kernel), "rtmr2": _register(loaded), **common}
        yield TdxPart(boot="direct", behaviour=behaviour.name, **registers)
        started = _unified(behaviour, program, partitions)
        yield TdxPart(boot="uki", behaviour=behaviour.name, rtmr1=started, **unified)


def whole(part: TdxPart, rtmr0: str, vcpus: int, memory: int) -> TdxRegisters:
    """The registers with an RTMR 0 that was read on a machine of this shape, booted in this way."""
    return TdxRegisters(**part.model_dump(), rtmr0=rtmr0, vcpus=vcpus, memory=memory)


def _direct(behaviour: Behaviour, kernel: bytes) -> str:
    """RTMR 1 when QEMU hands over the kernel, unaltered, as it does for confidential machines."""
    program = pe.parse(kernel, "vmlinuz")
    return _register([program.authenticode(BANK), *_digests(BOOT_OPTION, SEPARATOR, *behaviour.leaving)])


def _unified(behaviour: Behaviour, uki: pe.Program, partitions: bytes) -> str:
    """RTMR 1 when firmware starts the UKI from the disk."""
    started = [uki.authenticode(BANK), kernel_of(uki).authenticode(BANK)]
    return _register([*_digests(BOOT_OPTION, SEPARATOR, partitions), *started, *_digests(*behaviour.leaving)])


def _unified_loaded(uki: pe.Program, cmdline: str) -> str:
    """RTMR 2 when it is the UKI: its sections, then the command line and the initrd that the kernel gets."""
    loaded = _digests(_utf16(cmdline), initrd_handed_on(uki))
    return _register([*section_digests(uki, BANK), *loaded])


def _utf16(cmdline: str) -> bytes:
    return f"{cmdline}\0".encode("utf-16-le")


def _digests(*events: bytes) -> Iterator[bytes]:
    return (digest(BANK, event) for event in events)


def _register(digests: Iterable[bytes]) -> str:
    return replayed(BANK, digests).hex()
