"""While engines change places: requests wait, or are tried again, and none ends whole by mistake."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.services.gateways import Gateway, GatewayMaker, Recorder, later, wait_for

CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(text: str) -> bytes:
    """A server-sent event as a chunk of an HTTP body."""
    data = f"data: {text}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Streams:
    """Answers with words until told to end, or to break off."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.broken = False

    def __call__(self, connection: socket.socket, request: bytes) -> None:
        connection.sendall(HEAD)
        while not self.end.wait(0.02):
            connection.sendall(event(json.dumps(CHUNK)))
        if self.broken:
            connection.close()
        else:
            connection.sendall(event("[DONE]") + b"0\r\n\r\n")


@pytest.fixture
def engine() -> Iterator[Recorder]:
    with Recorder() as found:
        yield found


@pytest.fixture
def gateway(open_gateway: GatewayMaker, engine: Recorder) -> Iterator[Gateway]:
    engines = f"[{{llamacpp: {{port: {engine.port}}}}}, ollama]"
    with open_gateway("", engines=engines, more="selector: {wait: 3, queue: 4}") as found:
        yield found


def test_requests_wait_for_an_engine(gateway: Gateway) -> None:
    asked = [later(gateway.ask) for _ in range(3)]
    time.sleep(0.5)
    gateway.ready("engines/llamacpp")
    for result in asked:
        answer = result()
        assert answer.status == 200 and answer.seconds < 1.5
    assert gateway.ask().seconds < 0.3


def test_waiting_has_an_end(gateway: Gateway) -> None:
    answer = gateway.ask()
    assert (answer.status, answer.code) == (503, "no_engine_ready")
    assert answer.headers["retry-after"] == "2" and 2.9 < answer.seconds < 4


def test_waiting_has_a_bound(gateway: Gateway) -> None:
    asked = [later(gateway.ask) for _ in range(4)]
    time.sleep(0.5)
    answer = gateway.ask()
    assert (answer.status, answer.code) == (503, "queue_full") and answer.seconds < 0.3
    assert answer.headers["retry-after"] == "5"
    for path in ("/health", "/api/v1/inference/status", "/metrics"):
        assert gateway.ask(path).seconds < 0.5, f"{path} waited"
    assert [result().status for result in asked] == [503] * 4
    gateway.ready("engines/llamacpp")
    assert gateway.ask().status == 200, "those that gave up are still counted"


def test_nobody_waits_in_vain(gateway: Gateway) -> None:
    """Where no engine can get ready in time, also those that wait already get their answer."""
    asked = [later(gateway.ask) for _ in range(4)]
    time.sleep(0.5)
    gateway.admin("set server switch/hopeless state ready")
    for result in asked:
        answer = result()
        assert (answer.status, answer.code) == (503, "no_engine_expected") and answer.seconds < 1.2
        assert answer.headers["retry-after"] == "30"
    answer = gateway.ask(body=b"{}")
    assert (answer.status, answer.code) == (503, "no_engine_expected") and answer.seconds < 0.3
    assert gateway.ask("/health").status == 503
    gateway.admin("set server switch/hopeless state maint")
    waiting = later(gateway.ask)
    time.sleep(0.5)
    gateway.ready("engines/llamacpp")
    assert waiting().status == 200
    gateway.admin("set server switch/hopeless state ready")
    assert gateway.ask(body=b"{}").status == 200, "what says that requests go on counts first"


def test_what_is_tried_again_at_a_dead_engine_ends_with_hope(gateway: Gateway, engine: Recorder) -> None:
    engine.__exit__()
    gateway.ready("engines/llamacpp")
    asked = later(gateway.ask)
    time.sleep(0.5)
    gateway.admin(
        "set server switch/serving state maint",
        "set server switch/hopeless state ready",
        "set server engines/llamacpp state maint",
    )
    answer = asked()
    assert answer.status == 503 and answer.seconds < 2


