"""`hal verify` against an HTTPS server: green, and red for each reason."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hal.attest.connection import MOST_BYTES, Place, parse_place
from hal.cli.main import main
from hal.errors import HalError, UsageError
from hal.signing.signatures import signature_file
from hal.verify import (
    verify,
)
from tests.attest.appliance import Appliance, tls_key
from tests.attest.asking import HONEST, hal_verify, unknown_pack
from tests.attest.machines import Situation, document, measurements, sha256, spki
from tests.attest.tpm_machine import EVENTS, event_log, tpm_machine


def test_green(appliance: Appliance, files: Path) -> None:
    done = hal_verify(appliance.url, files)
    assert done.exit_code == 0, done.output
    assert "FAILED" not in done.output
    assert f"{appliance.url}: verified" in done.output.replace("\n", " ")


def test_json_tells_every_check(appliance: Appliance, files: Path) -> None:
    done = hal_verify(appliance.url, files, "--json", "--platform", "tpm")
    told = json.loads(done.output)
    assert done.exit_code == 0
    assert told["verified"] is True
    assert told["platform"] == "tpm"
    assert told["tls_key_sha256"] == sha256(spki(tls_key("gateway"))).hex()
    assert {check["name"]: check["ok"] for check in told["checks"]}["TLS key"] is True


def test_each_question_has_a_nonce_of_its_own(appliance: Appliance, files: Path) -> None:
    for _ in range(2):
        assert hal_verify(appliance.url, files).exit_code == 0
    first, second = appliance.requests
    assert first.startswith("/attestation?nonce=")
    assert len(first) == len("/attestation?nonce=") + 64
    assert first != second


def replayed() -> Callable[[Situation], bytes]:
    """Always the first answer."""
    kept: list[bytes] = []

    def answer(situation: Situation) -> bytes:
        kept.append(HONEST.document(situation))
        return kept[0]

    answer(Situation())
    return answer


def behind_a_proxy(situation: Situation) -> bytes:
    """What the appliance says to a proxy that asks for its client: its own key."""
    return HONEST.document(replace(situation, tls_key_sha256=sha256(spki(tls_key("appliance")))))


def behind_a_lying_proxy(situation: Situation) -> bytes:
    """The same, with the proxy's key written over it."""
    asked = replace(situation, tls_key_sha256=sha256(spki(tls_key("appliance"))))
    return HONEST.document(asked, tls_key_sha256=situation.tls_key_sha256.hex())


def tampered_log(situation: Situation) -> bytes:
    evidence = HONEST.evidence(situation) | {"event_log": event_log((*EVENTS[:-1], (12, b"quiet")))}
    return document(situation, "tpm", evidence)


def other_boot(situation: Situation) -> bytes:
    return replace(HONEST, events=(*EVENTS[:-1], (12, b"debug"))).document(situation)


RED: dict[str, tuple[Callable[[], Callable[[Situation], bytes]], dict[str, str]]] = {
    "an old nonce": (
        replayed,
        {"nonce": "replayed", "TLS key": "in between", "report data": "something else"},
    ),
    "a proxy": (lambda: behind_a_proxy, {"TLS key": "in between", "report data": "signs something else"}),
    "a lying proxy": (lambda: behind_a_lying_proxy, {"report data": "signs something else"}),
    "a tampered log": (lambda: tampered_log, {"event log": "the log was changed"}),
    "an unknown pack": (lambda: unknown_pack, {"manifest": "pack 'evil' is unknown"}),
    "another machine": (
        lambda: tpm_machine("second").document,
        {"attestation key": "another one than the pinned"},
    ),
    "another command line": (lambda: other_boot, {"measurement": "PCR 12 is"}),
    "debug": (
        lambda: lambda situation: HONEST.document(replace(situation, debug=True)),
        {"variant": "debug: its operators have a shell"},
    ),
    "no TEE": (lambda: lambda situation: document(situation, "none", {}), {"platform": "proves nothing"}),
    "no document": (lambda: lambda situation: b"<html>", {"document": "is no JSON"}),
}


