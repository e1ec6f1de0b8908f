"""What vendors publish about machines, and verification needs: certificates, revocation lists, TCB levels.

An appliance or its host serves them along with evidence, or not; then the client has them from a file.
Their signatures are checked up to the vendor's root: nobody who brings them need be trusted.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class Collateral:
    """`snp`: VCEK, VLEK, ASK (which is a VLEK's issuer) and CRL by these names, in DER. `tdx`: the parts of
    dcap-qvl's QuoteCollateralV3, or None."""

    snp: Mapping[str, bytes] = field(default_factory=dict)
    tdx: Mapping[str, Any] | None = None

    def __or__(self, other: Collateral) -> Collateral:
        """Both; what both have is the other's."""
        return Collateral({**self.snp, **other.snp}, self.tdx if other.tdx is None else other.tdx)

    def beside(self, platform: str, served: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The collateral of an evidence document, with this one in its place where this one has some."""
        if platform == "tdx" and self.tdx is not None:
            return self.tdx
        if platform == "sev-snp" and self.snp:
            return {**(served or {}), **self._snp_in_base64()}
        return served

    def text(self) -> str:
        """The file that `hal collateral` writes."""
        platforms = {"sev-snp": self._snp_in_base64(), "tdx": self.tdx}
        known = {name: value for name, value in platforms.items() if value}
        return json.dumps({"version": VERSION, **known}, indent=1, sort_keys=True) + "\n"

    def _snp_in_base64(self) -> dict[str, str]:
        return {name.lower(): base64.b64encode(value).decode() for name, value in self.snp.items()}
