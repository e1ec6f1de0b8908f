"""What a verifier asks for beyond what always holds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from hal.attest.collateral import Collateral
from hal.errors import UsageError

Platform = Literal["sev-snp", "tdx", "tpm"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)

TcbStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
]
TCB_STATUSES: tuple[TcbStatus, ...] = get_args(TcbStatus)
"""Intel's words for a platform's TCB, but for Revoked, which nothing allows."""


@dataclass(frozen=True)
class Tcb:
    """The security version numbers of an AMD platform; `fmc` is Turin's alone (0 elsewhere)."""

    bootloader: int = 0
    tee: int = 0
    snp: int = 0
    microcode: int = 0
    fmc: int = 0

    def lower(self, minimum: Tcb) -> tuple[str, ...]:
        """The parts that are below `minimum`, in words."""
        return tuple(
            f"{part.name} {getattr(self, part.name)}, at least {getattr(minimum, part.name)} is asked for"
            for part in fields(self)
            if getattr(self, part.name) < getattr(minimum, part.name)
        )

    def __str__(self) -> str:
        fmc = f",fmc={self.fmc}" if self.fmc else ""
        return f"bootloader={self.bootloader},tee={self.tee},snp={self.snp},microcode={self.microcode}{fmc}"


@dataclass(frozen=True)
class Policy:
    """What a verifier accepts.

    `platform`: only this one; None: any that proves something. `minimum_tcb`: for SEV-SNP, without which
    it is refused. `tcb_statuses`: those of TDX that are accepted. `tpm_key`: the pinned attestation key as
    SubjectPublicKeyInfo (DER), without which a TPM is refused: whose TPM it is nothing else says.
    `collateral`: what the client brings along, in the place of what the appliance serves.
    """

    platform: Platform | None = None
    allow_debug: bool = False
    minimum_tcb: Tcb | None = None
    tcb_statuses: frozenset[str] = frozenset({"UpToDate"})
    tpm_key: bytes | None = None
    collateral: Collateral = field(default_factory=Collateral)


def parse_tcb(text: str) -> Tcb:
    """`bootloader=3,tee=0,snp=8,microcode=115` as it is given on a command line; parts left out are 0.

    Raises:
        UsageError: an unknown part, or a number that is none from 0 to 255.
    """
    known = {part.name for part in fields(Tcb)}
    values: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in known or name in values or not number.isascii() or not number.isdigit():
            raise UsageError(
                f"--minimum-tcb {text}: {part!r} is not understood",
                "as in bootloader=4,tee=0,snp=22,microcode=213",
            )
        values[name] = int(number)
    if any(value > 255 for value in values.values()):
        raise UsageError(f"--minimum-tcb {text}: a part is at most 255")
    return Tcb(**values)
