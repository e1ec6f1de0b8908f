"""The bill of materials as a document: valid CycloneDX 1.6, and the same bytes for the same contents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hal.lock.file import Wheel
from hal.sbom import document, wheels
from hal.sbom.component import Component, Contents, dumps, loads

EPOCH = 1_700_000_000

CONTENTS = Contents(
    (
        Component("appliance", "application", "my", "1.0.0", depends=("b", "a")),
        Component(
            "b",
            "library",
            "libb",
            "2:1+b1",
            purl="pkg:deb/debian/libb@2:1%2Bb1?arch=amd64",
            licence="LicenseRef-debian-odd",
            concluded=True,
            sha256="ab" * 32,
            properties=(("hal:file", "b.deb"), ("hal:file", "a.deb")),
        ),
        Component("a", "machine-learning-model", "liba", licence="MIT", depends=("b", "c")),
        Component(
            "c",
            "file",
            "c",
            licence="ISC OR MIT",
            cpe="cpe:2.3:a:c:c:1:*:*:*:*:*:*:*",
            url="https://example.org/c",
        ),
    )
)


def written(contents: Contents = CONTENTS) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document.text(contents, "my_1.0.0", EPOCH))
    return found


def test_it_is_valid() -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.text(CONTENTS, "my_1.0.0", EPOCH))
    assert problem is None, problem


def test_the_validator_would_see_an_unknown_licence() -> None:
    wrong = document.text(CONTENTS, "s", EPOCH).replace('"id": "MIT"', '"id": "No-Such-Licence"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(wrong) is not None


def test_a_licence_is_an_identifier_a_name_or_an_expression() -> None:
    found = {part["name"]: part["licenses"] for part in written()["components"]}
    assert found == {
        "liba": [{"license": {"id": "MIT", "acknowledgement": "declared"}}],
        "libb": [{"license": {"name": "LicenseRef-debian-odd", "acknowledgement": "concluded"}}],
        "c": [{"expression": "ISC OR MIT", "acknowledgement": "declared"}],
    }


def test_every_dependency_is_there() -> None:
    depends = {row["ref"]: row.get("dependsOn", []) for row in written()["dependencies"]}
    assert depends == {"appliance": ["a", "b"], "a": ["b", "c"], "b": [], "c": []}


def test_the_time_is_the_epoch_s() -> None:
    assert written()["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_the_serial_number_follows_from_seed_and_contents() -> None:
    whole, *parts = CONTENTS.components
    other = Contents((whole, replace(parts[0], version="2"), *parts[1:]))
    numbers = [written()["serialNumber"], written(other)["serialNumber"]]
    numbers.append(json.loads(document.text(CONTENTS, "another_1.0.0", EPOCH))["serialNumber"])
    assert len(set(numbers)) == 3
    assert written()["serialNumber"] == numbers[0]


def test_the_bytes_are_the_same_in_every_process() -> None:
    script = (
        "import sys\nfrom hal.sbom import document\n"
        "from tests.unit.test_sbom_document import CONTENTS, EPOCH\n"
        "sys.stdout.write(document.text(CONTENTS, 'my_1.0.0', EPOCH))"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("0", "UTC"), ("1", "Asia/Tokyo"))
    ]
    assert texts == [document.text(CONTENTS, "my_1.0.0", EPOCH)] * 2


def test_components_survive_the_cache() -> None:
    assert loads(dumps(CONTENTS.components)) == CONTENTS.components


def wheel(name: str, source: str) -> Wheel:
    return Wheel(name, "cd" * 32, 1, source)


def test_a_wheel_is_a_part_with_the_licence_of_its_metadata() -> None:
    part = wheels.component(
        wheel("My_Pkg-1.0+cpu-py3-none-any.whl", "index:my-pkg==1.0+cpu"),
        "Name: My.Pkg\nLicense-Expression: MIT OR Apache-2.0\n\nLicense: a word of the description\n",
        "engine/x",
    )
    assert (part.ref, part.purl, part.licence) == (
        "engine/x/my-pkg",
        "pkg:pypi/my-pkg@1.0%2Bcpu",
        "MIT OR Apache-2.0",
    )
    assert part.sha256 == "cd" * 32


def test_metadata_is_found_whatever_the_folder_is_called() -> None:
    listed = [
        wheel("my_pkg-1.0-py3-none-any.whl", "pypi:My.Pkg==1.0"),
        wheel("other-2.0-py3-none-any.whl", "pypi:other==2.0"),
        wheel("absent-1-py3-none-any.whl", "pypi:absent==1"),
    ]
    entries = ["My.Pkg-1.0.dist-info", "other-2.0.dist-info", "other", "other-1.0.dist-info", "x.dist-info"]
    assert wheels.metadata_paths(listed, "/lib", entries) == {
        "my_pkg-1.0-py3-none-any.whl": "/lib/My.Pkg-1.0.dist-info/METADATA",
        "other-2.0-py3-none-any.whl": "/lib/other-2.0.dist-info/METADATA",
    }
