"""The real gateway, selector and engine together, as clients see them."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.services.conftest import DEADLINE, Stack, StackMaker, wait_for
from tests.tiny_model import ANSWER, NAME

STATUS = "/api/v1/inference/status"
HELLO: Any = [{"role": "user", "content": "Hi"}]


def client(stack: Stack, prefix: str = "", key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}{prefix}/v1", api_key=key, max_retries=0, timeout=DEADLINE)


def raw(stack: Stack, request: bytes) -> bytes:
    """The answer to bytes sent as they are."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=DEADLINE) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        while len(body) < length:
            body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def error_code(answer: Any) -> str:
    """An error's code, in the OpenAI API's shape or in that of Ollama's own."""
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    return str(error["code"] if isinstance(error, dict) else answer.json()["code"])


@pytest.mark.parametrize("prefix", ["", "/research"])
def test_models_are_listed(stack: Stack, prefix: str) -> None:
    assert [model.id for model in client(stack, prefix).models.list()] == [NAME]


@pytest.mark.parametrize("prefix", ["", "/research"])
def test_chat(stack: Stack, prefix: str) -> None:
    answer = client(stack, prefix).chat.completions.create(model=NAME, messages=HELLO)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"


def test_chat_streamed(stack: Stack) -> None:
    stream = client(stack).chat.completions.create(model=NAME, messages=HELLO, stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(piece for piece in pieces if piece) == ANSWER
    assert len([piece for piece in pieces if piece]) > 3, "the answer came in one lump"


def test_status(stack: Stack) -> None:
    status = stack.get(STATUS).json()
    assert list(status) == ["backend", "base_url", "model", "orchestrator_model", "healthy"]
    assert status["backend"] == "llamacpp" and status["model"] == NAME and status["healthy"] is True
    assert status["base_url"].startswith("http://127.0.0.1:")


def test_health(stack: Stack) -> None:
    assert stack.get("/health").json() == {"status": "ok"}


def test_metrics(stack: Stack) -> None:
    assert "haproxy_backend_http_responses_total" in stack.get("/metrics").text
    assert 'hal_selector_engine_healthy{engine="llamacpp"} 1' in stack.get("/metrics/selector").text


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/models", "/props", "/slots", "/research/v2/models", "/a/b/v1/x"]
)
def test_paths_that_are_not_the_api(stack: Stack, path: str) -> None:
    answer = stack.get(path)
    assert answer.status_code == 404 and error_code(answer) == "not_found"


@pytest.mark.parametrize("path", ["/api/tags", "/api/v1/models", "/api", f"{STATUS}/x"])
def test_ollamas_api_says_that_it_is_off(stack: Stack, path: str) -> None:
    answer = stack.get(path)
    assert answer.status_code == 404 and error_code(answer) == "ollama_not_active"
    assert "active engine" in answer.json()["error"], "not in the shape that Ollama's clients read"


