"""The attestor: which questions it takes, what it signs, and how it deals with the kernel's configfs-tsm."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hal.attest.document import read_evidence_document
from hal.attest.policy import Policy
from hal.attest.report_data import DOMAIN as VERIFIED_DOMAIN
from hal.attest.report_data import qualifying_data as verified_qualifying
from hal.attest.report_data import report_data as verified
from hal.attest.snp import verify_snp
from hal.attest.verdict import Asked, Verdict, judge
from services.attestor import certificate, document, limit, report_data, server
from services.attestor.machine import Nothing, prover
from services.attestor.question import RefusedError, read_head, read_nonce
from services.attestor.tsm import Entry, EvidenceError, Tsm
from tests.attest.appliance import self_signed, tls_key
from tests.attest.machines import (
    NOW,
    TCB,
    SnpMachine,
    authority,
    manifest_text,
    measurements,
    sha256,
    spki,
)
from tests.services.attestor_world import ROOT, Attestor, Kernel, attestor, places
from tests.services.gateways import wait_for

NONCE = bytes(range(32))
DATA = bytes(range(64))

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


D = NONCE.hex()
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

MACHINE = document.machine(manifest_text(), b"")


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


# --- configfs-tsm -----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def tsm(kernel: Kernel, log: str = "") -> Tsm:
    clock = Clock()
    return Tsm(kernel, log, lambda: clock.now, clock.sleep)


def snp(data: bytes) -> bytes:
    return SnpMachine().report(data)


def tdx(data: bytes) -> bytes:
    return bytes(568) + data + bytes(4000)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return tmp_path / "tsm" / "report" / "hal"


def test_a_report_with_the_hosts_certificates(entry: Path) -> None:
    kernel = Kernel(entry, "sev_guest", snp, auxiliary=b"certificates")
    found = tsm(kernel).evidence(DATA)
    assert found.platform == "sev-snp"
    assert found.parts["report"] is not None
    assert found.parts["report"][0x50:0x90] == DATA
    assert found.parts["auxiliary"] == b"certificates"
    assert kernel.reports == 1
    assert kernel.accesses[0] == "read provider"


@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
def test_the_verifier_takes_what_is_made_of_it(entry: Path, kind: str) -> None:
    """A machine whose host gives certificates: nothing had to be fetched elsewhere."""
    guest = SnpMachine(kind=kind)
    issuer = {"ASK": authority().asvk.public_bytes(Encoding.DER)} if kind == "VLEK" else {}
    kernel = Kernel(entry, "sev_guest", guest.report, guest.table(**issuer))
    data = document.signed(NONCE, b"k" * 32, MACHINE)
    assert data is not None
    text = document.document(NONCE, b"k" * 32, MACHINE, tsm(kernel).evidence(data))
    read = read_evidence_document(text.encode())
    shapes = measurements(guest.platforms).platforms.sev_snp
    policy = Policy(minimum_tcb=TCB)
    checks = list(
        verify_snp(
            read, verified(NONCE, b"k" * 32, sha256(read.manifest)), shapes, policy, NOW, authority().roots
        )
    )
    assert [check.name for check in checks if not check.ok] == []
    assert len(checks) == 7


@pytest.mark.parametrize("auxiliary", [None, b""], ids=["no attribute", "empty"])
def test_a_host_without_certificates(entry: Path, auxiliary: bytes | None) -> None:
    assert tsm(Kernel(entry, "sev_guest", snp, auxiliary)).evidence(DATA).parts["auxiliary"] is None


def test_a_quote_with_firmwares_log(entry: Path, tmp_path: Path) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, auxiliary=b"")
    (tmp_path / "CCEL").write_bytes(b"log")
    found = tsm(kernel, str(tmp_path / "CCEL")).evidence(DATA)
    assert found == document.Evidence("tdx", {"quote": tdx(DATA), "event_log": b"log"})
    assert tsm(kernel, str(tmp_path / "nothing")).evidence(DATA).parts["event_log"] is None


RACES = ("write inblob", "read generation", "read outblob", "read auxblob")


@pytest.mark.parametrize("moment", RACES)
@pytest.mark.parametrize("times", [1, 3])
def test_somebody_elses_write_in_between_is_noticed(entry: Path, moment: str, times: int) -> None:
    """Whenever it comes, what is given is over our data, and is asked for anew only where it has to be."""
    left = times

    def intrude(name: str) -> None:
        nonlocal left
        if name == moment and left:
            left -= 1
            kernel.take(b"e" * 64)

    kernel = Kernel(entry, "sev_guest", snp, auxiliary=b"c", before=intrude)
    found = tsm(kernel).evidence(DATA)
    assert left == 0
    assert found.parts["report"] is not None
    assert found.parts["report"][0x50:0x90] == DATA


def test_a_write_in_between_that_leaves_our_own_report(entry: Path) -> None:
    """Another's write after our report: its certificates could be another report's."""
    moments: list[str] = []

    def intrude(name: str) -> None:
        moments.append(name)
        if name == "read auxblob" and moments.count(name) == 1:
            kernel.take(b"e" * 64)

    kernel = Kernel(entry, "sev_guest", snp, auxiliary=b"c", before=intrude)
    tsm(kernel).evidence(DATA)
    assert moments.count("write inblob") == 2


def test_a_write_that_the_kernel_lost_is_noticed(entry: Path) -> None:
    kernel = Kernel(entry, "sev_guest", snp)
    tsm(kernel).evidence(b"o" * 64)
    kernel.refuse_writes = 2
    found = tsm(kernel).evidence(DATA)
    assert found.parts["report"] is not None
    assert found.parts["report"][0x50:0x90] == DATA


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EWOULDBLOCK, errno.EINTR])
def test_busy_is_tried_again(entry: Path, number: int) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, busy=[number] * 5)
    assert tsm(kernel).evidence(DATA).parts["quote"] == tdx(DATA)
    assert kernel.reports == 1


def test_busy_for_ever_is_given_up(entry: Path) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, busy=[errno.EBUSY] * 10_000)
    clock = Clock()
    with pytest.raises(EvidenceError, match="busy"):
        Tsm(kernel, "", lambda: clock.now, clock.sleep).evidence(DATA)
    assert 15 < clock.now <= 20
    assert kernel.accesses.count("write inblob") < 50


def test_other_errors_are_told_at_once(entry: Path) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, busy=[errno.EIO])
    with pytest.raises(EvidenceError, match="Input/output error"):
        tsm(kernel).evidence(DATA)
    assert kernel.accesses.count("write inblob") == 1


def test_a_report_over_something_else_is_not_served(entry: Path) -> None:
    kernel = Kernel(entry, "sev_guest", lambda data: snp(b"x" * 64))
    with pytest.raises(EvidenceError, match="something else"):
        tsm(kernel).evidence(DATA)


def test_an_unknown_provider_is_none(entry: Path) -> None:
    with pytest.raises(EvidenceError, match="'arm_cca_guest'"):
        tsm(Kernel(entry, "arm_cca_guest", tdx))


def test_an_entry_is_read_and_written_as_files(tmp_path: Path) -> None:
    (tmp_path / "inblob").touch()
    (tmp_path / "outblob").write_bytes(b"x" * 100_000)
    entry = Entry(str(tmp_path))
    entry.write("inblob", DATA)
    assert (tmp_path / "inblob").read_bytes() == DATA
    assert entry.read("outblob") == b"x" * 100_000
    with pytest.raises(FileNotFoundError):
        entry.write("other", DATA)
    assert not (tmp_path / "other").exists()


# --- what a machine proves with ---------------------------------------------------------------------


def test_what_there_is_is_used(tmp_path: Path) -> None:
    found = places(tmp_path)
    assert isinstance(prover(found), Nothing)
    Path(found.tpm).touch()
    assert prover(found).platform == "tpm"
    Kernel(Path(found.tsm), "tdx_guest", tdx)
    assert prover(found).platform == "tdx"


def test_what_cannot_be_used_is_no_reason_for_less(tmp_path: Path) -> None:
    found = places(tmp_path)
    Path(found.tpm).touch()
    Path(found.tsm).mkdir()
    with pytest.raises(EvidenceError, match="No such file"):
        prover(found).evidence(DATA)
    (Path(found.tsm) / "provider").write_text("arm_cca_guest\n")
    with pytest.raises(EvidenceError, match="not known"):
        prover(found).evidence(DATA)


def listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


def test_a_socket_that_an_init_system_hands_over_is_taken(tmp_path: Path) -> None:
    """As systemd does: the descriptor 3, and the process told that it is meant."""
    found = places(tmp_path, tls_key("gateway"))
    code = """
        import os, socket, sys
        given = socket.socket(socket.AF_UNIX)
        given.bind(sys.argv[1])
        given.listen()
        os.dup2(given.fileno(), 3)
        os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        from services.attestor import daemon, machine
        daemon.run(machine.Places(*sys.argv[2:]))
    """
    socket_path = str(tmp_path / "given")
    command = [sys.executable, "-c", textwrap.dedent(code), socket_path, *found]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        running = Attestor(found._replace(socket=socket_path), process)
        wait_for(lambda: listens(socket_path), "it listens")
        assert running.get(f"?nonce={D}")[0] == 200
        assert not Path(found.socket).exists()
    finally:
        process.kill()
        process.wait()


# --- the daemon -------------------------------------------------------------------------------------


def test_a_machine_without_anything_says_none(tmp_path: Path) -> None:
    key = tls_key("gateway")
    with attestor(places(tmp_path, key)) as running:
        text = running.document(NONCE)
        head, body = running.get(f"?nonce={D}")[1:]
        assert running.post(json.dumps({"nonce": D}).encode())[2] == body
    assert head["content-type"] == "application/json"
    assert head["cache-control"] == "no-store"
    assert body["platform"] == "none"
    assert body["evidence"] == {}
    assert body["boot"] == [{"name": "root", "state": "verified", "seconds": 0.21}]
    assert body["report_data"] == verified(NONCE, sha256(spki(key)), sha256(manifest_text())).hex()
    found = verdict(text, key, {})
    assert not found.verified
    assert "proves nothing" in " ".join(check.words for check in found.failures)


def verdict(text: bytes, key: Any, platforms: dict[str, Any]) -> Verdict:
    return judge(text, Asked(NONCE, sha256(spki(key))), measurements(platforms), Policy(), NOW)


def test_bad_questions_get_400_in_json(tmp_path: Path) -> None:
    with attestor(places(tmp_path, tls_key("gateway"))) as running:
        for _ in range(3):
            for query in ("", "?nonce=1", f"?nonce={D}&report_data={D}"):
                status, head, body = running.get(query)
                assert (status, head["content-type"]) == (400, "application/json")
                assert "nonce" in body["error"]["message"]
        assert running.post(b"{}")[0] == 400
        assert running.send(b"DELETE /attestation HTTP/1.1\r\n\r\n")[1]["allow"] == "GET, POST"
        assert running.send(b"\0\r\n\r\n")[0] == 400
        # None of them took a place.
        assert running.get(f"?nonce={D}")[0] == 200


def test_too_many_questions_get_429(tmp_path: Path) -> None:
    with attestor(places(tmp_path, tls_key("gateway"))) as running:
        answers = [running.get(f"?nonce={D}") for _ in range(80)]
    statuses = [answer[0] for answer in answers]
    assert statuses[:30] == [200] * 30
    assert 429 in statuses
    refused = answers[statuses.index(429)]
    assert refused[1]["retry-after"] == "1"
    assert "error" in refused[2]


def test_without_tls_there_is_nothing_to_bind(tmp_path: Path) -> None:
    found = places(tmp_path)
    Kernel(Path(found.tsm), "tdx_guest", tdx)
    with attestor(found) as running:
        body = running.get(f"?nonce={D}")[2]
        text = running.document(NONCE)
    assert (body["platform"], body["tls_key_sha256"], body["report_data"]) == ("tdx", None, None)
    assert body["evidence"] == {}
    (failed,) = verdict(text, tls_key("gateway"), {}).failures
    assert "tls_key_sha256" in failed.words


def test_the_key_is_the_one_of_now(tmp_path: Path) -> None:
    found = places(tmp_path, tls_key("gateway"))
    with attestor(found) as running:
        assert running.get(f"?nonce={D}")[2]["tls_key_sha256"] == sha256(spki(tls_key("gateway"))).hex()
        Path(found.certificate).write_bytes(self_signed(tls_key("restarted")))
        assert running.get(f"?nonce={D}")[2]["tls_key_sha256"] == sha256(spki(tls_key("restarted"))).hex()
        Path(found.certificate).write_bytes(b"broken")
        status, _, body = running.get(f"?nonce={D}")
    assert status == 503
    assert "no certificate" in body["error"]["message"]


def test_a_wrong_manifest_is_said(tmp_path: Path) -> None:
    found = places(tmp_path)
    Path(found.manifest).write_text("[]")
    with pytest.raises(pytest.fail.Exception, match="hal-attestor: it names no variant"), attestor(found):
        pytest.fail("it serves")


def test_a_silent_client_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLIENT_SECONDS", 0.1)
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        near.sendall(b"GET /attest")
        assert server._answer(far, lambda head, body: b"").startswith(b"HTTP/1.1 408 ")
