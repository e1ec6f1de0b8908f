"""The real gateway in front of the real attestor: no token is needed, and no other door opens wider."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from hal.cli.main import main
from hal.sandbox import Sandbox
from tests.attest.machines import measurements
from tests.attest.software_tpm import software_tpm
from tests.services.attestor_world import Attestor, attestor, places
from tests.services.gateways import Gateway, GatewayMaker, digest
from tests.services.test_attestor_tpm import LOG, PLATFORMS, measured

NONCE = "ab" * 32
TOKENS = f"  tokens: [{{name: a, sha256: {digest('secret')}}}]"


@pytest.fixture
def gateway(open_gateway: GatewayMaker) -> Iterator[Gateway]:
    with open_gateway(TOKENS, tls=True, variant="production") as running:
        running.path("/run/hal/attestor").mkdir(parents=True)
        yield running


def beside(gateway: Gateway) -> Any:
    """The paths of an attestor beside this gateway."""
    found = places(gateway.home / "machine")
    socket, certificate = "/run/hal/attestor/http.sock", "/run/hal/gateway/certificate.pem"
    return found._replace(socket=str(gateway.path(socket)), certificate=str(gateway.path(certificate)))


@pytest.fixture
def served(gateway: Gateway) -> Iterator[Attestor]:
    with attestor(beside(gateway)) as running:
        yield running


def get(gateway: Gateway, path: str, method: str = "GET", **options: Any) -> requests.Response:
    url = f"https://127.0.0.1:{gateway.port}{path}"
    return requests.request(method, url, verify=False, timeout=20, **options)


def test_a_machine_is_verified_through_its_gateway(gateway: Gateway, tools: Sandbox, tmp_path: Path) -> None:
    found = beside(gateway)._replace(tpm=f"{gateway.home}/tpm/socket")
    Path(found.tpm_event_log).write_bytes(LOG)
    (tmp_path / "measurements.json").write_text(measurements(PLATFORMS).text())
    with software_tpm(tools, gateway.home / "tpm") as tpm:
        measured(tpm, LOG)
        (tmp_path / "key").write_bytes(tpm.key)
        tpm.connection.close()
        with attestor(found):
            arguments = ["verify", f"https://127.0.0.1:{gateway.port}", "--tpm-key", str(tmp_path / "key")]
            done = CliRunner().invoke(
                main, [*arguments, "--measurements", str(tmp_path / "measurements.json")]
            )
    assert done.exit_code == 0, done.output


def test_no_token_is_needed_and_none_gets_through(gateway: Gateway, served: Attestor) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer secret"}):
        answer = get(gateway, f"/attestation?nonce={NONCE}", headers=headers)
        assert answer.status_code == 200
        assert answer.json()["nonce"] == NONCE
        assert answer.headers["cache-control"] == "no-store"
    answer = get(gateway, "/attestation", "POST", json={"nonce": NONCE})
    assert answer.json()["platform"] == "none"
    assert get(gateway, "/v1/models").status_code == 401
    assert get(gateway, "/metrics").status_code == 401


def test_the_key_that_it_names_is_the_connections(gateway: Gateway, served: Attestor) -> None:
    from hal.attest.connection import fetch_document, parse_place

    text, key = fetch_document(parse_place(f"https://127.0.0.1:{gateway.port}"), bytes(32), 20)
    assert json.loads(text)["tls_key_sha256"] == key.hex()


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/attestation", "GET", None, 400),
        ("/attestation?nonce=12", "GET", None, 400),
        (f"/attestation?nonce={NONCE}&report_data=00", "GET", None, 400),
        ("/attestation", "POST", b"{}", 400),
        ("/attestation", "POST", b"x" * 5000, 413),
        (f"/attestation?nonce={NONCE}", "DELETE", None, 405),
        (f"/attestation/?nonce={NONCE}", "GET", None, 401),
        (f"/x/attestation?nonce={NONCE}", "GET", None, 401),
    ],
)
def test_bad_questions(
    gateway: Gateway, served: Attestor, path: str, method: str, body: bytes | None, status: int
) -> None:
    answer = get(gateway, path, method, data=body)
    assert answer.status_code == status
    assert "message" in answer.json()["error"]


def test_a_body_in_chunks_has_no_length(gateway: Gateway, served: Attestor) -> None:
    assert get(gateway, "/attestation", "POST", data=iter([b'{"nonce": ""}'])).status_code == 411


def test_one_address_asks_so_often(gateway: Gateway, served: Attestor) -> None:
    answers = [get(gateway, "/attestation?nonce=1") for _ in range(65)]
    assert [answer.status_code for answer in answers] == [400] * 60 + [429] * 5
    assert answers[-1].json()["error"]["code"] == "too_many_questions"
    assert answers[-1].headers["retry-after"] == "10"
    # All else goes on.
    headers = {"Authorization": "Bearer secret"}
    assert get(gateway, "/metrics", headers=headers).status_code == 200


def test_without_an_attestor_it_says_so(gateway: Gateway) -> None:
    answer = get(gateway, f"/attestation?nonce={NONCE}")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_evidence"


def test_only_the_certificate_may_be_read_by_others(gateway: Gateway) -> None:
    directory = gateway.path("/run/hal/gateway")
    modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert modes.pop("certificate.pem") == 0o644
    assert modes["tls.pem"] == 0o600
    assert not [name for name, mode in modes.items() if mode & 0o007]
    text = (directory / "certificate.pem").read_bytes()
    assert b"PRIVATE" not in text
    assert base64.b64decode(b"".join(text.splitlines()[1:-1]))


def test_without_tls_nothing_is_bound(open_gateway: GatewayMaker) -> None:
    with open_gateway("  limits: {body: 1M}") as plain:
        plain.path("/run/hal/attestor").mkdir(parents=True)
        with attestor(beside(plain)):
            found = requests.get(
                f"http://127.0.0.1:{plain.port}/attestation?nonce={NONCE}", timeout=20
            ).json()
    assert found["tls_key_sha256"] is None
    assert found["evidence"] == {}
