"""What the selector reads from others: answers of engines, requests, its configuration. None may break it."""

from __future__ import annotations

import json
import select
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selector import core
from services.selector.config import ConfigError, EngineConfig, parse
from services.selector.core import Verdict
from services.selector.probe import Probe, listed_models, parse_answer
from services.selector.status import STATUS_PATH, answer, metrics
from tests.services.test_core import config

GOOD = {
    "policy": "auto",
    "gateway_socket": "/g",
    "status_socket": "/s",
    "engines": [
        {
            "name": "a",
            "host": "127.0.0.1",
            "port": 1,
            "base_url": "http://x/v1",
            "health_path": "/health",
            "health_status": 200,
            "models_path": "/v1/models",
            "model": "m",
            "orchestrator_model": "m",
            "server": "engines/a",
        }
    ],
}


@given(st.binary())
def test_any_answer_of_an_engine(raw: bytes) -> None:
    status, _ = parse_answer(raw)
    assert 0 <= status <= 999


@given(
    st.binary() | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_list_of_models(value: object) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    assert all(isinstance(name, str) for name in listed_models(body))


def test_models_are_read() -> None:
    assert listed_models(b'{"data": [{"id": "a"}, {"id": "b"}]}') == {"a", "b"}
    assert listed_models(b"[" * 100_000) == frozenset()


@given(st.binary())
def test_any_request(raw: bytes) -> None:
    reply = answer(raw, core.initial(config(), 0), config())
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert f"Content-Length: {len(body)}".encode() in head or raw.startswith(b"HEAD")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (f"GET {STATUS_PATH} HTTP/1.1", 200),
        (f"HEAD {STATUS_PATH}?x=1 HTTP/1.0", 200),
        ("GET /metrics HTTP/1.1", 200),
        (f"POST {STATUS_PATH} HTTP/1.1", 405),
        ("GET /other HTTP/1.1", 404),
        ("nonsense", 400),
    ],
)
def test_requests(request_line: str, status: int) -> None:
    reply = answer(f"{request_line}\r\nHost: x\r\n\r\n".encode(), core.initial(config(), 0), config())
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())


def test_metrics_have_a_series_per_engine() -> None:
    text = metrics(core.initial(config(), 0))
    assert text.count("hal_selector_engine_healthy{") == 3
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"policy": "vllm"}, "neither auto nor one of a"),
        ({"engines": []}, "no engines"),
        ({"engines": GOOD["engines"] * 2}, "same name"),  # type: ignore[operator]
        ({"engines": [{**GOOD["engines"][0], "port": "1"}]}, "port must be a whole number"),  # type: ignore[index]
        ({"engines": [{**GOOD["engines"][0], "model": "a\nb"}]}, "model must be one line"),  # type: ignore[index]
        ({"status_socket": None}, "status_socket must be one line of text"),
    ],
)
def test_bad_configurations(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse(json.dumps(GOOD | change))


@given(
    st.text() | st.recursive(st.none() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_configuration(value: object) -> None:
    with pytest.raises(ConfigError):
        parse(value if isinstance(value, str) else json.dumps(value))


def serve(*answers: bytes) -> EngineConfig:
    """An engine that gives these answers, one per connection, and closes each."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def run() -> None:
        with listener:
            for reply in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(reply)

    threading.Thread(target=run, daemon=True).start()
    return EngineConfig(
        "a",
        "127.0.0.1",
        port,
        "",
        "/health",
        200,
        "/v1/models",
        "tiny",
        "tiny",
        "engines/a",
    )


def probe(engine: EngineConfig) -> core.Probed:
    found = Probe(engine, 0)
    result = found.start()
    while result is None:
        poller = select.poll()
        poller.register(found.fileno(), found.interest)
        assert poller.poll(5000), "the probe waits for nothing"
        result = found.ready()
    return result


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "verdict", "reason"),
    [
        ((OK, OK + b'{"data": [{"id": "tiny"}]}'), Verdict.GOOD, "the model is listed"),
        ((OK, OK + b'{"data": []}'), Verdict.WRONG, "tiny is not listed"),
        ((OK, b"HTTP/1.1 500 X\r\n\r\n"), Verdict.WRONG, "tiny is not listed"),
        ((b"HTTP/1.1 503 X\r\n\r\n",), Verdict.WRONG, "/health answered 503"),
        ((b"",), Verdict.WRONG, "/health answered no HTTP"),
        ((b"x" * 1_100_000,), Verdict.WRONG, "too long"),
    ],
)
def test_probes(answers: tuple[bytes, ...], verdict: str, reason: str) -> None:
    result = probe(serve(*answers))
    assert result.verdict == verdict and reason in result.reason


def test_probe_of_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = probe(serve()._replace(port=port))
    assert (result.verdict, result.reason) == (Verdict.REFUSED, "nothing listens")


def test_an_engine_whose_models_are_not_asked_for() -> None:
    assert probe(serve(OK)._replace(models_path="")).verdict == Verdict.GOOD
