"""Models' files from hubs, as a build fetches them: the right address, and a token that goes nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher, GoneError
from hal.fetch.hubs import keeps_secrets
from hal.fetch.sources import Mirrors
from hal.fetch.transfer import Patience
from hal.lock.pins import HubSource, RegistrySource, parse_source
from hal.models import HuggingFaceSource, ModelFile, OllamaSource
from hal.models.artifacts import file_artifact
from tests.misbehaving.hub import add_repository
from tests.misbehaving.registry import add_tag
from tests.misbehaving.server import MisbehavingServer, misbehaving_server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 100
QUICK = Patience(connect=2, stall=1, attempts=2, first_pause=0.01, longest_pause=0.02)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    with misbehaving_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HAL_OLLAMA_REGISTRY", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


@pytest.fixture
def storage() -> Iterator[MisbehavingServer]:
    with misbehaving_server() as running:
        yield running


def fetched(file: ModelFile, home: Path) -> bytes:
    assert isinstance(file.source, HuggingFaceSource | OllamaSource)
    artifact = file_artifact(file, file.source)
    fetcher = Fetcher(Cache(home / "cache"), Mirrors(), patience=QUICK)
    return fetcher.fetch([artifact])[artifact.sha256].read_bytes()


def on_hub(path: str, content: bytes, repository: str = "org/tiny") -> ModelFile:
    source = HuggingFaceSource(kind="huggingface", repository=repository, revision=COMMIT, path=path)
    return ModelFile(name=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), source=source)


def test_a_file_of_a_repository(hub: MisbehavingServer, storage: MisbehavingServer, tmp_path: Path) -> None:
    add_repository(hub, "org/tiny", COMMIT, {"sub/model.safetensors": WEIGHTS}, storage=storage)
    assert fetched(on_hub("sub/model.safetensors", WEIGHTS), tmp_path) == WEIGHTS


def test_the_token_goes_to_the_hub_and_not_to_where_it_leads(
    hub: MisbehavingServer, storage: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_repository(
        hub, "org/gated", COMMIT, {"model.safetensors": WEIGHTS}, storage=storage, gated="hf_secret"
    )
    file = on_hub("model.safetensors", WEIGHTS, "org/gated")
    with pytest.raises(HalError) as caught:
        fetched(file, tmp_path)
    assert "HTTP 403" in caught.value.message
    assert caught.value.hint and "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetched(file, tmp_path) == WEIGHTS
    assert hub.requests[-1].authorization == "Bearer hf_secret"
    assert storage.requests
    assert {request.authorization for request in storage.requests} == {None}


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://hub.example", True),
        ("http://hub.example", False),
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.1.example", False),
    ],
)
def test_a_token_is_for_tls_and_for_this_machine(url: str, kept: bool) -> None:
    assert keeps_secrets(url) is kept


def test_files_of_a_tag(hub: MisbehavingServer, tmp_path: Path) -> None:
    made = add_tag(hub, "library/tiny", "1b", {"model": WEIGHTS})
    source = OllamaSource(kind="ollama", model="tiny", tag="1b")
    contents = {"manifest.json": made.manifest}
    contents |= {f"blobs/sha256-{digest}": content for digest, content in made.blobs.items()}
    for name, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        file = ModelFile(name=name, size=len(content), sha256=digest, source=source)
        assert fetched(file, tmp_path) == content


def test_a_tag_that_moved_on(hub: MisbehavingServer, tmp_path: Path) -> None:
    made = add_tag(hub, "library/tiny", "1b", {"model": WEIGHTS})
    source = OllamaSource(kind="ollama", model="tiny", tag="1b")
    old = ModelFile(name="manifest.json", size=len(made.manifest), sha256="0" * 64, source=source)
    with pytest.raises(HalError) as caught:
        fetched(old, tmp_path)
    assert "has other content than pinned" in caught.value.message
    assert caught.value.hint and "hal models pin" in caught.value.hint


def test_a_file_that_is_gone(hub: MisbehavingServer, tmp_path: Path) -> None:
    add_repository(hub, "org/tiny", COMMIT, {"config.json": b"{}"})
    with pytest.raises(GoneError) as caught:
        fetched(on_hub("model.safetensors", WEIGHTS), tmp_path)
    assert caught.value.hint and "hal models pin" in caught.value.hint


def test_sources_as_text() -> None:
    assert parse_source(f"huggingface:org/tiny@{COMMIT}/a/b.json") == HubSource(
        "org/tiny", COMMIT, "a/b.json"
    )
    assert parse_source("ollama:library/tiny:1b") == RegistrySource("library/tiny", "1b")
    for wrong in ("huggingface:org/tiny", "huggingface:org/tiny@main/a", "ollama:tiny:1b", "ollama:a/b"):
        with pytest.raises(ValueError, match="is not of the form"):
            parse_source(wrong)
