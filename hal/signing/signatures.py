"""Detached signatures over whole files, with keys that users give: `measurements.json.sig` beside its file.

The signature is over the file's bytes, in the form that openssl makes and checks: Ed25519, ECDSA (DER) on
P-256 or P-384, or RSA with PKCS #1 v1.5; SHA-256, or SHA-384 on P-384. Each is made without a random number
(RFC 8032, RFC 6979), so that one key and one file give one signature.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from hal.errors import HalError, UsageError

SUFFIX = ".sig"
LEAST_RSA_BITS = 2048

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

KINDS = "Ed25519, P-256, P-384, or RSA of 2048 bits or more"


def signature_file(path: Path) -> Path:
    """Where the signature of a file is."""
    return path.with_name(path.name + SUFFIX)


def read_private_key(path: Path) -> PrivateKey:
    """A key that signs, in PEM and without a password.

    Raises:
        UsageError: the file cannot be read, has a password, or holds no key of a kind that hal takes.
    """
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except TypeError:
        raise UsageError(
            f"{path} has a password, which hal does not ask for",
            "sign with openssl (docs/verify.md), or decrypt the key where you sign",
        ) from None
    except ValueError as error:
        raise UsageError(f"{path} holds no private key in PEM: {error}") from None
    if isinstance(key, PrivateKey):
        _check(key.public_key(), path)
        return key
    raise UsageError(f"{path}: a key of a kind that hal does not sign with", f"take {KINDS}")


def read_public_key(path: Path) -> PublicKey:
    """A key that verifies, in PEM; a certificate stands for its key.

    Raises:
        UsageError: the file cannot be read, or holds no key of a kind that hal takes.
    """
    from cryptography import x509

    data = _read(path)
    try:
        if b"BEGIN CERTIFICATE" in data:
            key = x509.load_pem_x509_certificate(data).public_key()
        else:
            key = serialization.load_pem_public_key(data)  # type: ignore[assignment]
    except ValueError as error:
        raise UsageError(f"{path} holds no public key in PEM: {error}") from None
    if isinstance(key, PublicKey):
        _check(key, path)
        return key
    raise UsageError(f"{path}: a key of a kind that hal does not know", f"known are: {KINDS}")


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The signature over `data`."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(_hash(key.curve), deterministic_signing=True))


def is_signed(key: PublicKey, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is that key's over `data`."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, data, ec.ECDSA(_hash(key.curve)))
    except InvalidSignature:
        return False
    return True


def check_signed(path: Path, key: PublicKey) -> bytes:
    """The bytes of a file that this key has signed.

    Raises:
        HalError: file or signature cannot be read, or the signature is not this key's over this file.
    """
    signature = signature_file(path)
    try:
        data, proof = path.read_bytes(), signature.read_bytes()
    except OSError as error:
        raise HalError(
            f"{error.filename}: {error.strerror}",
            f"a signed file has its signature beside it, as {signature.name}",
        ) from None
    if not is_signed(key, data, proof):
        raise HalError(
            f"{path} is not what the key {name(key)} signed",
            "it was changed, or somebody else signed it: take it from whom you trust",
        )
    return data


def name(key: PublicKey) -> str:
    """A key in a few digits: the beginning of its SubjectPublicKeyInfo's SHA-256."""
    return f"{key_digest(key)[:24]}…"


def key_digest(key: PublicKey) -> str:
    """The SHA-256 of a key's SubjectPublicKeyInfo (DER), in hex."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _check(key: PublicKey, path: Path) -> None:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        raise UsageError(f"{path}: an RSA key of {key.key_size} bits is too short", f"take {KINDS}")
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise UsageError(f"{path}: a key on the curve {key.curve.name}", f"take {KINDS}")


def _hash(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return hashes.SHA384() if isinstance(curve, ec.SECP384R1) else hashes.SHA256()
