"""Endpoints elsewhere: TLS that is verified, the key that only HAProxy knows, words for failures."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal.sandbox import Sandbox
from tests.services.gateways import Answer, Gateway, GatewayMaker, Recorder, free_port

KEY = "sk-very-secret-0123456789"
NAME = "localhost"


class Certificates:
    """An authority and certificates of its making, as text."""

    def __init__(self, directory: Path, tools: Sandbox) -> None:
        self.directory = directory

        def openssl(*argv: str) -> None:
            tools.run(["openssl", *argv], writable=[directory], cwd=directory)

        new = ("-x509", "-quiet", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        past = ("-not_before", "20200101000000Z", "-not_after", "20200201000000Z")
        openssl("req", *new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        for name, host, more in (("good", NAME, ()), ("other", "other.example", ()), ("expired", NAME, past)):
            by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={host}", *more)
            openssl(
                *("req", *new, *by, "-addext", f"subjectAltName=DNS:{host}"),
                *("-keyout", f"{name}.pem.key", "-out", f"{name}.pem"),
            )
        openssl("req", *new, "-subj", f"/CN={NAME}", "-keyout", "stranger.pem.key", "-out", "stranger.pem")

    def context(self, name: str) -> ssl.SSLContext:
        """A server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.pem.key")
        return context

    @property
    def authority(self) -> str:
        return (self.directory / "ca.pem").read_text()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, tools: Sandbox) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"), tools)


def engines(port: int, scheme: str = "https", ca: str = ", ca: ca.pem", more: str = "") -> str:
    url = f"{scheme}://{NAME}:{port}/openai/v1"
    settings = f"base_url: '{url}', model: m, credential: api-key{ca}{more}"
    return f"[llamacpp, {{openai: {{settings: {{{settings}}}}}}}]"


FILES = {"run/hal/credentials/api-key": f"{KEY}\n"}


@pytest.fixture
def remote(certificates: Certificates) -> Iterator[Recorder]:
    with Recorder(tls=certificates.context("good")) as found:
        yield found


@pytest.fixture
def gateway(open_gateway: GatewayMaker, remote: Recorder, certificates: Certificates) -> Iterator[Gateway]:
    files = FILES | {"ca.pem": certificates.authority}
    with open_gateway("", engines=engines(remote.port), files=files) as found:
        found.ready("engines/openai")
        yield found


def probe(gateway: Gateway, name: str = "openai") -> Answer:
    """What the selector gets."""
    with socket.socket(socket.AF_UNIX) as selector:
        selector.settimeout(20)
        selector.connect(str(gateway.path(f"/run/hal/gateway/remote-{name}.sock")))
        selector.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := selector.recv(65536):
            answer += chunk
    return Answer(answer)


def test_path_host_and_key(gateway: Gateway, remote: Recorder) -> None:
    headers = {"X-Mine": "1", "Traceparent": "00-1-2-01"}
    answer = gateway.ask("/v1/chat/completions?x=1", token="clients-own", body=b"{}", headers=headers)
    assert answer.status == 200 and "x-hal-reason" not in answer.headers
    seen = remote.bytes.decode()
    assert seen.startswith("POST /openai/v1/chat/completions?x=1 HTTP/1.1\r\n")
    lower = seen.lower()
    assert f"host: {NAME}:{remote.port}\r\n" in lower and "x-mine: 1\r\n" in lower and "traceparent" in lower
    assert f"authorization: bearer {KEY}\r\n" in lower and lower.count("authorization") == 1
    assert "clients-own" not in lower
    assert probe(gateway).status == 200


def test_the_key_is_nowhere_to_be_seen(gateway: Gateway) -> None:
    assert gateway.ask().status == 200
    answers = [
        gateway.admin(command)
        for command in (
            *("show env", "show info", "show stat", "show sess all", "show errors", "show map", "show acl"),
            *("show servers state", "show servers conn", "get var proc.key", "show cli sockets", "help"),
        )
    ]
    environments = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and str(gateway.home).encode() in (
            command := (directory / "cmdline").read_bytes() if (directory / "cmdline").exists() else b""
        ):
            environments.append((directory / "environ").read_bytes() + command)
    assert len(environments) >= 2
    assert KEY not in "".join(answers) + gateway.log
    assert KEY.encode() not in b"".join(environments)
    config = gateway.path("/etc/hal/gateway")
    assert not any(KEY in path.read_text() for path in config.rglob("*") if path.is_file())


@pytest.mark.parametrize("certificate", ["other", "expired", "stranger"])
def test_a_certificate_that_does_not_verify(
    open_gateway: GatewayMaker, certificates: Certificates, certificate: str
) -> None:
    files = FILES | {"ca.pem": certificates.authority}
    with (
        Recorder(tls=certificates.context(certificate)) as remote,
        open_gateway("", engines=engines(remote.port), files=files) as gateway,
    ):
        gateway.ready("engines/openai")
        answer = gateway.ask(body=b'{"prompt": "secret"}')
        assert (answer.status, answer.code) == (503, "remote_unreachable") and answer.seconds < 10
        assert "x-hal-reason" not in answer.headers
        assert remote.bytes == b"", "something was sent to whoever that is"
        reason = probe(gateway).headers["x-hal-reason"]
        assert reason.startswith("TLS: ") and "certificate verify failed" in reason


