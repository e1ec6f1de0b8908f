"""The attestor: what it signs, which questions it takes, and the document that it answers with."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hal.attest.document import read_evidence_document
from hal.attest.report_data import DOMAIN as VERIFIED_DOMAIN
from hal.attest.report_data import qualifying_data as verified_qualifying
from hal.attest.report_data import report_data as verified
from services.attestor import certificate, document, limit, report_data
from services.attestor.question import RefusedError, read_head, read_nonce
from tests.attest.appliance import self_signed, tls_key
from tests.attest.machines import manifest_text, sha256, spki
from tests.services.attestor_world import MACHINE, NONCE, D

# --- what is signed ---------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_the_verifier_composes_the_same(nonce: bytes, other: bytes) -> None:
    assert report_data.DOMAIN == VERIFIED_DOMAIN
    data = report_data.report_data(nonce, other, nonce)
    assert (
        data
        == verified(nonce, other, nonce)
        == hashlib.sha512(VERIFIED_DOMAIN + nonce + other + nonce).digest()
    )
    assert report_data.qualifying_data(data) == verified_qualifying(data)


def test_parts_of_another_length_are_not_signed() -> None:
    for parts in ((NONCE + b"\0", NONCE, NONCE), (NONCE, b"", NONCE), (NONCE, NONCE, NONCE[:31])):
        with pytest.raises(ValueError, match="32 bytes"):
            report_data.report_data(*parts)


# --- questions --------------------------------------------------------------------------------------


def asked(method: str, target: str, body: bytes = b"", head: str = "") -> bytes:
    text = f"{method} {target} HTTP/1.1\r\nHost: a{head}"
    if method == "POST" and not head:
        text += f"\r\nContent-Length: {len(body)}"
    return read_nonce(read_head(text.encode()), body)


def test_a_nonce_comes_by_get_or_post() -> None:
    digits = NONCE.hex()
    assert asked("GET", f"/attestation?nonce={digits}") == NONCE
    assert asked("GET", f"/attestation?nonce={digits.upper()}") == NONCE
    assert asked("POST", "/attestation", json.dumps({"nonce": digits}).encode()) == NONCE


BAD: dict[str, tuple[str, str, bytes, int]] = {
    "no nonce": ("GET", "/attestation", b"", 400),
    "an empty query": ("GET", "/attestation?", b"", 400),
    "an empty nonce": ("GET", "/attestation?nonce=", b"", 400),
    "too short": ("GET", f"/attestation?nonce={D[:-1]}", b"", 400),
    "too long": ("GET", f"/attestation?nonce={D}0", b"", 400),
    "64 bytes": ("GET", f"/attestation?nonce={D}{D}", b"", 400),
    "no digits": ("GET", f"/attestation?nonce={'g' * 64}", b"", 400),
    "digits of another script": ("GET", f"/attestation?nonce={'%D9%A1' * 64}", b"", 400),
    "with a space": ("GET", f"/attestation?nonce=+{D[1:]}", b"", 400),
    "twice": ("GET", f"/attestation?nonce={D}&nonce={D}", b"", 400),
    "chosen bytes": ("GET", f"/attestation?nonce={D}&report_data={D}{D}", b"", 400),
    "many": ("GET", f"/attestation?{'&'.join(['nonce=' + D] * 20)}", b"", 400),
    "no pair": ("GET", "/attestation?nonce", b"", 400),
    "another path": ("GET", f"/attestation/?nonce={D}", b"", 404),
    "another method": ("PUT", f"/attestation?nonce={D}", b"", 405),
    "an empty body": ("POST", "/attestation", b"", 400),
    "no JSON": ("POST", "/attestation", D.encode(), 400),
    "no object": ("POST", "/attestation", f'["{D}"]'.encode(), 400),
    "pairs": ("POST", "/attestation", f'[["nonce", "{D}"]]'.encode(), 400),
    "a text": ("POST", "/attestation", f'"{D}"'.encode(), 400),
    "a number": ("POST", "/attestation", b'{"nonce": 5}', 400),
    "null": ("POST", "/attestation", b'{"nonce": null}', 400),
    "twice in a body": ("POST", "/attestation", f'{{"nonce": "{D}", "nonce": "{D}"}}'.encode(), 400),
    "more in a body": ("POST", "/attestation", f'{{"nonce": "{D}", "data": ""}}'.encode(), 400),
    "a query beside a body": ("POST", f"/attestation?nonce={D}", f'{{"nonce": "{D}"}}'.encode(), 400),
    "no UTF-8": ("POST", "/attestation", b'{"nonce": "\xff"}', 400),
    "nested": ("POST", "/attestation", b"[" * 1000, 400),
    "a large body": ("POST", "/attestation", b" " * 2000, 413),
}


@pytest.mark.parametrize(("method", "target", "body", "status"), BAD.values(), ids=BAD)
def test_bad_questions_are_refused(method: str, target: str, body: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        asked(method, target, body)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("\r\nX: 1", 411),
        ("\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", 411),
        ("\r\nContent-Length: 5\r\nContent-Length: 6", 411),
        ("\r\nContent-Length: +5", 400),
        ("\r\nContent-Length: -5", 400),
    ],
)
def test_a_body_has_one_length(head: str, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        asked("POST", "/attestation", b"", head)
    assert caught.value.status == status


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_nonce(data: bytes) -> None:
    for text, body in ((data, b""), (b"GET /attestation?" + data + b" HTTP/1.1", b"")):
        try:
            assert len(read_nonce(read_head(text), body)) == 32
        except RefusedError as error:
            assert error.status in (400, 404, 405, 411, 413)


# --- the rate ---------------------------------------------------------------------------------------


def test_the_rate_is_limited_and_comes_back() -> None:
    bucket = limit.Limit(100.0, burst=3, per_second=2.0)
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 1]
    assert bucket.take(100.4) == 1
    assert bucket.take(100.5) == 0
    assert [bucket.take(200.0) for _ in range(4)] == [0, 0, 0, 1]
    assert limit.Limit(0.0, burst=1, per_second=0.1).take(0.0) == 0


# --- the gateway's key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [tls_key("gateway"), ec.generate_private_key(ec.SECP384R1())], ids=["256", "384"]
)
def test_a_certificates_key_is_found(key: ec.EllipticCurvePrivateKey) -> None:
    assert certificate.key_digest(self_signed(key)) == sha256(spki(key))


def test_openssls_certificate_as_the_gateway_makes_it(tmp_path: Path) -> None:
    file = tmp_path / "tls.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-quiet", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-sha256",
                "-nodes",
                "-subj",
                "/CN=a",
                "-addext",
                "subjectAltName=DNS:a",
                "-keyout",
                file,
                "-out",
                file,
            ),
        ],
        check=True,
    )
    found = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
    wanted = sha256(found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert certificate.key_digest(file.read_bytes()) == wanted


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
def test_a_broken_certificate_is_no_crash(place: int, value: int, end: int) -> None:
    der = x509.load_pem_x509_certificate(self_signed(tls_key("gateway"))).public_bytes(Encoding.DER)
    broken = bytearray(der)
    broken[place % len(der)] = value
    for data in (bytes(broken), der[: end % len(der)]):
        text = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
        with contextlib.suppress(certificate.CertificateError):
            assert len(certificate.key_digest(text)) == 32


def test_other_files_are_no_certificate() -> None:
    for data in (b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----"):
        with pytest.raises(certificate.CertificateError):
            certificate.key_digest(data)


# --- the document -----------------------------------------------------------------------------------


def test_the_document_is_one_that_the_verifier_reads() -> None:
    evidence = document.Evidence("sev-snp", {"report": b"r", "auxiliary": None})
    found = read_evidence_document(document.document(NONCE, b"k" * 32, MACHINE, evidence).encode())
    assert (found.platform, found.nonce, found.tls_key_sha256) == ("sev-snp", NONCE, b"k" * 32)
    assert found.manifest == manifest_text()
    assert found.report_data == verified(NONCE, b"k" * 32, sha256(manifest_text()))
    assert found.evidence == {"report": b"r"}
    assert not found.debug


def test_only_production_is_no_debug() -> None:
    for variant, debug in (("production", False), ("debug", True), ("other", True)):
        assert document.machine(json.dumps({"variant": variant}).encode(), b"").debug is debug
    for manifest in (b"", b"[]", b"{}", b'{"variant": 1}'):
        with pytest.raises(ValueError):
            document.machine(manifest, b"")


def test_boots_stages_are_told() -> None:
    report = b'{"version": 1, "stages": [{"name": "root", "outcome": "verified", "ms": 1234}]}'
    assert document.stages(report) == [{"name": "root", "state": "verified", "seconds": 1.234}]
    for broken in (b"", b"[]", b"{}", b'{"stages": [{}]}', b'{"stages": 1}', b"\xff"):
        assert document.stages(broken) == []
