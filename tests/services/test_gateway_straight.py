"""The short way to the engine that most requests take: it leads nowhere else than the long one."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.selector.routes import Request, Rule, Table, taken
from services.selector.unrouted import unrouted
from tests.services.gateways import Gateway, GatewayMaker, Recorder, digest
from tests.services.test_routes import RULES
from tests.services.test_routes_haproxy import words

PATHS = ("/v1/a", "/v1/b", "/v1/ab")
HEADER = st.one_of(st.none(), st.text(alphabet="abc", min_size=1, max_size=4))


def passes(line: str, headers: dict[str, str]) -> bool:
    """Whether HAProxy's test `routed` holds, for headers with these values."""
    _, name, sample, _, how, *rest = words(line)
    assert name == "routed"
    found = re.fullmatch(r"req\.fhdr\((\w+),-1\)(?:,bytes\((\d+)\))?", sample)
    assert found is not None, sample
    value, wanted = headers.get(found[1].lower()), rest[1] if rest else ""
    if value is None:
        return False
    value = value[int(found[2] or 0) :]
    plain = {"found": True, "str": value == wanted, "beg": value.startswith(wanted)}
    plain |= {"end": value.endswith(wanted), "sub": wanted in value}
    return plain[how] if how in plain else re.search(wanted, value) is not None


@settings(max_examples=400)
@given(rules=st.lists(RULES, max_size=6), x=HEADER, y=HEADER)
def test_no_route_takes_what_goes_straight(rules: list[Rule], x: str | None, y: str | None) -> None:
    table = Table(("one", "two"), tuple(rules))
    left, lines = unrouted(table, "POST", PATHS)
    headers = {name: value for name, value in (("x", x), ("y", y)) if value is not None}
    if not any(passes(line, headers) for line in lines):
        for path in left:
            assert taken(table, Request("POST", path, "", tuple(headers.items()))) is None


def test_routes_without_headers_cost_usual_requests_nothing() -> None:
    rules = (Rule(1, "one", path_prefix="/v1/b"), Rule(2, "one", domain="f"), Rule(3, "one", method="GET"))
    assert unrouted(Table(("one",), rules), "POST", PATHS) == (["/v1/a", "/v1/ab"], [])
    assert unrouted(Table(("one",), (Rule(1, "one", method="POST"),)), "POST", PATHS) == ([], [])


SPEC = f"""\
  tokens:
    - {{name: all, sha256: {digest("all")}}}
    - {{name: finance, sha256: {digest("finance")}, domains: [finance]}}
    - {{name: narrow, sha256: {digest("narrow")}, concurrency: 2}}
  limits: {{body: 1200}}
  routes:
    - {{name: team, header: {{X-Team: 'a*', X-Tier: gold}}, to: ollama}}
    - {{name: embeddings, path_prefix: /v1/embeddings, to: ollama}}
"""
STRAIGHT = "http-request allow if is_straight"


@pytest.fixture(scope="module")
def twins(open_gateway: GatewayMaker) -> Iterator[list[tuple[Gateway, Recorder, Recorder]]]:
    """Two gateways of the same spec with two engines each; the second has no short way."""

    def longer(text: str) -> str:
        assert text.count(STRAIGHT) == 1
        return text.replace(STRAIGHT, f"# {STRAIGHT}")

    with ExitStack() as stack:
        found = []
        for change in (str, longer):
            one, two = stack.enter_context(Recorder()), stack.enter_context(Recorder())
            engines = f"[{{llamacpp: {{port: {one.port}}}}}, {{ollama: {{port: {two.port}}}}}]"
            gateway = stack.enter_context(
                open_gateway(SPEC, engines=engines, variant="production", change=change)
            )
            gateway.ready("engines/llamacpp", "to-ollama/ollama")
            found.append((gateway, one, two))
        yield found


def seen(recorder: Recorder) -> bytes:
    """What an engine was sent, but for what each request has of its own."""
    found = re.sub(rb"(?i)x-request-id: \S+", b"", recorder.bytes)
    recorder.seen.clear()
    return found


def test_both_ways_lead_to_the_same(twins: list[tuple[Gateway, Recorder, Recorder]]) -> None:
    paths = ("/v1/chat/completions", "/v1/embeddings", "/finance/v1/chat/completions", "/v1/chat/../x", "/x")
    methods = ("POST", "GET", "TRACE", "PUT")
    tokens = ("all", "finance", "narrow", "wrong", "")
    bodies = (None, b"", b"{}", b"x" * 999, b"x" * 1000, b"x" * 1201)
    extra: tuple[dict[str, str], ...] = ({}, {"X-Team": "a-team", "X-Tier": "gold"}, {"X-Team": "a-team"})
    extra += ({"Origin": "http://x", "Upgrade": "h2c", "X-Request-ID": "mine"},)
    statuses: Counter[int] = Counter()
    for path, method, token, body, headers in itertools.product(paths, methods, tokens, bodies, extra):
        told = []
        for gateway, one, two in twins:
            answer = gateway.ask(path, token=token, method=method, headers=headers, body=body)
            assert re.fullmatch(r"\d+(-\d+){2}", answer.headers["x-request-id"])
            kept = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
            told.append((answer.status, kept, answer.body, seen(one), seen(two)))
        assert told[0] == told[1], (path, method, token, body, headers)
        statuses[told[0][0]] += 1
    assert min(statuses[status] for status in (200, 400, 401, 403, 404, 405, 411, 413)) > 10


def test_no_engine_waits_for_a_body_that_comes_straight(
    twins: list[tuple[Gateway, Recorder, Recorder]],
) -> None:
    gateway, engine, _ = twins[0]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer all\r\n"
    engine.seen.clear()
    gateway.send(head + b"Content-Length: 5\r\n\r\n{", 1)
    assert engine.bytes == b""


def test_while_no_engine_is_ready_nothing_goes_straight(
    twins: list[tuple[Gateway, Recorder, Recorder]],
) -> None:
    gateway, engine, _ = twins[0]
    engine.seen.clear()
    gateway.admin("set server switch/serving state maint", "set server switch/hopeless state ready")
    answer = gateway.ask("/v1/chat/completions", token="all", body=b"{}")
    assert (answer.status, answer.code, engine.bytes) == (503, "no_engine_expected", b"")