def test_a_remote_that_is_down(gateway: Gateway, remote: Recorder) -> None:
    remote.__exit__()
    answer = gateway.ask()
    assert (answer.status, answer.code) == (503, "remote_unreachable") and answer.seconds < 10
    assert answer.headers["retry-after"] == "5"
    assert "refused" in probe(gateway).headers["x-hal-reason"]


def test_a_remote_that_resets(gateway: Gateway, remote: Recorder) -> None:
    remote.serve = lambda connection, request: connection.close()
    answer = gateway.ask(body=b"{}")
    assert (answer.status, answer.code) == (502, "remote_failed")
    assert remote.bytes.count(b"POST /openai/v1/models") == 1, "what may have arrived was sent again"


def test_a_remote_that_says_nothing(open_gateway: GatewayMaker) -> None:
    import threading

    with Recorder() as remote:
        remote.serve = lambda connection, request: threading.Event().wait(5) and None
        choice = engines(remote.port, "http", "", ", timeout: 1")
        with open_gateway("", engines=choice, files=FILES) as gateway:
            gateway.ready("engines/openai")
            answer = gateway.ask()
            assert (answer.status, answer.code) == (504, "remote_timeout") and 0.9 < answer.seconds < 3
            assert probe(gateway).headers["x-hal-reason"] == "no answer came in time"


def test_a_remotes_own_errors_pass(gateway: Gateway, remote: Recorder) -> None:
    error = b'{"error": {"message": "no quota", "type": "insufficient_quota"}}'

    def refuse(connection: socket.socket, request: bytes) -> None:
        head = f"HTTP/1.1 429 No\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\nContent-Length: {len(error)}\r\n\r\n"
        connection.sendall(head.encode() + error)

    remote.serve = refuse
    answer = gateway.ask()
    assert answer.status == 429 and answer.body == error and answer.headers["retry-after"] == "7"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("content", [None, "", "  \n", "a b\n", "key\x07\n"])
def test_a_key_that_is_missing_or_none(open_gateway: GatewayMaker, content: str | None) -> None:
    files = {} if content is None else {"run/hal/credentials/api-key": content}
    with (
        Recorder() as remote,
        open_gateway("", engines=engines(remote.port, "http", ""), files=files) as gateway,
    ):
        gateway.ready("engines/openai")
        answer = gateway.ask()
        assert (answer.status, answer.code) == (503, "credential_missing")
        assert probe(gateway).headers["x-hal-reason"] == "the credential api-key is missing"
        assert remote.bytes == b""


def test_a_name_that_does_not_resolve(open_gateway: GatewayMaker, certificates: Certificates) -> None:
    url = "https://nowhere.invalid/v1"
    choice = f"[llamacpp, {{openai: {{settings: {{base_url: '{url}', model: m, ca: ca.pem}}}}}}]"
    port = free_port()
    with open_gateway(
        "",
        engines=choice,
        more="network: {dns: [127.0.0.1]}",
        files={"ca.pem": certificates.authority},
        change=lambda text: text.replace("127.0.0.1:53", f"127.0.0.1:{port}"),
    ) as gateway:
        gateway.ready("engines/openai")
        answer = gateway.ask()
        assert (answer.status, answer.code) == (503, "remote_unreachable")
        reason = probe(gateway).headers["x-hal-reason"]
        assert reason == "the name nowhere.invalid does not resolve"


def test_streams_from_a_remote_break_visibly(gateway: Gateway, remote: Recorder) -> None:
    def breaks(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nword\r\n")
        connection.close()

    remote.serve = breaks
    answer = gateway.ask()
    assert answer.status == 200 and answer.body == b"4\r\nword\r\n", "an end that the remote did not send"


def test_routes_lead_to_remotes_and_engines(open_gateway: GatewayMaker) -> None:
    more = """\
  remotes: [{name: cloud, base_url: "http://127.0.0.1:REMOTE/v1", model: m, timeout: 5}]
  routes:
    - {header: {X-Where: cloud}, priority: 2, to: cloud}
    - {domain: finance, priority: 1, to: ollama}
"""
    with Recorder() as remote, Recorder() as first, Recorder() as second:
        choice = f"[{{llamacpp: {{port: {first.port}}}}}, {{ollama: {{port: {second.port}}}}}]"
        with open_gateway(more.replace("REMOTE", str(remote.port)), engines=choice) as gateway:
            assert gateway.ask("/v1/routed", headers={"X-Where": "cloud"}).status == 200, "it had to wait"
            answer = gateway.ask("/finance/v1/models")
            assert (answer.status, answer.code) == (503, "engine_not_ready") and answer.seconds < 1
            assert b"ollama, where a route sends" in answer.body
            gateway.ready("engines/llamacpp", "to-ollama/ollama")
            assert gateway.ask("/finance/v1/models").status == 200
            assert gateway.ask("/other/v1/models").status == 200
        assert remote.bytes.count(b"GET /v1/routed") == 1 and b"authorization" not in remote.bytes
        assert second.bytes.count(b"GET /v1/models") == 1 and first.bytes.count(b"GET /v1/models") == 1


def test_what_is_not_the_api_of_a_remote_is_not_asked_of_it(gateway: Gateway, remote: Recorder) -> None:
    for path in ("/api/tags", "/props", "/v1/../secret", "/openai/v1"):
        assert gateway.ask(path).status in (400, 404)
    assert remote.bytes == b""
