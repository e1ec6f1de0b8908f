"""Guardrails before the engine, and TLS with a key made at boot."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from hal.sandbox import Sandbox
from tests.services.gateways import (
    Answer,
    Gateway,
    GatewayMaker,
    Recorder,
    digest,
    free_port,
    make_key,
    wait_for,
)

TOKENS = f"  tokens: [{{name: a, sha256: {digest('a')}}}]\n"


class Rails:
    """A service that asks the engine through the gateway's inner listener, and passes the answer on."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, connection: socket.socket, request: bytes) -> None:
        _, _, body = request.partition(b"\r\n\r\n")
        head = f"POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port)) as inner:
            inner.sendall(head.encode() + body)
            answer = b""
            while chunk := inner.recv(65536):
                answer += chunk
        connection.sendall(answer)
        connection.close()


@pytest.fixture(scope="module")
def parts(open_gateway: GatewayMaker) -> Iterator[tuple[Gateway, Recorder, Recorder]]:
    inner = free_port()
    with Recorder() as engine, Recorder(serve=Rails(inner)) as rails:
        lines = f"  guardrails: {{url: 'http://127.0.0.1:{rails.port}/check', port: {inner}}}\n"
        engines = f"[{{llamacpp: {{port: {engine.port}}}}}, {{ollama: {{port: {free_port()}}}}}]"
        with open_gateway(TOKENS + lines, engines=engines, more="selector: {wait: 2}") as gateway:
            gateway.ready("engines/llamacpp")
            yield gateway, rails, engine


def test_chats_go_through_the_guardrails(parts: tuple[Gateway, Recorder, Recorder]) -> None:
    gateway, rails, engine = parts
    for path in ("/v1/chat/completions", "/legal/v1/chat/completions"):
        assert gateway.ask(path, token="a", body=b'{"x": 1}').status == 200
    assert rails.bytes.count(b"POST /check/v1/chat/completions HTTP/1.1") == 2
    assert b"authorization" not in rails.bytes.lower()
    assert engine.bytes.count(b"POST /v1/chat/completions HTTP/1.") == 2


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/completions", "/v1/responses", "/v1/messages", "/api/generate", "/v1/chat/completions/"),
        *("/v1/chat/completions/batch", "/v1/Chat/Completions", "/x/v1/completions", "/v1/audio/speech"),
        *("/api/chat/", "/v1/anything-new"),
    ],
)
def test_nothing_else_that_makes_text_passes_by(parts: tuple[Gateway, Recorder, Recorder], path: str) -> None:
    gateway, _, engine = parts
    before = engine.bytes
    answer = gateway.ask(path, token="a", body=b"{}")
    assert (answer.status, answer.code) == (403, "guardrails_required")
    assert engine.bytes == before


def test_the_rest_passes(parts: tuple[Gateway, Recorder, Recorder]) -> None:
    gateway, _, _ = parts
    assert gateway.ask("/v1/models", token="a").status == 200
    assert gateway.ask("/v1/embeddings", token="a", body=b"{}").status == 200
    assert gateway.ask("/v1/chat/completions", body=b"{}").status == 401


def test_without_guardrails_there_is_no_chat(open_gateway: GatewayMaker) -> None:
    with Recorder() as engine:
        lines = f"  guardrails: {{url: 'http://127.0.0.1:{free_port()}', port: {free_port()}}}\n"
        engines = f"[{{llamacpp: {{port: {engine.port}}}}}]"
        with open_gateway(lines, engines=engines) as gateway:
            gateway.ready("engines/llamacpp")
            answer = gateway.ask("/v1/chat/completions", body=b"{}")
            assert (answer.status, answer.code) == (503, "guardrails_unavailable") and answer.seconds < 5
            assert answer.headers["retry-after"] == "2"
            assert gateway.ask("/v1/models").status == 200
        assert b"chat" not in engine.bytes


def test_the_inner_listener_has_no_status_and_no_admin(parts: tuple[Gateway, Recorder, Recorder]) -> None:
    _, rails, _ = parts
    assert isinstance(rails.serve, Rails)
    for path in ("/api/v1/inference/status", "/metrics", "/v1/../x", "/"):
        with socket.create_connection(("127.0.0.1", rails.serve.port)) as inner:
            inner.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert Answer(inner.recv(65536)).status in (400, 404), path


@pytest.fixture(scope="module")
def secure(open_gateway: GatewayMaker) -> Iterator[Gateway]:
    with Recorder() as engine:
        engines = f"[{{llamacpp: {{port: {engine.port}}}}}]"
        with open_gateway(TOKENS, engines=engines, tls=True, variant="production") as gateway:
            gateway.ready("engines/llamacpp")
            yield gateway


def trusting(gateway: Gateway) -> ssl.SSLContext:
    """A client that knows the gateway's certificate, and is as strict as Python can be."""
    context = ssl.create_default_context(cafile=str(gateway.path("/run/hal/gateway/tls.pem")))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("name", ["alone", "localhost", "127.0.0.1"])
def test_the_certificate_verifies(secure: Gateway, name: str) -> None:
    with (
        socket.create_connection(("127.0.0.1", secure.port)) as plain,
        trusting(secure).wrap_socket(plain, server_hostname=name) as connection,
    ):
        assert connection.version() == "TLSv1.3"
        found: Any = connection.getpeercert()
        assert found["notBefore"] == "Jan  1 00:00:00 1970 GMT" and "9999" in found["notAfter"]
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_real_client_over_tls(secure: Gateway) -> None:
    with httpx.Client(verify=trusting(secure)) as http:
        client = openai.OpenAI(
            base_url=f"https://127.0.0.1:{secure.port}/v1", api_key="a", max_retries=0, http_client=http
        )
        assert list(client.models.list()) == []
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="b").models.list()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(secure: Gateway, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", secure.port)) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(plain)


def test_plain_http_is_not_answered_there(secure: Gateway) -> None:
    assert secure.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").raw[:4] != b"HTTP"


def test_the_key_is_made_once_and_for_its_owner_only(secure: Gateway, tools: Sandbox) -> None:
    key = secure.path("/run/hal/gateway/tls.pem")
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600 and b"PRIVATE KEY" in before
    make_key(secure.home, tools)
    assert key.read_bytes() == before, "a restart changed the key"
    assert not list(key.parent.glob("*.new"))


def test_http_probe_of_hal_boot(secure: Gateway) -> None:
    from hal.machine.qemu import http_probe

    assert http_probe(secure.port, tls=True)()
    assert http_probe(secure.port, "/v1/models", tls=True, accepts=lambda status: status == 401)()
    assert not http_probe(secure.port)()
    assert not http_probe(free_port(), tls=True)()


def test_metrics_without_the_selector(secure: Gateway) -> None:
    def metrics() -> str:
        response = httpx.get(
            f"https://127.0.0.1:{secure.port}/metrics",
            headers={"Authorization": "Bearer a"},
            verify=trusting(secure),
        )
        return response.text if response.status_code == 200 else ""

    assert 'haproxy_server_status{proxy="engines",server="llamacpp"' in wait_for(metrics, "HAProxy's own")
