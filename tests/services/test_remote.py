"""The engine `openai`, whole: gateway and selector here; elsewhere llama.cpp behind TLS, a path and a key.

What a client sees of each fault, and what status says of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from hal.sandbox import Sandbox
from tests.services.conftest import ROOT, STAND_INS
from tests.services.gateways import DEADLINE, Gateway, GatewayMaker, Recorder, free_port, wait_for
from tests.services.test_gateway_remotes import KEY, NAME, Certificates, certificates

__all__ = ["certificates"]

ELSEWHERE = """\
global
    hard-stop-after 1s
defaults
    mode http
    timeout client 60s
    timeout connect 5s
    timeout server 60s
    option http-no-delay
listen front
    bind 127.0.0.1:{port} ssl crt {certificate}
    http-request return status 401 content-type application/json string '{{"error":{{"message":"no"}}}}' unless {{ req.hdr(authorization) -m str "Bearer {key}" }}
    http-request return status 421 unless {{ req.hdr(host) -m str {name}:{port} }} {{ ssl_fc_sni {name} }}
    http-request return status 404 unless {{ path_beg /openai/v1/ }}
    http-request set-path %[path,regsub(^/openai,)]
    server engine 127.0.0.1:{engine}
"""  # noqa: E501


class Elsewhere:
    """An endpoint that serves a model at https://localhost:PORT/openai/v1 to whoever has the key."""

    def __init__(self, home: Path, engine: int, tools: Sandbox) -> None:
        self.home, self.engine, self.tools = home, engine, tools
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, certificates: Certificates, name: str = "good", key: str = KEY) -> None:
        made = certificates.directory
        pair = self.home / f"{name}.pem"
        pair.write_text((made / f"{name}.pem").read_text() + (made / f"{name}.pem.key").read_text())
        config = self.home / "front.cfg"
        values = {"port": self.port, "certificate": pair, "key": key, "name": NAME, "engine": self.engine}
        config.write_text(ELSEWHERE.format(**values))
        argv = self.tools.command(["haproxy", "-db", "-f", str(config)], writable=[self.home], network=True)
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        wait_for(lambda: answers(f"https://{NAME}:{self.port}", verify=False), "the endpoint answers")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def answers(url: str, *, verify: bool = True) -> bool:
    try:
        return httpx.get(url, verify=verify, timeout=DEADLINE).status_code > 0
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def engine(engine_pack: Path, tiny: Path) -> Iterator[int]:
    """The port of a llama.cpp with the tiny model."""
    port = free_port()
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{STAND_INS}:{ROOT}",
        "LLAMACPP_HOST": "127.0.0.1",
        "LLAMACPP_PORT": str(port),
        "LLAMACPP_MODEL": str(tiny),
        "LLAMACPP_ALIAS": "tiny",
        "LLAMACPP_MARKER": "",
        "LLAMACPP_CONTEXT_LENGTH": "512",
        "LLAMACPP_THREADS": "1",
        "LLAMACPP_PARALLEL": "2",
    }
    argv = [sys.executable, "-I", str(engine_pack / "bin/hal-llamacpp")]
    process = subprocess.Popen(argv, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), "llama.cpp answers")
    yield port
    process.kill()
    process.wait()


@pytest.fixture
def elsewhere(engine: int, tools: Sandbox) -> Iterator[Elsewhere]:
    with tempfile.TemporaryDirectory(prefix="hal-far-") as home:
        found = Elsewhere(Path(home), engine, tools)
        yield found
        found.stop()


