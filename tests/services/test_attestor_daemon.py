"""The attestor as it runs: what a machine proves with, and what its daemon answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from hal.attest.policy import Policy
from hal.attest.report_data import report_data as verified
from hal.attest.verdict import Asked, Verdict, judge
from services.attestor import server
from services.attestor.machine import Nothing, prover
from services.attestor.tsm import EvidenceError
from tests.attest.appliance import self_signed, tls_key
from tests.attest.machines import NOW, manifest_text, measurements, sha256, spki
from tests.services.attestor_world import DATA, NONCE, ROOT, Attestor, D, Kernel, attestor, places, tdx
from tests.services.gateways import wait_for


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
