"""SEV-SNP's report as bytes: table ATTESTATION_REPORT of AMD's "SEV Secure Nested Paging Firmware ABI".

Versions 2 to 5 have the same fields at the same places, as far as they are read here.
"""

from __future__ import annotations

from dataclasses import dataclass

from hal.attest.checks import MalformedError
from hal.attest.policy import Tcb

SIZE = 1184
SIGNED = 0x2A0
"""The signature is over the bytes before it."""

VERSIONS = range(2, 6)
ECDSA_P384_SHA384 = 1

NUMBER = 72
"""Bytes that r and s take in the signature, least significant first."""

POLICY_MIGRATION_AGENT = 1 << 18
POLICY_DEBUG = 1 << 19

PRODUCTS = (
    ("Milan", 0x19, range(0x10)),
    ("Genoa", 0x19, range(0x10, 0x20)),
    ("Genoa", 0x19, range(0xA0, 0xB0)),  # Bergamo and Siena, whose certificates are Genoa's
    ("Turin", 0x1A, range(0x20)),
)
"""Product lines by family and models (CPUID 1, with the extended parts added)."""

SIGNED_BY = {0: "VCEK", 1: "VLEK"}
"""KEY_INFO's SIGNING_KEY; 7 means that nothing signed."""


@dataclass(frozen=True)
class SnpReport:
    """A report's fields. TCB versions stay bytes: what they mean depends on the product (see `tcb_of`).

    `line` is the product line that the report itself names, None where it names none (before version 3).
    """

    version: int
    policy: int
    vmpl: int
    signing_key: int
    line: str | None
    report_data: bytes
    measurement: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    chip_id: bytes
    signed: bytes
    r: int
    s: int

    @property
    def debug(self) -> bool:
        """Whether the guest's policy lets the host read its memory."""
        return bool(self.policy & POLICY_DEBUG)

    @property
    def migration_agent(self) -> bool:
        """Whether the guest's policy lets a migration agent carry its memory elsewhere."""
        return bool(self.policy & POLICY_MIGRATION_AGENT)


def parse_snp_report(data: bytes) -> SnpReport:
    """The report in `data`.

    Raises:
        MalformedError: another size, version or signature algorithm, or bytes set that must be zero.
    """
    if len(data) != SIZE:
        raise MalformedError(f"an SNP report has {SIZE} bytes, not {len(data)}")

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    if (version := number(0x00, 4)) not in VERSIONS:
        raise MalformedError(
            f"the SNP report has version {version}; known: {VERSIONS.start} to {VERSIONS.stop - 1}"
        )
    if (algorithm := number(0x34, 4)) != ECDSA_P384_SHA384:
        raise MalformedError(
            f"the SNP report is signed by algorithm {algorithm}; known: 1 (ECDSA P-384, SHA-384)"
        )
    if any(data[SIGNED + 2 * NUMBER :]):
        raise MalformedError("bytes behind the SNP report's signature are not zero")
    return SnpReport(
        version=version,
        policy=number(0x08, 8),
        vmpl=number(0x30, 4),
        signing_key=number(0x48, 4) >> 2 & 7,
        line=_line(data[0x188], data[0x189]) if version >= 3 else None,
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        current_tcb=data[0x38:0x40],
        reported_tcb=data[0x180:0x188],
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=data[0x1E0:0x1E8],
        launch_tcb=data[0x1F0:0x1F8],
        signed=data[:SIGNED],
        r=number(SIGNED, NUMBER),
        s=number(SIGNED + NUMBER, NUMBER),
    )


def _line(family: int, model: int) -> str | None:
    """The product line of a processor (CPUID_FAM_ID, CPUID_MOD_ID), by whose name AMD has its roots."""
    return next((line for line, known, models in PRODUCTS if family == known and model in models), None)


def tcb_of(value: bytes, line: str) -> Tcb:
    """A TCB_VERSION of 8 bytes; `line` is the product line ("Milan"). Turin moved everything by one byte."""
    if line == "Turin":
        return Tcb(fmc=value[0], bootloader=value[1], tee=value[2], snp=value[3], microcode=value[7])
    return Tcb(bootloader=value[0], tee=value[1], snp=value[6], microcode=value[7])