@pytest.mark.parametrize(("make", "wanted"), RED.values(), ids=RED)
def test_red_has_its_own_reason(
    make: Callable[[], Callable[[Situation], bytes]],
    wanted: dict[str, str],
    appliance: Appliance,
    files: Path,
) -> None:
    appliance.answer = make()
    done = hal_verify(appliance.url, files, "--json")
    told = json.loads(done.output)
    assert done.exit_code == 1
    assert told["verified"] is False
    found = {check["name"]: check["words"] for check in told["checks"] if check["ok"] is False}
    assert found.keys() == wanted.keys()
    for name, words in wanted.items():
        assert words in found[name]
    shown = hal_verify(appliance.url, files)
    assert shown.exit_code == 1
    assert "NOT verified" in shown.output and "FAILED" in shown.output


def test_a_tpm_without_a_pinned_key_is_refused(appliance: Appliance, files: Path) -> None:
    arguments = ["verify", appliance.url, "--measurements", str(files / "measurements.json")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "is not pinned" in " ".join(done.output.split())


def test_another_platform_than_asked_for_is_refused(appliance: Appliance, files: Path) -> None:
    assert hal_verify(appliance.url, files, "--platform", "tdx").exit_code == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:7001", "only https has a key"),
        ("https://127.0.0.1/v1", "no address of an appliance"),
        ("https://user@127.0.0.1", "no address of an appliance"),
        ("https://127.0.0.1:99999", "out of range"),
        ("https://", "no address of an appliance"),
    ],
)
def test_a_url_that_is_none_is_wrong_usage(url: str, words: str, files: Path) -> None:
    done = hal_verify(url, files)
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_place_is_read_as_people_write_it() -> None:
    assert parse_place("appliance") == Place("appliance", 7001)
    assert parse_place("10.0.0.5:8443") == Place("10.0.0.5", 8443)
    assert parse_place("https://[::1]:7001/").url == "https://[::1]:7001"


def test_nobody_there_is_said_in_a_line(files: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = hal_verify(f"https://127.0.0.1:{port}", files)
    assert done.exit_code == 1
    assert "gave no evidence: Connection refused" in done.output
    assert "Traceback" not in done.output


def test_a_server_without_tls_is_said_in_a_line(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def clear() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=clear)
        thread.start()
        done = hal_verify(f"https://127.0.0.1:{listener.getsockname()[1]}", files)
        thread.join()
    assert done.exit_code == 1
    assert "gave no evidence" in done.output


def test_an_error_of_the_appliance_is_shown(appliance: Appliance, files: Path) -> None:
    appliance.status = 429
    appliance.answer = lambda _: b'{"error": {"message": "too many\\u001b[31m", "code": "x"}}'
    done = hal_verify(appliance.url, files)
    assert done.exit_code == 1
    assert "/attestation answered 429: too many [31m" in done.output


def test_an_endless_answer_is_none(appliance: Appliance) -> None:
    appliance.answer = lambda _: b" " * (MOST_BYTES + 1)
    with pytest.raises(HalError, match="more than 4 MiB"):
        verify(appliance.url, measurements(HONEST.platforms))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}'])
def test_measurements_that_are_none_are_said_in_a_line(text: str, appliance: Appliance, files: Path) -> None:
    (files / "measurements.json").write_text(text)
    done = hal_verify(appliance.url, files)
    assert done.exit_code in (1, 2)
    assert "measurements" in done.output
    assert "Traceback" not in done.output
    assert appliance.requests == []


def test_measurements_count_only_with_the_signature_that_is_asked_for(
    appliance: Appliance, files: Path, tmp_path: Path
) -> None:
    """An Ed25519 key of the user's, as `hal sign --key` takes it."""
    signer, other = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    public = tmp_path / "signer.pub"
    public.write_bytes(
        signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
    measured = files / "measurements.json"
    wanted = ("--measurements-key", str(public))
    for signature, exit_code, words in (
        (None, 1, "No such file"),
        (other.sign(measured.read_bytes()), 1, "is not what the key"),
        (signer.sign(measured.read_bytes()), 0, "verified"),
    ):
        if signature is not None:
            signature_file(measured).write_bytes(signature)
        done = hal_verify(appliance.url, files, *wanted)
        assert done.exit_code == exit_code, done.output
        assert words in " ".join(done.output.split())
        assert len(appliance.requests) == (1 if exit_code == 0 else 0)


def test_a_wrong_tcb_is_wrong_usage(appliance: Appliance, files: Path) -> None:
    done = hal_verify(appliance.url, files, "--minimum-tcb", "ucode=1")
    assert done.exit_code == 2
    with pytest.raises(UsageError):
        parse_place("ftp://x")
