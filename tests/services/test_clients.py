"""The real `openai` and `ollama` clients through the gateway, against llama.cpp and Ollama's stand-in."""

from __future__ import annotations

import json
import shlex
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ollama as ollama_client
import openai
import pytest

from tests.conftest import Archive
from tests.services import pair as pairs
from tests.services.conftest import wait_for
from tests.services.pair import SECOND, Pair, pair
from tests.services.switches import active, control
from tests.tiny_model import ANSWER, NAME

READY = 60.0
HELLO: Any = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True)
class Service:
    """A gateway with the engine that serves behind it."""

    url: str
    engine: str
    listed: str

    def openai(self, prefix: str = "") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}{prefix}/v1", api_key="none", max_retries=0, timeout=READY)

    def ollama(self) -> ollama_client.Client:
        return ollama_client.Client(host=self.url, timeout=READY)


@pytest.fixture(scope="module", params=["llamacpp", "ollama"])
def service(
    request: pytest.FixtureRequest, haproxy: Any, engine_pack: Path, tiny: Path, ollama: Archive
) -> Iterator[Service]:
    """The two engines' appliance; the second one is Ollama's stand-in, or the real one (`--artifact`)."""
    with with_ollamas_api(), pair(haproxy, engine_pack, tiny, selector="{wait: 30, drain: 3}") as stack:
        with_ollama(stack, Path(ollama.option.removeprefix("ollama=").partition("#")[0]))
        for name in ("control", "gateway", "selector"):
            stack.start(name)
        wait_for(lambda: active(stack), "an engine serves", READY)
        control(stack, "switch", engine=request.param)
        wait_for(lambda: active(stack) == request.param, f"{request.param} serves", READY)
        tag = ":latest" if request.param == "ollama" else ""
        yield Service(stack.url, request.param, NAME + tag)


def with_ollama(stack: Pair, archive: Path) -> None:
    """Put Ollama in the second engine's place: its server, with the model registered once it answers."""
    home = stack.home / "ollama"
    with tarfile.open(archive) as packed:
        packed.extractall(home, filter="data")
    lines = stack.files[f"/etc/hal/engines/{SECOND}.env"].content.splitlines()
    port = next(line.partition("=")[2] for line in lines if line.startswith("LLAMACPP_PORT="))
    (home / "modelfile").write_text(f"FROM {stack.home}/tiny.gguf\n")
    program = shlex.join([sys.executable, "-IS", str(home / "bin/ollama")])
    if archive.suffix != ".tgz":
        program = str(home / "bin/ollama")
    (stack.home / "units" / SECOND).write_text(f"""\
export OLLAMA_HOST=127.0.0.1:{port} OLLAMA_MODELS={home}/models HOME={home} OLLAMA_CONTEXT_LENGTH=512
(
	until {program} list >/dev/null 2>&1; do sleep 0.1; done
	{program} create {NAME} -f {home}/modelfile >/dev/null
) &
exec {program} serve
""")
    selector = stack.home / "etc/hal/selector.json"
    data = json.loads(selector.read_text())
    for entry in data["engines"]:
        if entry["name"] == SECOND:
            entry |= {
                "health_path": "/",
                "listed_model": f"{NAME}:latest",
                "listed_as": "{model_name}:latest",
            }
            entry["state_file"] = ""
    selector.write_text(json.dumps(data))


@contextmanager
def with_ollamas_api() -> Iterator[None]:
    """The second engine's plugin speaks OpenAI's API alone elsewhere; Ollama has its own besides."""
    plugins = pairs._engines

    def made(home: Path) -> Path:
        directory = plugins(home)
        file = directory / f"{SECOND}.yaml"
        file.write_text(file.read_text().replace("dialects: [openai]", "dialects: [openai, ollama]"))
        return directory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_engines", made)
        yield


@pytest.mark.parametrize("prefix", ["", "/research"])
def test_models(service: Service, prefix: str) -> None:
    assert [model.id for model in service.openai(prefix).models.list()] == [service.listed]


@pytest.mark.parametrize("prefix", ["", "/research"])
def test_chat(service: Service, prefix: str) -> None:
    answer = service.openai(prefix).chat.completions.create(model=NAME, messages=HELLO)
    assert answer.choices[0].message.content == ANSWER and answer.choices[0].finish_reason == "stop"
    assert answer.usage and answer.usage.completion_tokens > 3


def test_chat_streamed(service: Service) -> None:
    text, reason, events = "", None, 0
    for event in service.openai().chat.completions.create(model=NAME, messages=HELLO, stream=True):
        for choice in event.choices:
            text += choice.delta.content or ""
            events += bool(choice.delta.content)
            reason = choice.finish_reason or reason
    assert (text, reason) == (ANSWER, "stop") and events > 3


def test_completions(service: Service) -> None:
    first = service.openai().completions.create(model=NAME, prompt="Name", max_tokens=12, temperature=0)
    again = service.openai().completions.create(model=NAME, prompt="Name", max_tokens=12, temperature=0)
    assert first.choices[0].text == again.choices[0].text != ""


def test_embeddings_or_an_error_of_the_apis_own(service: Service) -> None:
    """Neither engine is started for embeddings: what the client sees is an error that names the reason."""
    with pytest.raises(openai.APIStatusError) as seen:
        service.openai().embeddings.create(model=NAME, input="Hi")
    assert seen.value.status_code in (400, 404, 501)
    assert seen.value.message


def test_errors(service: Service) -> None:
    with pytest.raises(openai.NotFoundError) as nowhere:
        service.openai().get("/../v2/nothing", cast_to=object)
    assert nowhere.value.status_code == 404 or nowhere.value.status_code == 400
    with pytest.raises(openai.APIStatusError) as long:
        service.openai().completions.create(model=NAME, prompt="too long " * 2000)
    assert 400 <= long.value.status_code < 500


def test_ollamas_client(service: Service) -> None:
    """Its own API while Ollama serves; otherwise an error that says so, in the shape the client knows."""
    client = service.ollama()
    if service.engine != "ollama":
        with pytest.raises(ollama_client.ResponseError) as seen:
            client.chat(model=NAME, messages=HELLO)
        assert seen.value.status_code == 404 and "Ollama" in seen.value.error
        return
    assert [model.model for model in client.list().models] == [f"{NAME}:latest"]
    assert client.chat(model=NAME, messages=HELLO).message.content == ANSWER
    pieces = [part.message.content or "" for part in client.chat(model=NAME, messages=HELLO, stream=True)]
    assert "".join(pieces) == ANSWER and len(pieces) > 3
    assert client.generate(model=NAME, prompt="Hi").response == ANSWER
    assert client.show(NAME).details
    with pytest.raises(ollama_client.ResponseError) as missing:
        client.chat(model="nothing", messages=HELLO)
    assert missing.value.status_code == 404 and "nothing" in missing.value.error


def test_raw_answers_have_an_id(service: Service) -> None:
    ids = {service.openai().models.with_raw_response.list().headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3 and all(ids)
