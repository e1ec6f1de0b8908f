"""What evidence signs: the server composes it, a client gives only the nonce."""

from __future__ import annotations

import hashlib

DOMAIN = b"hal-attestation-v1\0"
"""Nothing else that a machine ever signs begins like this."""

NONCE_BYTES = 32


def report_data(nonce: bytes, tls_key_sha256: bytes, manifest_sha256: bytes) -> bytes:
    """sha512(domain ‖ nonce ‖ TLS key ‖ manifest): the 64 bytes that fit SNP's and TDX's report data.

    `tls_key_sha256` is taken over the key's SubjectPublicKeyInfo (DER).

    Raises:
        ValueError: a part is not 32 bytes long; then two different triples could give the same bytes.
    """
    parts = (nonce, tls_key_sha256, manifest_sha256)
    if any(len(part) != NONCE_BYTES for part in parts):
        raise ValueError("each part of report data is 32 bytes long")
    return hashlib.sha512(DOMAIN + b"".join(parts)).digest()


def qualifying_data(data: bytes) -> bytes:
    """What a TPM's quote carries in the place of 64 bytes of report data: 32 fit every TPM."""
    return hashlib.sha256(data).digest()