class Appliance:
    """Gateway and selector of an appliance whose engine is elsewhere."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.url = f"http://127.0.0.1:{gateway.port}"
        home = gateway.home
        for directory in ("run/hal/control", "var/lib/hal/selector"):
            (home / directory).mkdir(parents=True)
        config = home / "etc/hal/selector.json"
        text = config.read_text()
        for top in ("/etc/hal", "/run/hal", "/var/lib/hal"):
            text = text.replace(top, f"{home}{top}")
        config.write_text(text)
        program = "import sys; from services.selector.daemon import main; sys.exit(main(sys.argv[1]))"
        self.log_path = home / "selector.log"
        self.selector = subprocess.Popen(
            [sys.executable, "-c", program, str(config)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{STAND_INS}:{ROOT}"},
            stdin=subprocess.DEVNULL,
            stdout=self.log_path.open("ab"),
            stderr=subprocess.STDOUT,
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def status(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/v1/inference/status", timeout=DEADLINE)
        found: dict[str, Any] = answer.json()
        return found

    def healthy(self) -> bool:
        return httpx.get(f"{self.url}/health", timeout=DEADLINE).status_code == 200

    def wait_healthy(self) -> None:
        wait_for(self.healthy, "the endpoint elsewhere serves")

    def reason(self, text: str) -> str:
        """What status says once it has `text` in it."""
        told: list[str] = []

        def said() -> bool:
            found = self.status()
            told.append(str(found.get("reason", "")))
            return not found.get("healthy") and text in told[-1]

        try:
            wait_for(said, f"status says {text!r}")
        except BaseException as failed:
            raise AssertionError(f"status says {told[-1:]} and not {text!r}; {self.log}") from failed
        return told[-1]

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="the-clients-own", max_retries=0)

    def refused(self) -> tuple[int, str, float]:
        """What a real client gets instead of an answer: status, code, and after how many seconds."""
        started = time.monotonic()
        with pytest.raises(openai.APIStatusError) as raised:
            self.client().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a"}])
        return raised.value.status_code, str(raised.value.code), time.monotonic() - started

    def close(self) -> None:
        self.selector.kill()
        self.selector.wait()


MakeAppliance = Callable[..., Any]


@pytest.fixture
def appliance(open_gateway: GatewayMaker, certificates: Certificates) -> MakeAppliance:
    """Starts an appliance whose one engine that serves is `openai` at a port of this machine."""

    @contextmanager
    def made(port: int, key: str | None = KEY, model: str = "tiny") -> Iterator[Appliance]:
        settings = (
            f"base_url: 'https://{NAME}:{port}/openai/v1', model: {model}, credential: api-key, ca: ca.pem"
        )
        files = {"ca.pem": certificates.authority}
        files |= {"run/hal/credentials/api-key": f"{key}\n"} if key else {}
        engines = f"[{{openai: {{settings: {{{settings}}}}}}}, llamacpp]"
        more = "selector: {policy: openai, wait: 1}"
        with open_gateway("", engines=engines, files=files, more=more) as gateway:
            found = Appliance(gateway)
            try:
                yield found
            finally:
                found.close()

    return made


def greedy(client: openai.OpenAI, *, stream: bool = False) -> str:
    """The answer of a client that reads it to its end."""
    asked: Any = {"model": "tiny", "prompt": "a b", "max_tokens": 12, "temperature": 0}
    if stream:
        return "".join(part.choices[0].text for part in client.completions.create(stream=True, **asked))
    return str(client.completions.create(**asked).choices[0].text)


def test_it_serves_as_if_it_were_here(
    appliance: MakeAppliance, elsewhere: Elsewhere, certificates: Certificates, engine: int
) -> None:
    elsewhere.start(certificates)
    with appliance(elsewhere.port) as found:
        found.wait_healthy()
        assert found.status() == {
            "backend": "openai",
            "base_url": f"https://{NAME}:{elsewhere.port}/openai/v1",
            "model": "tiny",
            "orchestrator_model": "tiny",
            "healthy": True,
        }
        direct = openai.OpenAI(base_url=f"http://127.0.0.1:{engine}/v1", api_key="-")
        client = found.client()
        assert [model.id for model in client.models.list()] == ["tiny"]
        expected = greedy(direct)
        assert len(expected) > 3
        assert greedy(client) == expected
        assert greedy(client, stream=True) == expected
        domain = openai.OpenAI(base_url=f"{found.url}/law/v1", api_key="-")
        assert greedy(domain) == expected
        everywhere = found.log + found.gateway.log + str(found.status())
        everywhere += httpx.get(f"{found.url}/metrics").text
        environment = Path(f"/proc/{found.selector.pid}/environ").read_text()
        assert KEY not in everywhere + environment


@pytest.mark.parametrize("certificate", ["other", "expired", "stranger"])
def test_a_certificate_that_does_not_verify(
    appliance: MakeAppliance, elsewhere: Elsewhere, certificates: Certificates, certificate: str
) -> None:
    elsewhere.start(certificates, certificate)
    with appliance(elsewhere.port) as found:
        assert "certificate verify failed" in found.reason("certificate verify failed")
        status, code, seconds = found.refused()
        assert (status, code) == (503, "no_engine_ready")
        assert seconds < 5
        elsewhere.stop()
        elsewhere.start(certificates)
        found.wait_healthy()
        assert greedy(found.client())


def test_it_goes_down_and_comes_back(
    appliance: MakeAppliance, elsewhere: Elsewhere, certificates: Certificates
) -> None:
    elsewhere.start(certificates)
    with appliance(elsewhere.port) as found:
        found.wait_healthy()
        elsewhere.stop()
        status, code, seconds = found.refused()
        if (status, code) == (502, "remote_failed"):
            # It went out on a resting connection, of whose end HAProxy had not heard yet: never sent again.
            status, code, seconds = found.refused()
        assert (status, code in ("remote_unreachable", "no_engine_ready")) == (503, True)
        assert seconds < 10
        assert "refused" in found.reason("refused")
        assert not found.healthy()
        elsewhere.start(certificates)
        found.wait_healthy()
        assert greedy(found.client())


def test_without_its_key_nothing_is_sent(
    appliance: MakeAppliance, elsewhere: Elsewhere, certificates: Certificates
) -> None:
    elsewhere.start(certificates)
    with appliance(elsewhere.port, key=None) as found:
        assert "the credential api-key is missing" in found.reason("credential")
        assert found.refused()[:2] == (503, "no_engine_expected")


def test_a_key_that_is_not_accepted(
    appliance: MakeAppliance, elsewhere: Elsewhere, certificates: Certificates
) -> None:
    elsewhere.start(certificates, key="another")
    with appliance(elsewhere.port) as found:
        assert KEY not in found.reason("401")
        assert found.refused()[:2] == (503, "no_engine_expected")


def test_a_model_that_it_does_not_list(
    appliance: MakeAppliance, elsewhere: Elsewhere, certificates: Certificates
) -> None:
    elsewhere.start(certificates)
    with appliance(elsewhere.port, model="gpt-9") as found:
        assert "gpt-9" in found.reason("gpt-9")


MODELS = b'{"object":"list","data":[{"id":"tiny","object":"model","created":0,"owned_by":"x"}]}'
CHUNK = b'data: {"id":"1","object":"text_completion","created":0,"choices":[{"index":0,"text":"x"}]}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("how", ["at once", "in the middle"])
def test_a_remote_that_breaks_off(appliance: MakeAppliance, certificates: Certificates, how: str) -> None:
    asked: list[bytes] = []

    def serve(connection: Any, request: bytes) -> None:
        if request.startswith(b"GET"):
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(MODELS)}\r\n\r\n"
            )
            connection.sendall(head.encode() + MODELS)
            return
        asked.append(request)
        if how == "in the middle":
            connection.sendall(STREAM + f"{len(CHUNK):x}\r\n".encode() + CHUNK + b"\r\n")
            time.sleep(0.3)
        connection.close()

    with Recorder(tls=certificates.context("good"), serve=serve) as remote, appliance(remote.port) as found:
        found.wait_healthy()
        started = time.monotonic()
        with pytest.raises((openai.APIError, httpx.RemoteProtocolError)) as raised:
            greedy(found.client(), stream=True)
        assert time.monotonic() - started < 5
        assert len(asked) == 1, "a request that may have arrived was sent again"
        if how == "at once":
            assert isinstance(raised.value, openai.InternalServerError)
            assert (raised.value.status_code, raised.value.code) == (502, "remote_failed")
