"""The library behind `hal verify`: verified appliances for Python programs.

    from hal.verify import attested_client
    http = attested_client("https://10.0.0.5:7001", "measurements.json", platform="tdx")
    client = openai.OpenAI(base_url="https://10.0.0.5:7001/v1", api_key=TOKEN, http_client=http)

A client verifies once, when it is made, and then talks only to the key that was verified. An appliance makes
its key at boot: after a restart the client's connections fail, and a new client verifies anew.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal.attest.collateral_file import read_collateral
from hal.attest.policy import Policy, Tcb
from hal.attest.tpm import read_tpm_key
from hal.errors import HalError
from hal.measure.document import Measurements, read

if TYPE_CHECKING:
    import httpx
    import requests

    from hal.attest.collateral import Collateral
    from hal.attest.verdict import Verdict

__all__ = [
    "NotVerifiedError",
    "Policy",
    "Tcb",
    "attested_async_client",
    "attested_client",
    "attested_session",
    "fetch_collateral",
    "read_collateral",
    "read_measurements",
    "read_tpm_key",
    "verify",
]

TIMEOUT = 30.0
"""Seconds for connecting and for each step of an answer: a TPM takes about one to sign."""


class NotVerifiedError(HalError):
    """An appliance that failed verification; `verdict` tells all of it, `details` each check that failed."""

    def __init__(self, url: str, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(
            f"{url} is not verified",
            details=tuple(f"{check.name}: {check.words}" for check in verdict.failures),
        )


def read_measurements(path: Path, key: Path | None = None) -> Measurements:
    """The measurements in a file, or of the build in a directory; with a public `key` (PEM) only if it has
    signed them (`hal sign --key`).

    Raises:
        HalError: they cannot be read, or are not signed by that key.
    """
    if key is None:
        return read(path)
    from hal.measure.document import parse, place
    from hal.signing.signatures import check_signed, read_public_key

    file = place(path)
    return parse(check_signed(file, read_public_key(key)), file)


def verify(
    url: str, measurements: str | Path | Measurements, policy: Policy | None = None, timeout: float = TIMEOUT
) -> Verdict:
    """Ask the appliance at `url` for evidence, with a nonce never used before, and judge it.

    Raises:
        HalError: it gave no answer, or the measurements cannot be read. What is wrong with an answer is in
            the verdict.
    """
    from hal.attest.connection import fetch_document, parse_place
    from hal.attest.report_data import NONCE_BYTES
    from hal.attest.verdict import Asked, judge

    place = parse_place(url)
    expected = measurements if isinstance(measurements, Measurements) else read(Path(measurements))
    nonce = secrets.token_bytes(NONCE_BYTES)
    text, key = fetch_document(place, nonce, timeout)
    return judge(text, Asked(nonce, key), expected, policy or Policy(), datetime.now(UTC))


def fetch_collateral(
    url: str, *, amd: str | None = None, intel: str | None = None, timeout: float = TIMEOUT
) -> Collateral:
    """What AMD or Intel publish about the machine of the appliance at `url`, asked for now.

    Nothing is verified by this: give it to a `Policy`. `amd` and `intel` are other base URLs than theirs.

    Raises:
        HalError: the appliance or the vendor gave no answer, or none is needed for its platform.
    """
    from hal.attest import vendors
    from hal.attest.checks import UnverifiableError
    from hal.attest.connection import fetch_document, parse_place
    from hal.attest.document import read_evidence_document
    from hal.attest.report_data import NONCE_BYTES

    text, _ = fetch_document(parse_place(url), secrets.token_bytes(NONCE_BYTES), timeout)
    try:
        document = read_evidence_document(text)
    except UnverifiableError as error:
        raise HalError(f"{url}: {error}") from None
    return vendors.fetch_collateral(
        document, amd=amd or vendors.AMD, intel=intel or vendors.INTEL, timeout=timeout
    )


def attested_session(url: str, measurements: str | Path | Measurements, **policy: Any) -> requests.Session:
    """A `requests` session whose every connection is to the appliance just verified.

    `policy` are fields of `Policy`.

    Raises:
        NotVerifiedError: a check does not hold.
    """
    from hal.attest.session import requests_session

    return requests_session(_verified(url, measurements, policy))


def attested_client(
    url: str,
    measurements: str | Path | Measurements,
    *,
    httpx_options: dict[str, Any] | None = None,
    **policy: Any,
) -> httpx.Client:
    """An `httpx` client whose every connection is to the appliance just verified.

    `policy` are fields of `Policy`, `httpx_options` are httpx's, as `{"timeout": 600}`.

    Raises:
        NotVerifiedError: a check does not hold.
    """
    from hal.attest.session import httpx_client

    return httpx_client(_verified(url, measurements, policy), httpx_options or {})


def attested_async_client(
    url: str,
    measurements: str | Path | Measurements,
    *,
    httpx_options: dict[str, Any] | None = None,
    **policy: Any,
) -> httpx.AsyncClient:
    """As `attested_client`, for asyncio; the verification itself waits."""
    from hal.attest.session import httpx_async_client

    return httpx_async_client(_verified(url, measurements, policy), httpx_options or {})


def _verified(url: str, measurements: str | Path | Measurements, policy: dict[str, Any]) -> bytes:
    verdict = verify(url, measurements, Policy(**policy))
    if not verdict.verified:
        raise NotVerifiedError(url, verdict)
    return verdict.tls_key_sha256
