"""What a build says about itself is true: its bill of materials and its provenance."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hal import provenance
from hal.build import MANIFEST
from hal.sbom import document
from tests.build.builder import HAL, Builder, linked_cache


@pytest.fixture(scope="module")
def built(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """A build; its cache has every tree."""
    home = tmp_path_factory.mktemp("records")
    builder = Builder(home, linked_cache(home, filled, lambda name: True))
    builder.build(builder.spec())
    return builder


def spec(builder: Builder) -> str:
    """The spec that was built."""
    return str(next(builder.home.glob("*.yaml")))


def bill(builder: Builder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((builder.target / document.NAME).read_text())
    return found


def hal(builder: Builder, *words: str) -> str:
    return subprocess.run(
        [*HAL, *words, "--offline"], env=builder.environment(), capture_output=True, text=True, check=True
    ).stdout


def test_the_bill_of_materials_is_valid(built: Builder) -> None:
    text = (built.target / document.NAME).read_text()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem


def test_the_bill_of_materials_holds_everything_of_the_manifest(built: Builder) -> None:
    manifest = json.loads((built.target / MANIFEST).read_text())
    parts = {part["bom-ref"]: part for part in bill(built)["components"]}
    found = {
        part["name"]: part["version"] for ref, part in parts.items() if ref.startswith(("system/", "boot/"))
    }
    assert manifest["packages"].items() <= found.items()
    roots = {
        row["value"]
        for part in parts.values()
        for row in part.get("properties", [])
        if row["name"] == "hal:pack:root-hash"
    }
    assert roots == {pack["root_hash"] for pack in manifest["packs"]}


def test_every_package_has_a_digest_and_nearly_every_one_a_licence(built: Builder) -> None:
    packages = [part for part in bill(built)["components"] if part.get("purl", "").startswith("pkg:deb/")]
    assert len(packages) > 90
    assert [part["name"] for part in packages if "hashes" not in part] == []
    assert [part["name"] for part in packages if "licenses" not in part] == []


def test_engine_and_model_are_there_with_what_they_were_made_of(built: Builder) -> None:
    parts = {part["bom-ref"]: part for part in bill(built)["components"]}
    wheel = parts["engine/llamacpp/xllamacpp"]
    assert wheel["licenses"][0]["license"]["id"] == "MIT"
    assert wheel["purl"].startswith("pkg:pypi/xllamacpp@")
    model = parts["model/smollm2-135m"]
    assert (model["type"], model["licenses"][0]["license"]["id"]) == ("machine-learning-model", "Apache-2.0")
    assert "hashes" in parts["model/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert "system/haproxy" in parts and "services/hal-selector" in parts and "boot/hal-init" in parts


def test_sbom_prints_what_the_build_has(built: Builder) -> None:
    assert hal(built, "sbom", spec(built)) == (built.target / document.NAME).read_text()
    file = built.home / "bill.json"
    assert hal(built, "sbom", spec(built), "--out", str(file)) == ""
    assert file.read_text() == (built.target / document.NAME).read_text()


def test_the_provenance_speaks_of_every_file(built: Builder) -> None:
    statement = json.loads((built.target / provenance.NAME).read_text())
    digests = built.digests()
    del digests[provenance.NAME]
    assert {item["name"]: item["digest"]["sha256"] for item in statement["subject"]} == digests
    manifest = json.loads((built.target / MANIFEST).read_text())
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == manifest["fingerprint"]
    assert hal(built, "provenance", spec(built), "--out", str(built.out)) == (
        (built.target / provenance.NAME).read_text()
    )


@pytest.mark.parametrize("name", [document.NAME, provenance.NAME])
def test_a_record_that_is_gone_comes_again(built: Builder, name: str) -> None:
    before = built.digests()
    (built.target / name).unlink()
    built.build(Path(spec(built)))
    assert built.digests() == before
