"""Asking vendors for collateral, where a user wants that: AMD's key distribution service, Intel's PCS.

Source: AMD's "VCEK Certificate and KDS Interface Specification" (57230), chapter 4. Intel: dcap-qvl.
What comes is not believed: verification checks its signatures.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from hal.attest.amd import LINES
from hal.attest.checks import MalformedError, UnverifiableError
from hal.attest.collateral import Collateral
from hal.attest.collateral_file import parse_collateral
from hal.attest.document import EvidenceDocument
from hal.attest.snp_report import SIGNED_BY, SnpReport, parse_snp_report, tcb_of
from hal.errors import HalError

if TYPE_CHECKING:
    import requests

AMD = "https://kdsintf.amd.com"
INTEL = "https://api.trustedservices.intel.com"

ATTEMPTS = 4
LONGEST_WAIT = 30.0
"""Seconds: AMD's service answers 429 to whom asks more often than every ten."""

MOST_BYTES = 1 << 20
TURIN_CHIP = 8
"""Bytes of a Turin's identifier; the report has zeros behind them."""

Sleep = Callable[[float], None]


def fetch_collateral(
    document: EvidenceDocument, *, amd: str = AMD, intel: str = INTEL, timeout: float = 30.0
) -> Collateral:
    """What the vendor publishes for the machine that made this evidence. Nothing is verified here.

    `amd` and `intel` are base URLs: the vendors' own, or those of a cache (PCCS). `timeout` in seconds.

    Raises:
        HalError: the vendor cannot be reached or has nothing of this machine, or the evidence needs nothing.
    """
    try:
        if document.platform == "sev-snp":
            return KeyServer(amd, timeout).collateral(parse_snp_report(document.evidence["report"]))
        if document.platform == "tdx":
            return Collateral(tdx=_intel(document.evidence["quote"], intel, timeout))
    except MalformedError as error:
        raise HalError(f"the appliance's evidence cannot be read: {error}") from None
    raise HalError(f"evidence of the platform {document.platform!r} needs no collateral", "verify it without")


def _intel(quote: bytes, base: str, timeout: float) -> dict[str, object]:
    import dcap_qvl

    async def ask() -> str:
        found = await asyncio.wait_for(dcap_qvl.get_collateral(base, quote), timeout)
        return str(found.to_json())

    try:
        parts: dict[str, object] = json.loads(asyncio.run(ask()))
    except TimeoutError:
        raise HalError(f"{base} gave no collateral within {timeout:.0f} s", "try again later") from None
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise HalError(
            f"{base} gave no collateral: {reason}", "is it Intel's service, or a cache of it?"
        ) from None
    return parts


class KeyServer:
    """AMD's key distribution service at a base URL."""

    def __init__(self, base: str, timeout: float, sleep: Sleep = time.sleep) -> None:
        from hal.fetch.http import new_session

        self._base = base.rstrip("/")
        self._timeout = timeout
        self._sleep = sleep
        self._session: requests.Session = new_session()

    def collateral(self, report: SnpReport) -> Collateral:
        """The certificate of the chip that made a report, and AMD's revocation list; for a report by a VLEK,
        which AMD gives to clouds alone, that key's issuer and the list.

        Raises:
            HalError: the service does not know the chip, cannot be reached, or answers something else.
        """
        kind = SIGNED_BY.get(report.signing_key)
        if kind is None:
            raise HalError("no key signed the report: there is nothing to ask AMD for")
        if kind == "VCEK" and not any(report.chip_id):
            raise HalError(
                "the host hides the chip's number (MASK_CHIP_ID): AMD cannot be asked for its certificate",
                "have the host give its certificate table to guests",
            )
        lines = (report.line,) if report.line else LINES
        for line in lines:
            first = self._get(vcek_path(report, line) if kind == "VCEK" else f"/vlek/v1/{line}/cert_chain")
            if first is not None:
                crl = self._get(f"/{kind.lower()}/v1/{line}/crl")
                return self._read(first) | (Collateral() if crl is None else self._read(crl))
        raise HalError(
            f"{self._base} has no certificate of this chip at this TCB (asked as {', '.join(lines)})",
            "the host's firmware may be newer than AMD's service knows, or the report is no real one",
        )

    def _read(self, data: bytes) -> Collateral:
        try:
            return parse_collateral(data)
        except (UnverifiableError, ValueError) as error:
            raise HalError(f"{self._base} answered what is no certificate: {error}") from None

    def _get(self, path: str) -> bytes | None:
        """The answer; None where there is no such thing."""
        import requests

        url = f"{self._base}{path}"
        for waited in self._waits():
            try:
                with self._session.get(url, timeout=self._timeout, stream=True) as answer:
                    if answer.status_code in (400, 404):
                        return None
                    if answer.status_code == 200:
                        return self._body(url, answer)
                    status, after = answer.status_code, answer.headers.get("Retry-After", "")
            except requests.RequestException as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
                raise HalError(
                    f"{url}: {reason}", "is there a way to it? `--collateral FILE` needs none"
                ) from None
            if status not in (429, 502, 503, 504):
                raise HalError(f"{url} answered {status}", "try again later")
            self._sleep(min(float(after) if after.isdigit() else waited, LONGEST_WAIT))
        raise HalError(f"{url} answered {status}, {ATTEMPTS} times", "try again in some minutes")

    def _waits(self) -> Iterator[float]:
        return (2.0 * 2**number for number in range(ATTEMPTS))

    @staticmethod
    def _body(url: str, answer: requests.Response) -> bytes:
        body = b""
        for part in answer.iter_content(1 << 16):
            body += part
            if len(body) > MOST_BYTES:
                raise HalError(f"{url} answered more than {MOST_BYTES >> 20} MiB")
        return body


def vcek_path(report: SnpReport, line: str) -> str:
    """Where AMD's service has the certificate of a report's chip at the report's TCB."""
    tcb = tcb_of(report.reported_tcb, line)
    chip = report.chip_id[:TURIN_CHIP] if line == "Turin" else report.chip_id
    parts = {"fmcSPL": tcb.fmc} if line == "Turin" else {}
    parts |= {"blSPL": tcb.bootloader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
    levels = urlencode({name: f"{value:02d}" for name, value in parts.items()})
    return f"/vcek/v1/{line}/{chip.hex()}?{levels}"