@pytest.mark.parametrize(
    "path", ["/v1/../slots", "/v1/%2e%2e/slots", "/v1//models", "/v1/%2Fslots", "/x/v1/./models", "/v1/.."]
)
def test_path_tricks_are_refused(stack: Stack, path: str) -> None:
    answer = raw(stack, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_malformed_http_is_refused(stack: Stack) -> None:
    """HAProxy's parser answers with a text of its own here, before any rule of the configuration."""
    assert raw(stack, b"GARBAGE\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_http2_is_not_spoken(stack: Stack) -> None:
    assert raw(stack, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_body_needs_a_length(stack: Stack) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"{}"

    answer = stack.get("/v1/chat/completions", "POST", content=chunks())
    assert answer.status_code == 411 and error_code(answer) == "length_required"


def test_a_body_has_a_limit(stack: Stack) -> None:
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 33554433\r\n\r\n{"
    answer = raw(stack, request)
    assert answer.startswith(b"HTTP/1.1 413 ") and b'"body_too_large"' in answer


def test_each_request_has_an_id(stack: Stack) -> None:
    first, second = (stack.get("/v1/models", headers={"X-Request-ID": "mine"}) for _ in range(2))
    ids = {answer.headers["x-request-id"] for answer in (first, second)}
    assert len(ids) == 2 and "mine" not in ids


def test_an_engines_error_passes(stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError):
        client(stack).completions.create(model=NAME, prompt="too long " * 1000)


def test_nothing_of_a_prompt_is_logged(stack: Stack) -> None:
    secret = "Xylophone-Zebra-4711"
    messages: Any = [{"role": "user", "content": secret}]
    assert client(stack).chat.completions.create(model=NAME, messages=messages).choices
    stack.get(f"/nowhere?q={secret}")
    for name in ("gateway", "selector", "engine"):
        assert secret not in stack.log(name)


# From here on, parts are killed; each test leaves the stack as it found it.


def test_killed_engine(stack: Stack) -> None:
    stack.kill("engine")
    answer = stack.get("/v1/models")
    assert answer.status_code in (502, 503) and error_code(answer) in ("engine_failed", "no_engine_ready")
    wait_for(lambda: stack.get(STATUS).json()["healthy"] is False, "status says unhealthy", 5)
    health = stack.get("/health")
    assert health.status_code == 503 and error_code(health) == "no_engine_ready"
    assert health.headers["retry-after"] == "2"
    assert "/health" not in stack.log("gateway")
    stack.start("engine")
    wait_for(lambda: stack.status_of("/health") == 200, "the engine is back")
    assert stack.get(STATUS).json()["healthy"] is True
    assert (
        client(stack).chat.completions.create(model=NAME, messages=HELLO).choices[0].message.content == ANSWER
    )


def test_killed_selector(stack: Stack) -> None:
    stack.kill("selector")
    assert (
        client(stack).chat.completions.create(model=NAME, messages=HELLO).choices[0].message.content == ANSWER
    )
    assert stack.status_of("/health") == 200
    answer = stack.get(STATUS)
    assert answer.status_code == 503 and error_code(answer) == "no_status"
    stack.start("selector")
    wait_for(lambda: stack.status_of(STATUS) == 200, "the selector is back")
    wait_for(lambda: stack.get(STATUS).json()["healthy"] is True, "it has seen the engine")


def test_killed_gateway(stack: Stack) -> None:
    stack.kill("gateway")
    wait_for(lambda: stack.get("/health") is None, "nobody listens")
    stack.start("gateway")
    # A new HAProxy has its server in maintenance: only the selector makes it ready again.
    wait_for(lambda: stack.status_of("/health") == 200, "the selector has set the server again", 5)
    assert client(stack).models.list().data[0].id == NAME


def test_stopped_selector_cleans_up(stack: Stack) -> None:
    assert stack.kill("selector", signal.SIGTERM) == 0
    assert not (stack.home / "run/hal/selector/http.sock").exists()
    stack.start("selector")
    wait_for(lambda: stack.status_of(STATUS) == 200, "the selector is back")


def test_selector_is_small(stack: Stack) -> None:
    pid = stack.processes["selector"].pid
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    assert resident < 40_000, f"{resident} kB"


# Each of these needs a stack of its own.


def test_a_token_is_needed(make_stack: StackMaker) -> None:
    digest = hashlib.sha256(b"s3cret").hexdigest()
    with make_stack("production", f"[{{name: alice, sha256: {digest}}}]") as stack:
        for name in ("gateway", "selector", "engine"):
            stack.start(name)
        wait_for(lambda: stack.status_of("/health") == 200, "health needs no token")
        good = {"Authorization": "Bearer s3cret"}
        for path in ("/v1/models", STATUS, "/metrics", "/nowhere", "/api/tags"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
                answer = stack.get(path, headers=headers)
                assert answer.status_code == 401 and error_code(answer) == "invalid_api_key"
                assert answer.headers["www-authenticate"] == 'Bearer realm="hal"'
            assert stack.status_of(path, headers=good) in (200, 404)
        with pytest.raises(openai.AuthenticationError):
            client(stack).models.list()
        assert client(stack, key="s3cret").models.list().data[0].id == NAME
        assert "s3cret" not in stack.log("gateway")


def test_an_engine_never_sees_the_token(make_stack: StackMaker) -> None:
    """In the engine's place: a listener that keeps what it is sent."""
    with make_stack() as stack, socket.socket() as engine:
        port = int(stack.engine_environment()["LLAMACPP_PORT"])
        engine.bind(("127.0.0.1", port))
        engine.listen()
        engine.settimeout(DEADLINE)
        stack.start("gateway")
        wait_for(lambda: stack.status_of("/health") == 503, "the gateway listens")
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(stack.home / "run/hal/gateway/admin.sock"))
            admin.sendall(b"set server engines/llamacpp state ready; set server switch/serving state ready\n")
            admin.recv(100)
        with socket.create_connection(("127.0.0.1", stack.port)) as caller:
            caller.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n")
            caller.sendall(b"traceparent: 00-12-34-01\r\n\r\n")
            connection, _ = engine.accept()
            with connection:
                seen = connection.recv(4096).lower()
        assert b"authorization" not in seen and b"abc" not in seen
        assert b"traceparent: 00-12-34-01" in seen and b"x-request-id: " in seen


def test_an_engine_without_its_model_serves_nothing(make_stack: StackMaker) -> None:
    with make_stack() as stack:
        selector = stack.home / "etc/hal/selector.json"
        selector.write_text(selector.read_text().replace('"tiny"', '"another"'))
        for name in ("gateway", "selector", "engine"):
            stack.start(name)
        wait_for(
            lambda: "the model another is not listed" in stack.log("selector"), "the selector has looked"
        )
        assert stack.get(STATUS).json()["healthy"] is False
        assert stack.status_of("/v1/models") == 503


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"LLAMACPP_MODEL": "/nowhere/x.gguf"},
            "cannot read the model /nowhere/x.gguf: No such file or directory",
        ),
        ({"LLAMACPP_MODEL": "relative.gguf"}, "LLAMACPP_MODEL=relative.gguf: must be an absolute path"),
        ({"LLAMACPP_MODEL": "/etc/hostname"}, "/etc/hostname: not a GGUF file"),
        ({"LLAMACPP_HOST": "0.0.0.0"}, "LLAMACPP_HOST=0.0.0.0: engines listen on loopback only"),
        ({"LLAMACPP_THREADS": "many"}, "LLAMACPP_THREADS=many: must be a whole number, 0 or more"),
    ],
)
def test_launcher_refuses_in_one_line(
    make_stack: StackMaker, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], complaint: str
) -> None:
    with make_stack() as stack:
        variables = stack.engine_environment() | change
        monkeypatch.setattr(stack, "engine_environment", lambda: variables)
        stack.start("engine")
        assert stack.processes.pop("engine").wait(DEADLINE) == 1
        assert stack.log("engine") == f"hal-llamacpp: {complaint}\n"


