"""The guard: tokens and their domains, limits, bodies, what an engine sees of a request."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.services.gateways import Gateway, GatewayMaker, Recorder, digest, later, wait_for

TOKENS = f"""\
  tokens:
    - {{name: all, sha256: {digest("all")}}}
    - {{name: finance, sha256: {digest("finance")}, domains: [finance, legal.2]}}
    - {{name: slow, sha256: {digest("slow")}, rate: 5}}
    - {{name: narrow, sha256: {digest("narrow")}, concurrency: 2}}
"""


@pytest.fixture(scope="module")
def gateway(open_gateway: GatewayMaker, engine: Recorder) -> Iterator[Gateway]:
    engines = f"[{{llamacpp: {{port: {engine.port}}}}}]"
    with open_gateway(TOKENS, engines=engines, variant="production") as found:
        found.ready("engines/llamacpp")
        yield found


def test_each_token_opens(gateway: Gateway) -> None:
    for token in ("all", "slow", "narrow"):
        assert gateway.ask(token=token).status == 200
    for token in ("", "wrong", digest("all"), "ALL", f"all{'x' * 4000}"):
        answer = gateway.ask(token=token)
        assert (answer.status, answer.code) == (401, "invalid_api_key"), token
        assert answer.headers["www-authenticate"] == 'Bearer realm="hal"'


@pytest.mark.parametrize(
    ("path", "opens"),
    [
        ("/finance/v1/models", True),
        ("/legal.2/v1/models", True),
        ("/api/v1/inference/status", True),
        ("/v1/models", False),
        ("/hr/v1/models", False),
        ("/Finance/v1/models", False),
        ("/finance", False),
        ("/metrics", False),
        ("/metrics/selector", False),
        ("/api/tags", False),
    ],
)
def test_a_tokens_domains(gateway: Gateway, path: str, opens: bool) -> None:
    answer = gateway.ask(path, token="finance")
    if opens:
        assert answer.status != 403  # the status is the selector's, which is not there
    else:
        assert answer.status in (403, 404)
        assert answer.code in ("forbidden", "not_found")
    assert gateway.ask("/anything/v1/models", token="all").status == 200


def test_a_rate_is_exact_and_says_when_to_come_back(gateway: Gateway) -> None:
    done = [gateway.ask(token="slow") for _ in range(12)]
    good = [answer.status for answer in done].count(200)
    assert good in (4, 5), "one may have been made by another test"
    refused = done[-1]
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["content-type"] == "application/json"
    assert gateway.ask("/api/tags", token="slow").body.startswith(b'{"error": "Too many')
    assert gateway.ask(token="all").status == 200, "another token's limit"


def test_requests_at_the_same_time(gateway: Gateway, engine: Recorder) -> None:
    go = threading.Event()

    def held(connection: socket.socket, request: bytes) -> None:
        go.wait(10)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    engine.serve = held
    waiting = [later(lambda: gateway.ask("/v1/held", token="narrow")) for _ in range(2)]
    wait_for(lambda: engine.bytes.count(b"/v1/held") == 2, "both are at the engine")
    refused = gateway.ask("/v1/third", token="narrow")
    assert (refused.status, refused.code) == (429, "concurrency_limit_exceeded")
    assert refused.headers["retry-after"] == "1"
    go.set()
    assert [result().status for result in waiting] == [204, 204]
    assert gateway.ask("/v1/after", token="narrow").status == 204
    assert b"/v1/third" not in engine.bytes


def test_tokens_change_while_it_runs(gateway: Gateway) -> None:
    """As the selector does it: all entries at once, by a version of the map."""
    path = gateway.path("/etc/hal/gateway/tokens.map")
    version = gateway.admin(f"prepare map {path}").split()[-1]
    record = f"@{version} {path} {digest('new').upper()} new:0:0:all"
    gateway.admin(f"add map {record}")
    assert gateway.ask(token="new").status == 401, "not before it is all there"
    gateway.admin(f"commit map @{version} {path}")
    assert gateway.ask(token="new").status != 401
    assert gateway.ask(token="all").status == 401
    version = gateway.admin(f"prepare map {path}").split()[-1]
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            gateway.admin(f"add map @{version} {path} {line}")
    gateway.admin(f"commit map @{version} {path}")
    assert gateway.ask(token="all").status != 401


def test_each_request_of_a_connection_needs_its_own_token(gateway: Gateway) -> None:
    """A digest is kept for the connection, so all orders of tokens, wrong ones and none are tried on one."""
    path = gateway.path("/etc/hal/gateway/tokens.map")
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=10)

    def ask(*given: str) -> bool:
        connection.putrequest("GET", "/v1/models")
        for value in given:
            connection.putheader("Authorization", value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 401 or answer.status < 300
        return answer.status != 401

    kinds = {
        "Bearer all": True,
        "Bearer narrow": True,
        "Bearer wrong": False,
        "Basic all": False,
        "Bearer": False,
        "": False,
    }
    for first, second in itertools.product(kinds, repeat=2):
        for kind in (first, second, second, first):
            assert ask(*([kind] if kind else [])) is kinds[kind], (first, second, kind)
    assert ask("Bearer all") and ask("Bearer all", "Bearer wrong") and not ask("Bearer wrong", "Bearer all")
    assert not ask("Bearer wrong") and ask("Bearer all")
    opened = connection.sock
    gateway.admin(f"del map {path} {digest('all').upper()}")
    assert not ask("Bearer all"), "a token that is taken back counts no more on a connection that is open"
    gateway.admin(f"add map {path} {digest('all').upper()} all:0:0:all")
    assert ask("Bearer all")
    assert connection.sock is opened is not None, "all on one connection"


def test_an_engine_sees_what_it_should(gateway: Gateway, engine: Recorder) -> None:
    headers = {
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Tracestate": "vendor=value",
        "X-Request-ID": "client-made",
        "Origin": "https://elsewhere.example",
        "Upgrade": "h2c",
        "Connection": "close, Upgrade",
        "X-HAL-Reason": "none",
    }
    answer = gateway.ask("/finance/v1/seen?query=1", token="finance", headers=headers)
    seen = next(bytes(each) for each in engine.seen if b"/v1/seen" in each)
    assert seen.startswith(b"GET /v1/seen?query=1 HTTP/1.1\r\n"), "the domain is taken off"
    lower = seen.lower()
    assert b"authorization" not in lower and b"bearer" not in lower and b"finance" not in lower
    assert b"origin:" not in lower and b"upgrade" not in lower and b"client-made" not in lower
    assert headers["Traceparent"].encode() in seen and b"tracestate: vendor=value" in lower
    assert b"host: localhost\r\n" in lower
    identity = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9A-F]+(-[0-9A-F]+){2}", identity)
    assert identity.encode() in seen


def test_bodies_have_a_limit_of_the_specs(open_gateway: GatewayMaker) -> None:
    with (
        Recorder() as engine,
        open_gateway(
            "  limits: {body: 1K, rate: 100}", engines=f"[{{llamacpp: {{port: {engine.port}}}}}]"
        ) as gateway,
    ):
        gateway.ready("engines/llamacpp")
        assert gateway.ask(body=b"x" * 1024).status == 200
        answer = gateway.ask(body=b"y" * 1025)
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert b"larger than 1024 bytes" in answer.body
        assert b"y" not in engine.bytes.partition(b"xxxx")[2]


def test_without_tokens_limits_are_for_addresses(open_gateway: GatewayMaker) -> None:
    with (
        Recorder() as engine,
        open_gateway("  limits: {rate: 3}", engines=f"[{{llamacpp: {{port: {engine.port}}}}}]") as gateway,
    ):
        gateway.ready("engines/llamacpp")
        assert [gateway.ask().status for _ in range(5)] == [200, 200, 200, 429, 429]
        assert gateway.ask("/health").status == 200


def test_production_is_closed_without_tokens(open_gateway: GatewayMaker) -> None:
    """hal refuses such a spec; its files would refuse everybody all the same."""
    with open_gateway(TOKENS, variant="production") as gateway:
        gateway.ready("engines/llamacpp")
        gateway.admin(f"clear map {gateway.path('/etc/hal/gateway/tokens.map')}")
        assert gateway.ask(token="all").status == 401
        assert gateway.ask("/health").status == 200
