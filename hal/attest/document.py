"""The document that `GET /attestation` answers with, read; nothing of it is believed yet."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hal.attest.checks import UnverifiableError
from hal.attest.policy import PLATFORMS
from hal.attest.report_data import NONCE_BYTES

VERSION = 1
NAME = "document"
"""The name of the check."""

PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sev-snp": (("report",), ("auxiliary",)),
    "tdx": (("quote",), ("event_log",)),
    "tpm": (("quote", "signature", "key", "event_log"), ()),
    "none": ((), ()),
}
"""The parts of evidence per platform: those that must be there, and those that may be."""


@dataclass(frozen=True)
class EvidenceDocument:
    """What an appliance says of itself: `evidence` by its parts, `collateral` that helps to verify it.

    `manifest` is the file /usr/lib/hal/manifest.json of its root, byte by byte.
    """

    platform: str
    nonce: bytes
    tls_key_sha256: bytes
    manifest_sha256: bytes
    report_data: bytes
    manifest: bytes
    debug: bool
    evidence: Mapping[str, bytes]
    collateral: Mapping[str, Any] | None


def read_evidence_document(text: bytes) -> EvidenceDocument:
    """The document in `text`.

    Raises:
        UnverifiableError: it is no such document, or of another version.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is no JSON ({error})") from None
    if not isinstance(data, dict):
        raise _wrong("is no JSON object")
    if data.get("version") != VERSION or isinstance(data.get("version"), bool):
        raise _wrong(f"has version {data.get('version')!r}; this hal reads version {VERSION}")
    platform = data.get("platform")
    if not isinstance(platform, str) or platform not in PARTS:
        raise _wrong(f"names the platform {platform!r}; known: {', '.join(PLATFORMS)}, none")
    if not isinstance(data.get("debug"), bool):
        raise _wrong("does not say whether it is of a debug image: `debug` must be true or false")
    collateral = data.get("collateral")
    if collateral is not None and not isinstance(collateral, dict):
        raise _wrong("holds `collateral` that is no object")
    return EvidenceDocument(
        platform,
        nonce=_digits(data, "nonce", NONCE_BYTES),
        tls_key_sha256=_digits(data, "tls_key_sha256", 32),
        manifest_sha256=_digits(data, "manifest_sha256", 32),
        report_data=_digits(data, "report_data", 64),
        manifest=_octets(data, "manifest"),
        debug=data["debug"],
        evidence=_evidence(data.get("evidence"), platform),
        collateral=collateral,
    )


def _evidence(data: object, platform: str) -> dict[str, bytes]:
    if not isinstance(data, dict):
        raise _wrong("has no `evidence`")
    required, optional = PARTS[platform]
    if unknown := sorted(set(data) - {*required, *optional}):
        raise _wrong(f"holds evidence that {platform} does not have: {', '.join(unknown)}")
    return {
        name: _octets(data, name)
        for name in (*required, *optional)
        if name in required or data.get(name) is not None
    }


def _digits(data: Mapping[str, Any], name: str, size: int) -> bytes:
    value = data.get(name)
    try:
        found = bytes.fromhex(value) if isinstance(value, str) and len(value) == 2 * size else b""
    except ValueError:
        found = b""
    if len(found) != size:
        raise _wrong(f"has no `{name}` of {2 * size} hexadecimal digits")
    return found


def _octets(data: Mapping[str, Any], name: str) -> bytes:
    value = data.get(name)
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise _wrong(f"has no `{name}` in base64")


def _wrong(words: str) -> UnverifiableError:
    return UnverifiableError(NAME, f"the answer {words}")
