"""`hal verify` and the library against an HTTPS server: green, red for each reason, clients that hold on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import requests
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hal.attest.connection import MOST_BYTES, Place, parse_place
from hal.cli import main
from hal.errors import HalError, UsageError
from hal.verify import (
    NotVerifiedError,
    attested_async_client,
    attested_client,
    attested_session,
    verify,
)
from tests.attest.appliance import Appliance, serving, tls_key
from tests.attest.machines import (
    EVENTS,
    MANIFEST,
    Situation,
    document,
    event_log,
    manifest_text,
    measurements,
    sha256,
    spki,
    tpm_machine,
)

HONEST = tpm_machine()
PINNED = spki(HONEST.key)


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    with serving(HONEST.document, tls_key("gateway")) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with what a client has: measurements and the machine's pinned key."""
    (tmp_path / "measurements.json").write_text(measurements(HONEST.platforms).text())
    pem = HONEST.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ak.pem").write_bytes(pem)
    return tmp_path


def hal_verify(url: str, files: Path, *options: str) -> Result:
    arguments = ["verify", url, "--measurements", str(files / "measurements.json")]
    return CliRunner().invoke(main, [*arguments, "--tpm-key", str(files / "ak.pem"), *options])


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


def unknown_pack(situation: Situation) -> bytes:
    pack = {"kind": "model", "name": "evil", "root_hash": "22" * 32}
    packs = [*MANIFEST["packs"], pack]  # type: ignore[misc]
    return HONEST.document(replace(situation, manifest=manifest_text({**MANIFEST, "packs": packs})))


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


# --- the library --------------------------------------------------------------------------------


def test_openai_in_three_lines(appliance: Appliance, files: Path) -> None:
    http = attested_client(appliance.url, files / "measurements.json", platform="tpm", tpm_key=PINNED)
    client = openai.OpenAI(base_url=f"{appliance.url}/v1", api_key="none", http_client=http, max_retries=0)
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "you said hello"
    assert appliance.requests[1:] == ["/v1/chat/completions"]


