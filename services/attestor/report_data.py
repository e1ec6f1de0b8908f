"""What evidence signs: composed here, out of the caller's nonce and what this machine is. Pure.

The verifier has its own (hal/attest/report_data.py); a test holds the two together.
"""

from __future__ import annotations

import hashlib

DOMAIN = b"hal-attestation-v1\0"
"""Nothing else that a machine ever signs begins like this."""

PART = 32
"""Bytes of each part behind the domain; a fixed size, so that no two triples give the same bytes."""


def report_data(nonce: bytes, tls_key_sha256: bytes, manifest_sha256: bytes) -> bytes:
    """sha512(domain ‖ nonce ‖ TLS key ‖ manifest): 64 bytes, as SNP and TDX take.

    Raises:
        ValueError: a part is not 32 bytes long.
    """
    parts = (nonce, tls_key_sha256, manifest_sha256)
    if any(len(part) != PART for part in parts):
        raise ValueError("each part of report data is 32 bytes long")
    return hashlib.sha512(DOMAIN + b"".join(parts)).digest()


def qualifying_data(data: bytes) -> bytes:
    """What a TPM's quote carries in the place of 64 bytes of report data: 32 fit every TPM."""
    return hashlib.sha256(data).digest()