def test_launcher_tells_systemd(make_stack: StackMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_stack() as stack:
        stack.commands["engine"].remove("-I")  # lets it find the stand-in for systemd
        stack.start("engine")
        loading, ready = stack.notified.recv(1000), stack.notified.recv(1000)
        assert loading.startswith(b"STATUS=loading tiny") and b"EXTEND_TIMEOUT_USEC=" in loading
        assert ready == b"READY=1\nSTATUS=serving tiny"
        assert stack.kill("engine", signal.SIGTERM) == 0
        assert stack.notified.recv(1000) == b"STOPPING=1"
        assert stack.log("engine") == ""


def test_selector_tells_systemd(make_stack: StackMaker) -> None:
    with make_stack() as stack:
        stack.start("selector")
        assert stack.notified.recv(1000).startswith(b"READY=1")
        stack.start("gateway")
        stack.start("engine")
        end = time.monotonic() + DEADLINE
        while stack.notified.recv(1000) != b"STATUS=serving through llamacpp":
            assert time.monotonic() < end


def test_selector_refuses_a_bad_configuration(make_stack: StackMaker) -> None:
    with make_stack() as stack:
        (stack.home / "etc/hal/selector.json").write_text('{"policy": "vllm"}')
        stack.start("selector")
        assert stack.processes.pop("selector").wait(DEADLINE) == 1
        assert "selector.json: it must be an object with a list of engines" in stack.log("selector")
