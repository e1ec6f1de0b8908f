"""The parts of an engine's pack that came as wheels: what their METADATA says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from email.parser import HeaderParser

from packageurl import PackageURL
from packaging.utils import canonicalize_name, parse_wheel_filename

from hal.lock.file import Wheel
from hal.sbom.component import Component
from hal.sbom.licences import of_python


def component(wheel: Wheel, metadata: str, place: str) -> Component:
    """A wheel as a part; `metadata` is its METADATA (core metadata), "" where there is none."""
    fields = HeaderParser().parsestr(metadata)
    name = canonicalize_name(wheel.project)
    return Component(
        f"{place}/{name}",
        "library",
        name,
        wheel.version,
        purl=PackageURL("pypi", None, name, wheel.version).to_string(),
        licence=of_python(
            str(fields.get("License-Expression", "")),
            str(fields.get("License", "")),
            [str(words) for words in fields.get_all("Classifier", [])],
        ),
        sha256=wheel.sha256,
        properties=(("hal:file", wheel.name), ("hal:source", wheel.source)),
    )


def metadata_paths(wheels: Sequence[Wheel], folder: str, entries: Iterable[str]) -> Mapping[str, str]:
    """Where a folder of installed modules has each wheel's METADATA, by the wheel's file name.

    `entries` are the names in the folder. A wheel whose `.dist-info` is not there has no path.
    """
    there = {}
    for entry in entries:
        name, _, version = entry.removesuffix(".dist-info").rpartition("-")
        if entry.endswith(".dist-info") and name:
            there[canonicalize_name(name), version] = f"{folder}/{entry}/METADATA"
    found = {}
    for wheel in wheels:
        name, parsed, _, _ = parse_wheel_filename(wheel.name)
        path = there.get((name, wheel.version)) or there.get((name, str(parsed)))
        if path is not None:
            found[wheel.name] = path
    return found
