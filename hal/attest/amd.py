"""AMD's certificates: from a machine's key (VCEK or VLEK) up to a root that this package holds (ARK).

See AMD's "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" for names and
extensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning

from hal.attest.checks import UnverifiableError
from hal.attest.policy import Tcb

CHAIN = "certificate chain"
"""The name of the check."""

LINES = ("Milan", "Genoa", "Turin")
"""Product lines whose roots are in `hal/attest/roots`; Bergamo and Siena have Genoa's."""

_AMD = "1.3.6.1.4.1.3704.1"
_TCB = {
    "bootloader": f"{_AMD}.3.1",
    "tee": f"{_AMD}.3.2",
    "snp": f"{_AMD}.3.3",
    "microcode": f"{_AMD}.3.8",
}
_FMC = f"{_AMD}.3.9"
_HARDWARE_ID = f"{_AMD}.4"


@dataclass(frozen=True)
class Endorsement:
    """A machine's key, proven to be AMD's: the TCB that it is for, and the chip (None: a VLEK has none)."""

    kind: str
    line: str
    key: ec.EllipticCurvePublicKey
    tcb: Tcb
    chip_id: bytes | None


@dataclass(frozen=True)
class Roots:
    """A product line's ARK, and the ASK that signs its VCEKs."""

    line: str
    ark: x509.Certificate
    ask: x509.Certificate


def load_der(data: bytes) -> x509.Certificate:
    """A certificate in DER. AMD gave VCEKs the serial number 0, at which the library frowns and we do not.

    Raises:
        UnverifiableError: it is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            return x509.load_der_x509_certificate(data)
        except ValueError as error:
            raise UnverifiableError(CHAIN, f"a certificate cannot be read: {error}") from None


@cache
def amd_roots() -> tuple[Roots, ...]:
    """The roots of this package, one of each product line."""
    found = []
    for line in LINES:
        text = files("hal.attest").joinpath("roots", f"amd-{line.lower()}.pem").read_bytes()
        ask, ark = x509.load_pem_x509_certificates(text)
        found.append(Roots(line, ark, ask))
    return tuple(found)


def verify_chain(
    leaf: bytes,
    intermediates: Iterable[bytes],
    crl: bytes | None,
    now: datetime,
    roots: Iterable[Roots],
) -> Endorsement:
    """The machine's key in the certificate `leaf` (DER).

    `intermediates` are certificates that the machine gave: a VLEK's issuer is among them. `crl` is AMD's
    revocation list of the product line, when the machine gave one.

    Raises:
        UnverifiableError: it does not lead to one of `roots`, is not valid now, or was revoked.
    """
    certificate = load_der(leaf)
    kind = common_name(certificate.subject).removeprefix("SEV-")
    if kind not in ("VCEK", "VLEK"):
        raise UnverifiableError(
            CHAIN,
            f"the certificate is of {certificate.subject.rfc4514_string()}, neither a VCEK nor a VLEK",
        )
    issuer, root = _issuer(certificate, kind, intermediates, tuple(roots))
    for one in (certificate, issuer, root.ark):
        _check_validity(one, now)
    if crl is not None:
        _check_revocation(crl, (certificate, issuer), root.ark, now)
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise UnverifiableError(CHAIN, f"the {kind}'s key is not of the curve P-384")
    return Endorsement(kind, root.line, key, _tcb(certificate, root.line), _chip(certificate, kind))


def _issuer(
    certificate: x509.Certificate, kind: str, intermediates: Iterable[bytes], roots: tuple[Roots, ...]
) -> tuple[x509.Certificate, Roots]:
    name = common_name(certificate.issuer)
    for root in roots:
        expected = f"SEV-{root.line}" if kind == "VCEK" else f"SEV-VLEK-{root.line}"
        if name != expected:
            continue
        known = [root.ask] if kind == "VCEK" else [load_der(one) for one in intermediates]
        for issuer in known:
            if issuer.subject != certificate.issuer or not _signed(issuer, root.ark):
                continue
            if _signed(certificate, issuer) and _is_authority(issuer):
                return issuer, root
        raise UnverifiableError(
            CHAIN, f"the {kind} is not signed by {name}, which AMD's root {root.line} vouches for"
        )
    raise UnverifiableError(
        CHAIN,
        f"the {kind}'s issuer is {name or 'nobody'}; hal holds roots for {', '.join(r.line for r in roots)}",
    )


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _check_validity(certificate: x509.Certificate, now: datetime) -> None:
    name = common_name(certificate.subject)
    if now < certificate.not_valid_before_utc:
        raise UnverifiableError(
            CHAIN, f"the certificate of {name} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}"
        )
    if now > certificate.not_valid_after_utc:
        raise UnverifiableError(
            CHAIN, f"the certificate of {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        )


def _check_revocation(
    data: bytes, certificates: tuple[x509.Certificate, ...], ark: x509.Certificate, now: datetime
) -> None:
    try:
        crl = x509.load_der_x509_crl(data)
    except ValueError as error:
        raise UnverifiableError(CHAIN, f"the revocation list cannot be read: {error}") from None
    if not _crl_signed(crl, ark):
        raise UnverifiableError(CHAIN, f"the revocation list is not signed by {common_name(ark.subject)}")
    until = crl.next_update_utc
    if now < crl.last_update_utc or until is None or now > until:
        raise UnverifiableError(
            CHAIN, f"the revocation list is not of these days ({crl.last_update_utc:%Y-%m-%d} to {until})"
        )
    for certificate in certificates:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            serial = certificate.serial_number
        # The list is the ARK's: a serial number in it is one of those that the ARK gave.
        if certificate.issuer == ark.subject and crl.get_revoked_certificate_by_serial_number(serial):
            raise UnverifiableError(
                CHAIN, f"AMD revoked the certificate of {common_name(certificate.subject)}"
            )


def _crl_signed(crl: x509.CertificateRevocationList, ark: x509.Certificate) -> bool:
    key = ark.public_key()
    if crl.issuer != ark.subject or not isinstance(key, rsa.RSAPublicKey):
        return False
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
    try:
        key.verify(crl.signature, crl.tbs_certlist_bytes, pss, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def common_name(name: x509.Name) -> str:
    """The one common name; empty where there is none, or more than one."""
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _tcb(certificate: x509.Certificate, line: str) -> Tcb:
    parts = dict(_TCB, fmc=_FMC) if line == "Turin" else _TCB
    values = {}
    for part, oid in parts.items():
        value = _extension(certificate, oid)
        # DER of an INTEGER from 0 to 255: a byte of 0x80 and above has a zero before it.
        content = value[2:]
        if value[:1] != b"\x02" or len(content) != value[1] or not 1 <= len(content) <= 2:
            raise UnverifiableError(CHAIN, f"the certificate's extension {oid} ({part}) is no small number")
        values[part] = int.from_bytes(content, "big")
        if values[part] > 255:
            raise UnverifiableError(
                CHAIN, f"the certificate's extension {oid} ({part}) is no number of one byte"
            )
    return Tcb(**values)


def _chip(certificate: x509.Certificate, kind: str) -> bytes | None:
    return _extension(certificate, _HARDWARE_ID) if kind == "VCEK" else None


def _extension(certificate: x509.Certificate, oid: str) -> bytes:
    try:
        found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise UnverifiableError(CHAIN, f"the certificate lacks AMD's extension {oid}") from None
    if not isinstance(found, x509.UnrecognizedExtension) or len(found.value) < 2:
        raise UnverifiableError(CHAIN, f"the certificate's extension {oid} is not AMD's")
    return found.value
