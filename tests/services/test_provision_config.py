"""The provisioner's configuration: what is taken, and what is refused with the place of the mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.provisioner import config
from tests.services.provision_pins import as_json, configuration, pinned_file, pinned_model

FILE = pinned_file("model.gguf", b"abc", "https://models.example/model.gguf")


def whole() -> dict[str, Any]:
    return as_json(configuration(Path("/x"), pinned_model("one", FILE), reserve=config.RESERVE))


def test_it_is_read_back() -> None:
    wanted = configuration(Path("/x"), pinned_model("one", FILE), reserve=config.RESERVE)
    assert config.parse(json.dumps({"generated": "by hal", **whole()})) == wanted


def test_what_is_not_said_is_as_usual() -> None:
    data = whole()
    for key in ("policy", "mirrors", "quota", "reserve", "concurrency", "built", "no_proxy"):
        del data[key]
    found = config.parse(json.dumps(data))
    assert found.policy == config.Policy() and found.reserve == 64 * 1024 * 1024 and found.concurrency == 2


def test_each_kind_of_source_is_taken() -> None:
    data = whole()
    revision = "0" * 40
    hub = {"kind": "huggingface", "repository": "ORG/NAME", "revision": revision, "path": "a/b.gguf"}
    for source in (hub, {"kind": "ollama", "model": "library/smollm2", "tag": "135m"}):
        data["models"][0]["files"][0]["source"] = source
        found = config.parse(json.dumps(data)).models[0].files[0].source
        assert found is not None and found._asdict() == source


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            data = data[int(step)] if step.isdigit() else data[step]
        data[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("quota", -1), "quota must be a whole number"),
        (changed("quota", True), "quota must be a whole number"),
        (changed("directory", "models"), "directory: 'models' is not of the form"),
        (changed("more", 1), "the key more is not known"),
        (changed("policy.more", 1), "the key policy.more is not known"),
        (changed("policy.attempts", 0), "policy.attempts must be a whole number from 1"),
        (changed("policy.jitter", 2), "policy.jitter must be a number from 0 to 1"),
        (changed("mirrors.https", ["ftp://x"]), "mirrors.https"),
        (changed("models.0.name", "../x"), "models[0].name"),
        (changed("models.0.delivery", "post"), "models[0].delivery"),
        (changed("models.0.size", 4), "models[0]: size 4 is not that of its files together"),
        (changed("models.0.id", "0" * 32), "models[0]: the id"),
        (changed("models.0.files", []), "models[0]: it has no files"),
        (changed("models.0.files.0.name", "../../etc/passwd"), "models[0].files[0].name"),
        (changed("models.0.files.0.name", ".hidden"), "models[0].files[0].name"),
        (changed("models.0.files.0.sha256", "0" * 63), "models[0].files[0].sha256"),
        (changed("models.0.files.0.source", None), "the file model.gguf has no source"),
        (changed("models.0.files.0.source", {"kind": "ipfs"}), "source.kind: 'ipfs' is not"),
        (changed("models", {}), "models must be a list"),
    ],
)
def test_a_mistake_is_named_with_its_place(change: Callable[[dict[str, Any]], None], words: str) -> None:
    data = whole()
    change(data)
    with pytest.raises(config.ConfigError) as caught:
        config.parse(json.dumps(data))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_lie_beside_each_other_are_refused() -> None:
    for names in (("a", "a"), ("a", "a/b"), ("a", "a-b", "a/b/c")):
        model = pinned_model("one", *(pinned_file(name, b"x") for name in names))
        with pytest.raises(config.ConfigError, match=r"two files are named|lies in a folder"):
            config.parse(json.dumps(as_json(configuration(Path("/x"), model))))


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=f"^{tmp_path}/no: No such file"):
        config.read(f"{tmp_path}/no")
    (tmp_path / "bad").write_text("{")
    with pytest.raises(config.ConfigError, match=f"^{tmp_path}/bad: it is no JSON"):
        config.read(f"{tmp_path}/bad")
