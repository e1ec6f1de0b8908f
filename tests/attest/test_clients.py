"""The library: HTTP clients that talk to the attested key and to nobody else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import requests

from hal.errors import HalError
from hal.verify import (
    NotVerifiedError,
    attested_async_client,
    attested_client,
    attested_session,
)
from tests.attest.appliance import Appliance, serving, tls_key
from tests.attest.asking import HONEST, PINNED, unknown_pack


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