def test_openai_in_three_lines_where_only_httpx2_is_there(
    appliance: Appliance, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx2")
    monkeypatch.setitem(sys.modules, "httpx", None)
    test_openai_in_three_lines(appliance, files)
    http = attested_client(appliance.url, files / "measurements.json", tpm_key=PINNED)
    assert type(http).__module__.startswith("httpx2")
    appliance.take_key(tls_key("another"))
    client = openai.OpenAI(base_url=f"{appliance.url}/v1", api_key="none", http_client=http, max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    assert len(appliance.requests) == 3  # two questions for evidence, one for an answer


def test_without_a_client_library_the_error_says_what_to_install(
    appliance: Appliance, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("httpx", "httpx2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(HalError, match="neither httpx nor httpx2 is installed"):
        attested_client(appliance.url, files / "measurements.json", tpm_key=PINNED)


def test_no_client_is_made_of_an_appliance_that_is_not_verified(appliance: Appliance, files: Path) -> None:
    appliance.answer = unknown_pack
    for make in (attested_client, attested_session, attested_async_client):
        with pytest.raises(NotVerifiedError) as caught:
            make(appliance.url, files / "measurements.json", tpm_key=PINNED)
        assert caught.value.details == ("manifest: pack 'evil' is unknown",)


def clients(appliance: Appliance, files: Path) -> dict[str, tuple[Callable[[str], Any], type[Exception]]]:
    """How each kind of client asks, and how it says no."""
    expected = files / "measurements.json"
    session = attested_session(appliance.url, expected, tpm_key=PINNED)
    client = attested_client(appliance.url, expected, tpm_key=PINNED)

    def asynchronous(url: str) -> Any:
        async def ask() -> Any:
            async with attested_async_client(url_at_first, expected, tpm_key=PINNED) as made:
                if appliance.key is not tls_key("gateway"):
                    raise AssertionError
                return await made.get(url, follow_redirects=True)

        url_at_first = appliance.url
        return asyncio.run(ask())

    def follow(url: str) -> Any:
        return client.get(url, follow_redirects=True)

    return {
        "requests": (session.get, requests.RequestException),
        "httpx": (follow, httpx.HTTPError),
        "httpx, asyncio": (asynchronous, httpx.HTTPError),
    }


@pytest.mark.parametrize("kind", ["requests", "httpx", "httpx, asyncio"])
def test_a_client_talks_to_the_attested_key(
    kind: str, appliance: Appliance, files: Path, recwarn: pytest.WarningsRecorder
) -> None:
    ask, _ = clients(appliance, files)[kind]
    assert ask(f"{appliance.url}/v1/models").json() == {"object": "list", "data": []}
    assert [str(warning.message) for warning in recwarn if "Unverified" in str(warning.message)] == []


@pytest.mark.parametrize("kind", ["requests", "httpx"])
def test_a_client_ends_the_handshake_with_another_key(kind: str, appliance: Appliance, files: Path) -> None:
    ask, error = clients(appliance, files)[kind]
    appliance.take_key(tls_key("another"))
    seen = len(appliance.requests)
    with pytest.raises(error, match="is not the attested one"):
        ask(f"{appliance.url}/v1/models")
    assert appliance.requests[seen:] == []  # not a byte of a request was sent


def test_an_asynchronous_client_does_so_too(appliance: Appliance, files: Path) -> None:
    async def ask() -> None:
        async with attested_async_client(appliance.url, files / "measurements.json", tpm_key=PINNED) as made:
            appliance.take_key(tls_key("another"))
            with pytest.raises(httpx.ConnectError, match="is not the attested one"):
                await made.get(f"{appliance.url}/v1/models")

    asyncio.run(ask())
    assert len(appliance.requests) == 1


@pytest.mark.parametrize("kind", ["requests", "httpx", "httpx, asyncio"])
def test_no_client_follows_to_another_server(kind: str, appliance: Appliance, files: Path) -> None:
    ask, error = clients(appliance, files)[kind]
    with serving(HONEST.document, tls_key("elsewhere")) as elsewhere:
        with pytest.raises(error, match="is not the attested one"):
            ask(f"{appliance.url}/away?{elsewhere.url}/v1/models")
        assert elsewhere.requests == []


@pytest.mark.parametrize("kind", ["requests", "httpx", "httpx, asyncio"])
def test_no_client_speaks_plain_http(kind: str, appliance: Appliance, files: Path) -> None:
    ask, error = clients(appliance, files)[kind]
    for url in (f"http://127.0.0.1:{appliance.port}/", f"{appliance.url}/away?http://127.0.0.1:1/"):
        with pytest.raises(error, match="https only"):
            ask(url)


@pytest.mark.parametrize("kind", ["requests", "httpx"])
def test_the_environment_changes_nothing(
    kind: str, appliance: Appliance, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    ask, _ = clients(appliance, files)[kind]
    assert ask(f"{appliance.url}/v1/models").status_code == 200


def test_a_session_cannot_be_talked_out_of_it(appliance: Appliance, files: Path) -> None:
    session = attested_session(appliance.url, files / "measurements.json", tpm_key=PINNED)
    with pytest.raises(requests.RequestException, match="not through a proxy"):
        session.get(f"{appliance.url}/v1/models", proxies={"https": "http://127.0.0.1:1"})
    appliance.take_key(tls_key("another"))
    for verify_option in (False, True):
        with pytest.raises(requests.RequestException, match="is not the attested one"):
            session.get(f"{appliance.url}/v1/models", verify=verify_option)
    with pytest.raises(HalError, match="chooses verify itself"):
        appliance.take_key(tls_key("gateway"))
        attested_client(
            appliance.url, files / "measurements.json", tpm_key=PINNED, httpx_options={"verify": False}
        )


def test_a_wrong_tcb_is_wrong_usage(appliance: Appliance, files: Path) -> None:
    done = hal_verify(appliance.url, files, "--minimum-tcb", "ucode=1")
    assert done.exit_code == 2
    with pytest.raises(UsageError):
        parse_place("ftp://x")


# --- what the documents tell people to type ------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "verify.md"


def shell_block(containing: str) -> str:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if containing in block)
    return str(found)


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    for program in ("openssl", "curl", "xxd"):
        if program in script and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return subprocess.run(
        ["sh", "-c", script], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )


def test_the_recipe_with_openssl_gives_the_attested_key(appliance: Appliance, files: Path) -> None:
    attested = json.loads(hal_verify(appliance.url, files, "--json").output)["tls_key_sha256"]
    done = shell(shell_block("openssl s_client"), host=f"127.0.0.1:{appliance.port}")
    assert done.stdout.split()[:1] == [attested], done.stderr


def test_the_recipe_with_curl_holds_to_the_key(appliance: Appliance) -> None:
    where = {"host": f"127.0.0.1:{appliance.port}", "https_proxy": "", "no_proxy": "*"}
    for key, good in ((tls_key("gateway"), True), (tls_key("another"), False)):
        done = shell(shell_block("--pinnedpubkey"), tls_key_sha256=sha256(spki(key)).hex(), **where)
        assert (done.returncode == 0) is good, done.stderr
        assert ('"object": "list"' in done.stdout) is good


def test_the_recipe_for_report_data_gives_it() -> None:
    situation = Situation()
    done = shell(
        shell_block("sha512sum"),
        nonce=situation.nonce.hex(),
        tls_key_sha256=situation.tls_key_sha256.hex(),
        manifest_sha256=sha256(situation.manifest).hex(),
    )
    assert done.stdout.split()[:1] == [situation.report_data.hex()], done.stderr


def test_what_the_documents_say_of_offsets_is_so() -> None:
    samples = Path(__file__).parents[1] / "data" / "evidence"
    quote = (samples / "tdx-ccel-quote.bin").read_bytes()
    assert quote[568:632] == (samples / "tdx-ccel-nonce.bin").read_bytes()
    report = (samples / "snp-report-milan.bin").read_bytes()
    assert report[80:144] == bytes([1, 2, 3, 4, 5]).ljust(64, b"\0")