def test_clients_that_go_away_are_not_counted_for_ever(gateway: Gateway) -> None:
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.3)
    wait_for(lambda: gateway.ask(seconds=0.5).status != 503, "a place is free again", 10)
    gateway.ready("engines/llamacpp")
    assert gateway.ask().status == 200
    assert "Lua" not in gateway.log


def test_a_refused_connection_is_tried_again_elsewhere(gateway: Gateway, engine: Recorder) -> None:
    """The active engine has died; another takes over before the time is up."""
    engine.__exit__()
    gateway.ready("engines/llamacpp")
    with Recorder() as other:
        asked = later(lambda: gateway.ask(body=b"{}"))
        time.sleep(0.7)
        gateway.admin(f"set server engines/ollama addr 127.0.0.1 port {other.port}")
        gateway.ready("engines/ollama")
        gateway.admin("set server engines/llamacpp state maint")
        answer = asked()
    assert answer.status == 200 and answer.seconds < 3
    assert other.bytes.count(b"POST /v1/models") == 1


def test_nobody_takes_over(gateway: Gateway, engine: Recorder) -> None:
    engine.__exit__()
    gateway.ready("engines/llamacpp")
    answer = gateway.ask()
    assert (answer.status, answer.code) == (503, "no_engine_ready")
    assert answer.headers["retry-after"] == "2" and 2.5 < answer.seconds < 5


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_what_may_have_reached_an_engine_is_not_sent_twice(
    gateway: Gateway, engine: Recorder, after: bytes
) -> None:
    def dies(connection: socket.socket, request: bytes) -> None:
        connection.sendall(after)
        connection.close()

    engine.serve = dies
    gateway.ready("engines/llamacpp")
    answer = gateway.ask(body=b"{}")
    assert (answer.status, answer.code) == (502, "engine_failed") and answer.seconds < 1
    assert engine.bytes.count(b"POST /v1/models") == 1


def client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none", max_retries=0, timeout=10
    )


@pytest.mark.parametrize("cut", ["by the gateway", "by the engine"])
def test_a_broken_stream_looks_broken_at_once(gateway: Gateway, engine: Recorder, cut: str) -> None:
    engine.serve = streams = Streams()
    streams.broken = True
    gateway.ready("engines/llamacpp")
    words = 0
    with pytest.raises((openai.APIError, httpx.HTTPError)) as error:
        answer = client(gateway).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        for _ in answer:
            words += 1
            if words == 5:
                began = time.monotonic()
                if cut == "by the gateway":
                    gateway.admin("shutdown sessions server engines/llamacpp")
                else:
                    streams.end.set()
    streams.end.set()
    assert words >= 5 and time.monotonic() - began < 1
    assert not isinstance(error.value, httpx.TimeoutException)


def test_streams_go_on_where_they_are(gateway: Gateway, engine: Recorder) -> None:
    """An engine in maintenance keeps its streams; new requests go to the other."""
    engine.serve = streams = Streams()
    gateway.ready("engines/llamacpp")
    chat = client(gateway).chat.completions
    hello: Any = [{"role": "user", "content": "Hi"}]
    reading = later(lambda: list(chat.create(model="m", messages=hello, stream=True)))
    wait_for(lambda: engine.open == 1, "the stream runs")
    with Recorder() as other:
        gateway.admin(f"set server engines/ollama addr 127.0.0.1 port {other.port}")
        gateway.ready("engines/ollama")
        gateway.admin("set server engines/llamacpp state maint")
        assert gateway.ask(body=b"{}").status == 200
        assert other.bytes and engine.open == 1
        time.sleep(0.3)
        streams.end.set()
        assert len(reading()) > 10


def test_an_engine_stops_for_a_client_that_has_gone(gateway: Gateway, engine: Recorder) -> None:
    gone = threading.Event()

    def watch(connection: socket.socket, request: bytes) -> None:
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        gone.set()

    engine.serve = watch
    gateway.ready("engines/llamacpp")
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.sendall(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        wait_for(lambda: b"/v1/x" in engine.bytes, "the engine has it")
    assert gone.wait(2), "the engine computes for nobody"
