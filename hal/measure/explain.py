"""Why two measurements differ: which inputs are not the same, and which values each of them reaches.

From two `measurements.json` alone it tells the input; from two builds it also tells what made a root another
one (packages, the spec), by their manifests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal.measure.document import Inputs, Measurements, read

MANIFEST = "manifest.json"
"""A build's own manifest, beside its measurements."""

COMMAND_LINE = "command line"
FIRMWARE = "firmware"

REACHES: Mapping[str, tuple[str, ...]] = {
    "kernel": ("sev-snp launch digest", "tdx RTMR 1", "tdx RTMR 2 (uki)", "tpm PCR 4", "tpm PCR 11"),
    "initrd": ("sev-snp launch digest", "tdx RTMR 1 (uki)", "tdx RTMR 2", "tpm PCR 4", "tpm PCR 11"),
    COMMAND_LINE: ("sev-snp launch digest", "tdx RTMR 1 (uki)", "tdx RTMR 2", "tpm PCR 4", "tpm PCR 11"),
    "uki": ("tdx RTMR 1 (uki)", "tdx RTMR 2 (uki)", "tpm PCR 4", "tpm PCR 11"),
    "partition table": ("tdx RTMR 1 (uki)",),
    "sev-snp firmware": ("sev-snp launch digest",),
    "tdx firmware": ("tdx MRTD",),
    "tpm firmware": (),
    "root hash": (COMMAND_LINE,),
    "manifest": ("root hash", "report data"),
    "packs": ("manifest", "root hash"),
    "packages": ("root hash",),
    "spec": ("root hash",),
    "name": ("manifest", "root hash", COMMAND_LINE),
    "version": ("manifest", "root hash", COMMAND_LINE),
    "variant": ("manifest", "root hash", COMMAND_LINE),
}
"""What changes with each input: a value that platforms report, or another input."""


@dataclass(frozen=True)
class Difference:
    """An input that two measurements do not share: its name, what it is in each, and what it reaches."""

    input: str
    first: str
    second: str
    reaches: tuple[str, ...]


def explain(first: Path, second: Path) -> list[Difference]:
    """The differences between two `measurements.json`, or between two builds' directories, causes last.

    Raises:
        HalError: one of them is not to be read.
    """
    found = list(differences(read(first), read(second)))
    manifests = [_manifest(path) for path in (first, second)]
    if manifests[0] is not None and manifests[1] is not None:
        found += _built_from(manifests[0], manifests[1])
    return found


def differences(first: Measurements, second: Measurements) -> Iterator[Difference]:
    """The inputs that are not the same in two documents."""
    one, two = first.inputs, second.inputs
    yield from _differing(_inputs(one), _inputs(two))
    yield from (
        Difference(COMMAND_LINE, a, b, REACHES[COMMAND_LINE])
        for a, b in _words(one.command_line, two.command_line)
    )
    yield from _differing(_firmware(first), _firmware(second))
    yield from _differing(_contents(first), _contents(second))
    for name, a, b in _values(first.packs, second.packs):
        yield Difference(f"pack {name}", a, b, REACHES["packs"])


def _inputs(inputs: Inputs) -> dict[str, str]:
    return {
        "kernel": inputs.kernel,
        "initrd": inputs.initrd,
        "uki": inputs.uki,
        "partition table": inputs.partition_table,
    }


def _firmware(document: Measurements) -> dict[str, str]:
    """The firmware of each platform; what only one of two documents was computed for is no difference."""
    platforms = document.platforms
    found = {
        "sev-snp firmware": {launch.firmware_sha256 for launch in platforms.sev_snp},
        "tdx firmware": {part.firmware_sha256 for part in document.partial.tdx},
        "tpm firmware": {entry.firmware_sha256 for entry in platforms.tpm if entry.firmware_sha256},
    }
    return {name: " ".join(sorted(digests)) for name, digests in found.items() if digests}


def _contents(document: Measurements) -> dict[str, str]:
    image = document.image
    return {
        "root hash": document.root_hash,
        "manifest": document.manifest_sha256,
        "name": image.name,
        "version": image.version,
        "variant": image.variant,
    }


def _differing(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Difference]:
    for name in first.keys() & second.keys():
        if first[name] != second[name]:
            yield Difference(name, first[name], second[name], REACHES[name])


def _words(first: str, second: str) -> list[tuple[str, str]]:
    """The words of one command line that the other lacks, side by side where they set the same option."""
    ones, twos = first.split(), second.split()
    gone = {word.partition("=")[0]: word for word in ones if word not in twos}
    new = {word.partition("=")[0]: word for word in twos if word not in ones}
    found = [(gone.get(key, ABSENT), new.get(key, ABSENT)) for key in dict.fromkeys([*gone, *new])]
    return found if found or first == second else [("the same words", "in another order")]


ABSENT = "absent"


def _values(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name, ABSENT), second.get(name, ABSENT)
        if a != b:
            yield name, str(a), str(b)


def _manifest(path: Path) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = json.loads((path / MANIFEST).read_text())
        return found
    except (OSError, ValueError):
        return None


def _built_from(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterable[Difference]:
    for name, a, b in _values(first.get("packages", {}), second.get("packages", {})):
        yield Difference(f"package {name}", a, b, REACHES["packages"])
    for name, a, b in _values(_flat(first.get("spec", {})), _flat(second.get("spec", {}))):
        yield Difference(f"spec {name}", a, b, REACHES["spec"])


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """A spec's values by their dotted keys."""
    if isinstance(value, dict) and value:
        inner = [_flat(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()]
    elif isinstance(value, list) and value:
        inner = [_flat(item, f"{path}[{number}]") for number, item in enumerate(value)]
    else:
        return {path: json.dumps(value)}
    return {key: text for values in inner for key, text in values.items()}
