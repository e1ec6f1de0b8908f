"""Pinning models against servers that speak the hub's and the registry's protocols, and from directories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hal.errors import HalError
from hal.models import HuggingFaceSource, Model, OllamaSource
from hal.pinning import Wishes, pin
from hal.pinning.entry import entry, write_entry
from hal.pinning.licences import of_identifier, of_text
from hal.spec.loading import load_spec, parse_spec
from tests.misbehaving.hub import add_repository
from tests.misbehaving.registry import add_tag
from tests.misbehaving.server import MisbehavingServer, misbehaving_server, unused_url

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 100
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "README.md": b"# about",
    "onnx/model.onnx": b"other",
    "original/consolidated.safetensors": b"other",
    "tiny.Q4_K_M.gguf": WEIGHTS[::-1],
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HAL_OLLAMA_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    with misbehaving_server() as running:
        yield running


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wishes(server: MisbehavingServer, **more: object) -> Wishes:
    return Wishes(endpoint=server.url, **more)  # type: ignore[arg-type]


def test_a_repository_is_pinned_at_the_commit_that_its_branch_is_now(server: MisbehavingServer) -> None:
    add_repository(server, "org/Tiny-Model", COMMIT, FILES)
    model = pin(["huggingface:org/Tiny-Model"], wishes(server))
    assert (model.name, model.format, model.license) == ("tiny-model", "safetensors", "Apache-2.0")
    assert {file.name: (file.size, file.sha256) for file in model.files} == {
        name: (len(FILES[name]), sha256(FILES[name]))
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    }
    for file in model.files:
        assert file.source == HuggingFaceSource(
            kind="huggingface", repository="org/Tiny-Model", revision=COMMIT, path=file.name
        )
    # Large files are known by their LFS digests: nobody downloads weights to pin them.
    assert not [request for request in server.requests if request.path.startswith("/storage/")]


def test_globs_choose_other_files(server: MisbehavingServer) -> None:
    add_repository(server, "org/tiny", COMMIT, FILES)
    model = pin([f"huggingface:org/tiny@{COMMIT}"], wishes(server, include=("*Q4_K_M.gguf",), name="mine"))
    assert (model.name, model.format) == ("mine", "gguf")
    assert [file.name for file in model.files] == ["tiny.Q4_K_M.gguf"]
    with pytest.raises(HalError, match=r"has \.gguf and \.safetensors files"):
        pin(["huggingface:org/tiny"], wishes(server, include=("*",), exclude=("onnx/*",)))
    with pytest.raises(HalError, match=r"neither \.gguf nor \.safetensors"):
        pin(["huggingface:org/tiny"], wishes(server, exclude=("*.safetensors",)))


def test_a_token_opens_a_gated_repository(server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    add_repository(server, "org/gated", COMMIT, FILES, gated="hf_secret")
    with pytest.raises(HalError) as caught:
        pin(["huggingface:org/gated"], wishes(server))
    assert "org/gated is gated" in caught.value.message
    assert caught.value.hint and "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pin(["huggingface:org/gated"], wishes(server)).name == "gated"


def test_what_is_not_there_is_named(server: MisbehavingServer) -> None:
    add_repository(server, "org/tiny", COMMIT, FILES)
    with pytest.raises(HalError, match=r"org/other: .* has no such repository, or it is private"):
        pin(["huggingface:org/other"], wishes(server))
    with pytest.raises(HalError, match="org/tiny has no revision v9"):
        pin(["huggingface:org/tiny@v9"], wishes(server))
    with pytest.raises(HalError, match=r"huggingface:tiny is no repository"):
        pin(["huggingface:tiny"], wishes(server))


def test_a_hub_that_cannot_be_reached_is_one_line() -> None:
    with pytest.raises(HalError) as caught:
        pin(["huggingface:org/tiny"], Wishes(endpoint=unused_url()))
    assert "cannot be asked for org/tiny" in caught.value.message
    assert "\n" not in caught.value.message


def test_other_bytes_than_the_commits_are_refused(server: MisbehavingServer) -> None:
    repository = add_repository(server, "org/tiny", COMMIT, FILES)
    server.files[repository.resolve("config.json")] = b'{"model_type": "evil!"}'
    with pytest.raises(HalError, match=r"config\.json came with other content than the commit has"):
        pin(["huggingface:org/tiny"], wishes(server))


def test_a_tag_is_pinned_with_its_manifest(server: MisbehavingServer) -> None:
    licence = b"Apache License\nVersion 2.0, January 2004\n"
    made = add_tag(server, "library/tiny", "1b", {"model": WEIGHTS, "license": licence, "template": b"{{ }}"})
    model = pin(["ollama:tiny:1b"], wishes(server))
    assert (model.name, model.format, model.license) == ("tiny-1b", "ollama", "Apache-2.0")
    manifest, *blobs = model.files
    assert (manifest.name, manifest.sha256) == ("manifest.json", sha256(made.manifest))
    assert {file.name for file in blobs} == {f"blobs/sha256-{digest}" for digest in made.blobs}
    assert {file.size for file in blobs} == {len(content) for content in made.blobs.values()}
    assert manifest.source == OllamaSource(kind="ollama", model="library/tiny", tag="1b")
    assert not server.asked(made.stored(sha256(WEIGHTS)))
    with pytest.raises(HalError, match="has no model tiny:2b"):
        pin(["ollama:tiny:2b"], wishes(server))
    with pytest.raises(HalError, match="no --include"):
        pin(["ollama:tiny:1b"], wishes(server, include=("*",)))


def test_a_registry_that_answers_nonsense(server: MisbehavingServer) -> None:
    made = add_tag(server, "library/tiny", "1b", {"model": WEIGHTS})
    server.files[made.manifest_path] = b'{"layers": 5}'
    with pytest.raises(HalError, match="the registry's answer is no manifest"):
        pin(["ollama:tiny:1b"], wishes(server))
    with pytest.raises(HalError, match="cannot be asked for tiny:1b: ConnectionError"):
        pin(["ollama:tiny:1b"], Wishes(endpoint=unused_url()))


def test_a_directory_is_pinned_and_its_entry_is_a_spec(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "b.gguf").write_bytes(b"weights")
    (weights / "a.json").write_bytes(b"{}")
    (weights / ".cache").write_bytes(b"no part of it")
    model = pin([str(weights)], Wishes(name="mine", license="MIT"))
    assert [file.name for file in model.files] == ["b.gguf", "a.json"]
    spec = "appliance: {name: a, version: 1.0.0}\nengines: [llamacpp]\nmodels:\n" + entry(model, item=True)
    assert parse_spec(spec, tmp_path / "spec.yaml").models == (model,)


def test_a_models_file_is_found_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "models/w").mkdir(parents=True)
    (tmp_path / "models/w/m.gguf").write_bytes(b"weights")
    model = pin([str(tmp_path / "models/w")], Wishes(name="mine"))
    write_entry(model, tmp_path / "models/mine.yaml")
    assert yaml.safe_load((tmp_path / "models/mine.yaml").read_text())["files"][0]["source"] == {
        "kind": "file",
        "path": "w/m.gguf",
    }
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "appliance: {name: a, version: 1.0.0}\nengines: [llamacpp]\nmodels: [./models/mine.yaml]\n"
    )
    (found,) = load_spec(spec).models
    assert (found.name, found.identity) == ("mine", model.identity)
    assert (tmp_path / found.files[0].source.path).read_bytes() == b"weights"  # type: ignore[union-attr]
    with pytest.raises(HalError, match=r"named after it: mine\.yaml"):
        write_entry(model, tmp_path / "other.yaml")


def test_an_ollama_store_in_a_directory(tmp_path: Path) -> None:
    digest = sha256(b"blob")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"sha256-{digest}").write_bytes(b"blob")
    (tmp_path / "manifest.json").write_bytes(b"{}")
    model = pin([str(tmp_path)], Wishes(name="mine"))
    assert model.format == "ollama"
    (tmp_path / "blobs" / f"sha256-{digest}").write_bytes(b"changed")
    with pytest.raises(HalError, match="with its own digest"):
        pin([str(tmp_path)], Wishes(name="mine"))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nowhere", "there is no such directory"),
        ("git:x", "there is no kind 'git'"),
        ("huggingface:", "is no repository"),
        ("ollama:", "is no model"),
    ],
)
def test_references_that_are_none(reference: str, expected: str) -> None:
    with pytest.raises(HalError, match=expected):
        pin([reference], Wishes())


def test_licences() -> None:
    assert of_identifier("apache-2.0") == "Apache-2.0"
    assert of_identifier("llama3.1") == "LicenseRef-llama3.1"
    assert of_identifier("other") == "NOASSERTION"
    assert of_text("MIT License\n\nCopyright") == "MIT"
    assert of_text("All rights reserved") == "NOASSERTION"


def test_an_entry_is_the_model(server: MisbehavingServer) -> None:
    add_repository(server, "org/tiny", COMMIT, FILES)
    model = pin(["huggingface:org/tiny"], wishes(server))
    assert Model.model_validate(yaml.safe_load(entry(model))) == model
    assert [Model.model_validate(one) for one in yaml.safe_load(entry(model, item=True))] == [model]
