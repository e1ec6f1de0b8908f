"""A TPM's PCRs after OVMF has started the appliance's UKI from its disk.

PCR 4  what firmware starts: the UKI, and the kernel in it, which the stub has firmware load; with secure boot
       on, the stub vouches for the kernel in firmware's place, and the UKI alone is measured
PCR 11 the UKI's sections, by systemd-stub
PCR 12 what the host gives the stub beside the UKI (command line, credentials, extensions): nothing, so zeros

Source: TCG PC Client Platform Firmware Profile, 3.3.4 (PCR usage); systemd-stub(7). A booted
appliance has them: tests/appliance/test_measurements.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from hal.errors import HalError
from hal.measure import pe
from hal.measure.registers import SEPARATOR, Algorithm, digest, replayed
from hal.measure.uki import section_digests

BANK: Algorithm = "sha256"
"""The bank of PCRs that every TPM 2.0 has, and that quotes are made of."""

BOOT_OPTION = b"Calling EFI Application from Boot Option"
"""What firmware measures when it turns to the boot options (EV_EFI_ACTION)."""


def pcrs(uki: bytes, *, secure_boot: bool = False) -> Mapping[str, str]:
    """PCR 4, 11 and 12, in hex, for an appliance that is started as this UKI, with secure boot on or off."""
    program = pe.parse(uki, "uki.efi")
    kernel = kernel_of(program).authenticode(BANK)
    loaded = [program.authenticode(BANK), *([] if secure_boot else [kernel])]
    started = [digest(BANK, BOOT_OPTION), digest(BANK, SEPARATOR), *loaded]
    return {
        "4": replayed(BANK, started).hex(),
        "11": replayed(BANK, section_digests(program, BANK)).hex(),
        "12": replayed(BANK, []).hex(),
    }


def kernel_of(uki: pe.Program) -> pe.Program:
    """The kernel in a UKI, an EFI program itself.

    Raises:
        HalError: there is none.
    """
    linux = uki.content(".linux")
    if linux is None:
        raise HalError("uki.efi: no kernel in it", "build it again: `hal build SPEC`")
    return pe.parse(linux, "the kernel in uki.efi")
