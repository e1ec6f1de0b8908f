"""Signatures over documents: made and checked by hal, checked by openssl, the same each time."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import HalError, UsageError
from hal.signing.signatures import (
    check_signed,
    is_signed,
    read_private_key,
    read_public_key,
    sign,
    signature_file,
)


@cache
def key(kind: str) -> Any:
    match kind:
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "RSA":
            return rsa.generate_private_key(65537, 2048)
        case "short RSA":
            return rsa.generate_private_key(65537, 1024)
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "Ed448":
            return ed448.Ed448PrivateKey.generate()
    return dsa.generate_private_key(2048)


KINDS = ("Ed25519", "P-256", "P-384", "RSA")
OTHERS = ("short RSA", "P-521", "Ed448", "DSA")

OPENSSL = {
    "Ed25519": (
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "{key}",
        "-rawin",
        "-in",
        "{file}",
        "-sigfile",
        "{sig}",
    ),
    "P-256": ("dgst", "-sha256", "-verify", "{key}", "-signature", "{sig}", "{file}"),
    "P-384": ("dgst", "-sha384", "-verify", "{key}", "-signature", "{sig}", "{file}"),
    "RSA": ("dgst", "-sha256", "-verify", "{key}", "-signature", "{sig}", "{file}"),
}


def files(kind: str, directory: Path) -> tuple[Path, Path]:
    """The key and its public half, as openssl writes them."""
    private, public = directory / "key.pem", directory / "key.pub"
    private.write_bytes(key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    spki = PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key(kind).public_key().public_bytes(Encoding.PEM, spki))
    return private, public


@pytest.mark.parametrize("kind", KINDS)
def test_what_hal_signs_openssl_verifies(kind: str, tmp_path: Path) -> None:
    private, public = files(kind, tmp_path)
    document = tmp_path / "measurements.json"
    document.write_text("{}\n")
    signature = sign(read_private_key(private), document.read_bytes())
    assert signature == sign(read_private_key(private), document.read_bytes())
    signature_file(document).write_bytes(signature)
    assert check_signed(document, read_public_key(public)) == b"{}\n"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    names = {"key": public, "file": document, "sig": signature_file(document)}
    command = [openssl, *(word.format(**names) for word in OPENSSL[kind])]
    assert subprocess.run(command, capture_output=True).returncode == 0
    document.write_text("{} \n")
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(max_size=64), st.integers(0, 1 << 16))
def test_one_bit_less_is_no_signature(kind: str, data: bytes, place: int) -> None:
    signature = bytearray(sign(key(kind), data))
    assert is_signed(key(kind).public_key(), data, bytes(signature))
    assert not is_signed(key(kind).public_key(), data + b"\0", bytes(signature))
    signature[place % len(signature)] ^= 1 << place % 8
    assert not is_signed(key(kind).public_key(), data, bytes(signature))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_keys_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    private, public = files(kind, tmp_path)
    for read, path in ((read_private_key, private), (read_public_key, public)):
        with pytest.raises(UsageError, match="key"):
            read(path)


def test_a_key_with_a_password_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    locked = BestAvailableEncryption(b"secret")
    path.write_bytes(key("Ed25519").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(UsageError, match="has a password"):
        read_private_key(path)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_in_words(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    for read in (read_private_key, read_public_key):
        with pytest.raises(UsageError, match="holds no"):
            read(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_public_key(tmp_path / "none")


def test_a_missing_or_foreign_signature_is_told(tmp_path: Path) -> None:
    document = tmp_path / "measurements.json"
    document.write_text("{}")
    public = key("Ed25519").public_key()
    with pytest.raises(HalError, match=r"measurements\.json\.sig: No such file"):
        check_signed(document, public)
    signature_file(document).write_bytes(sign(key("P-256"), b"{}"))
    with pytest.raises(HalError, match="is not what the key"):
        check_signed(document, public)
