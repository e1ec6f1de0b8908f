"""Bad input: whatever comes, an engine sees nothing that it should not, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from tests.services.gateways import Answer, Gateway, GatewayMaker, Recorder, digest

TOKENS = f"""\
  tokens: [{{name: a, sha256: {digest("good-token")}}}]
  limits: {{body: 1M}}
"""
AUTH = b"Authorization: Bearer good-token\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + AUTH
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n"


@pytest.fixture(scope="module")
def gateway(open_gateway: GatewayMaker, engine: Recorder) -> Iterator[Gateway]:
    """Ollama is in the image, and is not the active engine."""
    engines = f"[{{llamacpp: {{port: {engine.port}}}}}, {{ollama: {{port: {engine.port + 1}}}}}]"
    with open_gateway(TOKENS, engines=engines, variant="production") as found:
        found.ready("engines/llamacpp")
        yield found


@pytest.fixture(autouse=True)
def forgotten(engine: Recorder) -> Iterator[None]:
    """Each test looks at its own requests; the gateway serves afterwards as before."""
    engine.seen.clear()
    yield


def requests_seen(engine: Recorder) -> list[bytes]:
    """The first lines of all requests that reached the engine."""
    return re.findall(rb"(?m)^[A-Z]+ \S+ HTTP/1\.[01]\r?$", engine.bytes)


def still_serves(gateway: Gateway) -> None:
    answer = gateway.ask(token="good-token")
    assert answer.status == 200 and answer.seconds < 1


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


LENGTH = f"{len(SMUGGLED)}".encode()
FRAMING = {
    "CL.TE": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + SMUGGLED,
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + chunked(SMUGGLED),
    "TE.TE": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE list": b"Transfer-Encoding: identity, chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE unknown": b"Transfer-Encoding: xchunked\r\nContent-Length: " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "TE quoted": b'Transfer-Encoding: "chunked"\r\nContent-Length: ' + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "TE case": b"tRANSFER-eNCODING: cHuNkEd\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE space": b"Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE tab": b"Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE vertical tab": b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE folded": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE behind a bare LF": b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "TE behind a bare CR": b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "TE in HTTP/1.0": b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": b"Content-Length: 0\r\nContent-Length: " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "lengths in a list": b"Content-Length: 0, " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "length with a sign": b"Content-Length: +" + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "negative length": b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "hexadecimal length": b"Content-Length: 0x10\r\n\r\n" + SMUGGLED,
    "length and letters": b"Content-Length: 3abc\r\n\r\n" + SMUGGLED,
    "length of spaces": b"Content-Length: 1 1\r\n\r\n" + SMUGGLED,
    "empty length": b"Content-Length:\r\n\r\n" + SMUGGLED,
    "length beyond 64 bits": b"Content-Length: 18446744073709551617\r\n\r\n" + SMUGGLED,
    "length beyond 63 bits": b"Content-Length: 9223372036854775809\r\n\r\n" + SMUGGLED,
    "length with NUL": b"Content-Length: 0\x00\r\n\r\n" + SMUGGLED,
    "length space colon": b"Content-Length : " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "chunk size overflow": b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + SMUGGLED,
    "chunk extension": b"Transfer-Encoding: chunked\r\n\r\n0;x=\r\n\r\n" + SMUGGLED,
    "length of 2^32": b"Content-Length: 4294967296\r\n\r\n" + SMUGGLED,
    "length of 2^64": b"Content-Length: 18446744073709551616\r\n\r\n" + SMUGGLED,
    "no length": b"\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("name", FRAMING)
def test_smuggling(gateway: Gateway, engine: Recorder, name: str) -> None:
    """What stands behind a request of doubtful length is never another one, nor is half of it sent on."""
    start = POST.replace(b"HTTP/1.1", b"HTTP/1.0") if "1.0" in name else POST
    answer = gateway.send(start + FRAMING[name], 3)
    assert answer.status in (400, 411, 413, 422), answer.raw[:200]
    assert answer.raw.count(b"HTTP/1.1 ") == 1 and engine.bytes == b""
    still_serves(gateway)


def test_equal_lengths_become_one(gateway: Gateway, engine: Recorder) -> None:
    gateway.send(POST + b"Connection: close\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 2)
    assert engine.bytes.lower().count(b"content-length: 2\r\n") == 1


def test_each_pipelined_request_is_guarded(gateway: Gateway, engine: Recorder) -> None:
    """Two requests in one packet are two requests: the second needs a token of its own."""
    stranger = b"GET /v1/stranger HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = gateway.send(POST + b"Content-Length: 2\r\n\r\n{}" + stranger)
    assert answer.raw.count(b"HTTP/1.1 ") == 2 and b"401 Unauthorized" in answer.raw
    assert requests_seen(engine) == [b"POST /v1/chat/completions HTTP/1.1\r"]


MALFORMED = {
    "garbage": b"GARBAGE\r\n\r\n",
    "runtime API": b"show info\nset server engines/ollama state ready\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "HTTP/0.9": b"GET /v1/models\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 20,
    "no version": b"GET /v1/models FTP/1.1\r\nHost: x\r\n\r\n",
    "space in the path": b"GET /v1/mo dels HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "NUL in the path": b"GET /v1/\x00models HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "CR in the path": b"GET /v1/\rmodels HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "high bytes in the path": b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "control characters in the method": b"G\x01T /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a header": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n" + AUTH + b"\r\n",
    "no colon": b"GET /v1/models HTTP/1.1\r\nHost x\r\n\r\n",
    "empty name": b"GET /v1/models HTTP/1.1\r\n: x\r\n\r\n",
    "space before the colon": b"GET /v1/models HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded first": b"GET /v1/models HTTP/1.1\r\n folded\r\nHost: x\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nHost: y\r\n" + AUTH + b"\r\n",
    "header of 64 kB": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 65536 + b"\r\n\r\n",
    "path of 64 kB": b"GET /v1/" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "2,000 headers": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 2000 + b"\r\n",
    "200 headers": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + AUTH + b"a: b\r\n" * 200 + b"\r\n",
    "a method of 8 kB": b"A" * 8192 + b" /v1/models HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n" + AUTH + b"\r\n",
    "TRACE": b"TRACE /v1/models HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "another host's URI": b"GET http://y/v1/models HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(gateway: Gateway, engine: Recorder, name: str) -> None:
    answer = gateway.send(MALFORMED[name], 3)
    assert answer.status in (0, 400, 401, 405, 501), answer.raw[:200]
    assert engine.bytes == b""
    still_serves(gateway)


TRICKS = [
    *("//api/tags", "/./api/tags", "/v1/../api/tags", "/x/v1/../../api/tags", "/%2e%2e/api/tags"),
    *("/%61pi/tags", "/api%2ftags", "/API/tags", "/api;x/tags", "/api/../api/tags", "/v1/%2e%2e/api/tags"),
    *("/v1\\..\\api\\tags", "/v1/..%5capi/tags", "/v1/.%2e/api/tags", "/v1/%2E%2E/api/tags", "/api/tags/.."),
    *("/api//tags", "/api/tags#/v1/", "/v1#/../api/tags", "/v1?/../../api/tags", "/x/v1", "/x/v1/"),
    *("/run/hal/gateway/admin.sock", "/haproxy?stats", "/;csv", "/stats", "/admin?stats", "/metrics/../v1"),
    *("/v1/..;/api/tags", "/v1/%00/../api", "/v1/%c0%ae%c0%ae/api/tags", "/..%252fapi", "/api/%2e%2e/v1/x"),
    *("/http://127.0.0.1:11434/api/tags", "/unix@/run/hal/gateway/admin.sock", "/", "*"),
]


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_to_another_engine_or_socket(gateway: Gateway, engine: Recorder, path: str) -> None:
    """Ollama's server is in maintenance; the active engine never sees a path that could be Ollama's."""
    answer = gateway.ask(path, token="good-token")
    assert answer.status in (200, 400, 404), answer.raw[:200]
    for line in requests_seen(engine):
        seen = line.split()[1].partition(b"?")[0]
        assert seen.startswith(b"/v1/") and b"/../" not in seen and b"\\" not in seen, line
    assert b"Uptime_sec" not in answer.raw and b"haproxy" not in answer.raw.lower()
    for method in ("POST", "OPTIONS", "DELETE"):
        gateway.ask(path, token="good-token", method=method, body=b"")
    assert b" /api" not in engine.bytes


INJECTED = b"X-Injected: yes"


@pytest.mark.parametrize(
    ("where", "sent"),
    [
        ("domain", b"GET /a%0d%0aX-Injected:%20yes/v1/models HTTP/1.1\r\nHost: x\r\n"),
        ("path", b"GET /v1/models%0d%0aX-Injected:%20yes HTTP/1.1\r\nHost: x\r\n"),
        ("query", b"GET /v1/models?a=%0d%0aX-Injected:%20yes HTTP/1.1\r\nHost: x\r\n"),
        ("id", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-ID: 1%0d%0aX-Injected: yes\r\n"),
        ("host", b"GET /v1/models HTTP/1.1\r\nHost: x%0d%0aX-Injected: yes\r\n"),
        ("folded", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n X-Injected: yes\r\n"),
        ("bare LF", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: 1\n\x00X-Injected: yes\r\n"),
        ("bare CR", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: 1\rX-Injected: yes\r\n"),
        ("token", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\rX-Injected: yes\r\n"),
    ],
)
def test_headers_cannot_be_injected(gateway: Gateway, engine: Recorder, where: str, sent: bytes) -> None:
    answer = gateway.send(sent + AUTH + b"Connection: close\r\n\r\n", 5)
    assert re.search(rb"(?mi)^x-injected", engine.bytes) is None
    assert re.search(rb"(?mi)^x-injected", answer.raw) is None
    still_serves(gateway)


def test_oversized_bodies(gateway: Gateway, engine: Recorder) -> None:
    """By their length before a byte of them is read, and chunked ones always."""
    for head in (b"Content-Length: 20000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.settimeout(5)
            client.sendall(POST + head)
            assert Answer(client.recv(65536)).status in (411, 413)
            with contextlib.suppress(OSError):
                client.sendall(b"f4240\r\n" + b"a" * 1_000_000 + b"\r\n")
    assert engine.bytes == b""
    still_serves(gateway)


def test_a_body_that_does_not_come(gateway: Gateway, engine: Recorder) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.settimeout(15)
        begun = time.monotonic()
        client.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        answer = Answer(client.recv(65536))
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert 9 < time.monotonic() - begun < 12
    assert engine.bytes == b"", "an engine was kept waiting"


CONNECTIONS = 2000


@pytest.mark.slow
def test_2000_slow_connections(gateway: Gateway, engine: Recorder) -> None:
    """Half of them never finish their head, half their body; a byte each second from all of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * CONNECTIONS + 1000), hard))
    before = gateway.resident()
    slow: list[socket.socket] = []
    try:
        for number in range(CONNECTIONS):
            client = socket.create_connection(("127.0.0.1", gateway.port))
            half = POST + (b"X-Slow: " if number % 2 else b"Content-Length: 5000\r\n\r\n{")
            client.sendall(half)
            client.setblocking(False)
            slow.append(client)
        times, most, started = [], 0, time.monotonic()
        while time.monotonic() - started < 8:
            for client in slow:
                with contextlib.suppress(OSError):
                    client.send(b"a")
            begun = time.monotonic()
            assert gateway.ask(token="good-token").status == 200
            times.append(time.monotonic() - begun)
            most = max(most, gateway.resident())
            time.sleep(0.5)
        print(f"others: {max(times) * 1000:.0f} ms at most; memory {before} kB before, {most} kB at most")
        assert max(times) < 1
        assert most < 120_000, f"{most} kB"
        assert set(requests_seen(engine)) == {b"GET /v1/models HTTP/1.1\r"}, "a slow one reached the engine"
        time.sleep(5)
        told = sum(answered(client) for client in slow)
        assert told == CONNECTIONS, f"{CONNECTIONS - told} are still waited for"
    finally:
        for client in slow:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    still_serves(gateway)


def answered(client: socket.socket) -> bool:
    """Whether the gateway has said that it waits no longer."""
    try:
        return client.recv(100).startswith(b"HTTP/1.1 408")
    except BlockingIOError:
        return False
    except OSError:
        return True
