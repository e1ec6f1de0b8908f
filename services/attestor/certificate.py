"""The digest of the key in a certificate, which evidence binds: sha256 over its SubjectPublicKeyInfo. Pure.

Certificates: RFC 5280, section 4.1. The few lines of DER here are all of it that is needed; the certificate
is the gateway's own, and a wrong digest makes evidence that nobody accepts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")

SEQUENCE, VERSION = 0x30, 0xA0
FIELDS = 5
"""Of a TBSCertificate before its key, its version left out: number, signature, issuer, validity, subject."""


class CertificateError(Exception):
    """It is no certificate; the message says so in one line."""


class _Value(NamedTuple):
    tag: int
    whole: bytes
    content: bytes


def key_digest(pem: bytes) -> bytes:
    """sha256 over the SubjectPublicKeyInfo (DER) of the first certificate in a PEM file.

    Raises:
        CertificateError: there is none.
    """
    found = _PEM.search(pem)
    if found is None:
        raise CertificateError("no certificate in PEM")
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error:
        raise CertificateError("no base64 in the certificate") from None
    certificate = next(_values(der))
    fields = [value for value in _values(next(_values(certificate.content)).content) if value.tag != VERSION]
    if certificate.tag != SEQUENCE or len(fields) <= FIELDS or fields[FIELDS].tag != SEQUENCE:
        raise CertificateError("no SubjectPublicKeyInfo where a certificate has it")
    return hashlib.sha256(fields[FIELDS].whole).digest()


def _values(data: bytes) -> Iterator[_Value]:
    """The values that stand one after the other in DER (X.690, section 8.1)."""
    start = 0
    while start < len(data) or start == 0:
        if len(data) < start + 2:
            raise CertificateError("a certificate that ends too early")
        tag, size, at = data[start], data[start + 1], start + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            raise CertificateError("a certificate that ends too early")
        yield _Value(tag, data[start : at + size], data[at : at + size])
        start = at + size
