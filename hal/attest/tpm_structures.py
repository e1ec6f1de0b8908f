"""TPM 2.0 structures as bytes: TPMS_ATTEST, TPMT_SIGNATURE, TPMT_PUBLIC (TCG's TPM 2.0 Library, part 2)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hal.attest.binary import Reader
from hal.attest.checks import MalformedError
from hal.attest.eventlog import HASHES

GENERATED = 0xFF544347
"""TPM_GENERATED_VALUE: a restricted key signs no bytes from outside that begin like this."""

ST_ATTEST_QUOTE = 0x8018

ALG_RSA, ALG_ECC, ALG_NULL = 0x0001, 0x0023, 0x0010
ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA = 0x0014, 0x0016, 0x0018

FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18

CURVES: dict[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1(), 0x0005: ec.SECP521R1()}

PCRS = 24
LEAST_RSA_BITS = 2048


@dataclass(frozen=True)
class TpmQuote:
    """A TPMS_ATTEST of type quote. `selection`: the PCRs by bank, in the order in which they were hashed."""

    extra_data: bytes
    selection: tuple[tuple[str, tuple[int, ...]], ...]
    pcr_digest: bytes


@dataclass(frozen=True)
class TpmSignature:
    """A TPMT_SIGNATURE: `scheme` is an ALG_*; RSA has `signature`, ECDSA `r` and `s`."""

    scheme: int
    hash: str
    signature: bytes = b""
    r: int = 0
    s: int = 0


@dataclass(frozen=True)
class TpmKey:
    """A TPMT_PUBLIC: the key, and what the TPM lets it do."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    attributes: int

    @property
    def spki(self) -> bytes:
        """The key as SubjectPublicKeyInfo (DER)."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def parse_tpm_quote(data: bytes) -> TpmQuote:
    """The quote in a TPMS_ATTEST.

    Raises:
        MalformedError: it is none, or something else that a TPM attests.
    """
    reader = Reader(data, "TPMS_ATTEST", "big")
    if reader.integer(4) != GENERATED:
        raise MalformedError("the quote was not made by a TPM: it lacks TPM_GENERATED_VALUE")
    if (kind := reader.integer(2)) != ST_ATTEST_QUOTE:
        raise MalformedError(f"the TPM attests something else than PCRs (type {kind:#06x})")
    reader.sized()  # the name of the key that signs, qualified; the key itself is pinned
    extra_data = reader.sized()
    reader.take(8 + 4 + 4 + 1 + 8)  # clock, reset and restart counts, safe, firmware's version
    count = reader.integer(4)
    if count > len(HASHES):
        raise MalformedError(f"the quote selects PCRs of {count} banks")
    selection = []
    for _ in range(count):
        bank = _hash(reader.integer(2), "the quote selects PCRs of a bank")
        bits = int.from_bytes(reader.take(reader.integer(1)), "little")
        if bits >> PCRS:
            raise MalformedError("the quote selects PCRs beyond 23")
        selection.append((bank, tuple(number for number in range(PCRS) if bits >> number & 1)))
    digest = reader.sized()
    reader.end()
    return TpmQuote(extra_data, tuple(selection), digest)


def parse_tpm_signature(data: bytes) -> TpmSignature:
    """The signature in a TPMT_SIGNATURE.

    Raises:
        MalformedError: it is none, or of a scheme that quotes are not verified with here.
    """
    reader = Reader(data, "TPMT_SIGNATURE", "big")
    scheme = reader.integer(2)
    if scheme not in (ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA):
        raise MalformedError(f"the signature's scheme is {scheme:#06x}; known: RSASSA, RSAPSS, ECDSA")
    name = _hash(reader.integer(2), "the signature uses")
    if name == "sha1":
        raise MalformedError("the signature uses SHA-1")
    if scheme == ALG_ECDSA:
        r, s = (int.from_bytes(reader.sized(), "big") for _ in range(2))
        found = TpmSignature(scheme, name, r=r, s=s)
    else:
        found = TpmSignature(scheme, name, signature=reader.sized())
    reader.end()
    return found


def parse_tpm_public(data: bytes) -> TpmKey:
    """The key in a TPMT_PUBLIC, or in a TPM2B_PUBLIC, which is the same behind its length.

    Raises:
        MalformedError: it is none, or neither RSA nor ECC.
    """
    if len(data) > 2 and int.from_bytes(data[:2], "big") == len(data) - 2:
        data = data[2:]
    reader = Reader(data, "TPMT_PUBLIC", "big")
    kind = reader.integer(2)
    reader.take(2)  # the algorithm of the key's name
    attributes = reader.integer(4)
    reader.sized()  # authPolicy
    if kind not in (ALG_RSA, ALG_ECC):
        raise MalformedError(f"the key's type is {kind:#06x}; known: RSA, ECC")
    if reader.integer(2) != ALG_NULL:
        raise MalformedError("the key has a symmetric algorithm: it is a storage key, none that signs")
    if reader.integer(2) != ALG_NULL:
        reader.take(2)  # the scheme's hash
    key = _rsa(reader) if kind == ALG_RSA else _ecc(reader)
    reader.end()
    return TpmKey(key, attributes)


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    bits, exponent = reader.integer(2), reader.integer(4)
    modulus = int.from_bytes(reader.sized(), "big")
    if bits < LEAST_RSA_BITS or modulus.bit_length() != bits:
        raise MalformedError(
            f"the RSA key has {modulus.bit_length()} bits and says {bits}; at least {LEAST_RSA_BITS}"
        )
    try:
        return rsa.RSAPublicNumbers(exponent or 65537, modulus).public_key()
    except ValueError as error:
        raise MalformedError(f"the RSA key is none: {error}") from None


def _ecc(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve = CURVES.get(number := reader.integer(2))
    if curve is None:
        raise MalformedError(f"the key's curve is {number:#06x}; known: P-256, P-384, P-521")
    if reader.integer(2) != ALG_NULL:
        reader.take(2)  # the key derivation's hash
    x, y = (int.from_bytes(reader.sized(), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise MalformedError(f"the ECC key is none: {error}") from None


def _hash(algorithm: int, words: str) -> str:
    if algorithm not in HASHES:
        raise MalformedError(f"{words} of hash algorithm {algorithm:#06x}, which is not known here")
    return HASHES[algorithm]
