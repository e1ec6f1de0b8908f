"""The parts of a Buildroot root: what `make show-info` says of its packages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from packageurl import PackageURL

from hal.sbom.component import Component
from hal.sbom.licences import of_buildroot

Hashes = Mapping[str, Mapping[str, str]]
"""The SHA-256 of each download, by package and file name."""

_HASH = re.compile(r"^sha256\s+([0-9a-f]{64})\s+(\S+)\s*$", re.MULTILINE)

_RELEASE = re.compile(r"^# Buildroot (\S+) Configuration$", re.MULTILINE)


def source_hashes(show_info: Mapping[str, Any], content: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """The digests that Buildroot's hash files give for what is downloaded, by package and file name.

    `content` gives the text of a hash file by the path that show-info names (Buildroot's manual, "The .hash
    file").
    """
    found = {}
    for name, entry in show_info.items():
        wanted = {download["source"] for download in entry.get("downloads", [])}
        listed = {
            file: digest for path in entry.get("hashes", []) for digest, file in _HASH.findall(content(path))
        }
        if known := {file: listed[file] for file in sorted(wanted) if file in listed}:
            found[name] = known
    return found


def release(config: str) -> str:
    """The version of Buildroot that wrote a `.config`; empty where its head does not say."""
    found = _RELEASE.search(config)
    return found[1] if found else ""


def buildroot_components(show_info: Mapping[str, Any], hashes: Hashes, place: str) -> tuple[Component, ...]:
    """The packages that are in the image, out of what show-info lists; `place` begins their references.

    Left out are packages for the machine that builds, root file systems, and virtual packages and those
    without a version, which hold nothing themselves: what they depend on hangs on what depends on them.
    """
    targets = {name: entry for name, entry in show_info.items() if entry.get("type") == "target"}
    held = {name for name, entry in targets.items() if not entry.get("virtual") and entry.get("version")}

    def reached(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        found = set()
        for needed in targets[name].get("dependencies", []):
            if needed in held:
                found.add(needed)
            elif needed in targets and needed not in seen:
                found |= reached(needed, seen | {name})
        return found - {name}

    return tuple(
        _component(name, targets[name], hashes.get(name, {}), place, reached(name)) for name in sorted(held)
    )


def cpe_of(cpe: str, version: str) -> str:
    """A package's CPE name if it is of its version; "" otherwise.

    Where a package comes from another source than Buildroot's, the version in some packages' CPE names stays
    Buildroot's, and vulnerabilities would be looked up for a version that is not there.
    """
    fields = cpe.split(":")
    told = re.sub(r"[^0-9a-z]+", ".", fields[5].lower()) if len(fields) > 5 else ""
    there = re.sub(r"[^0-9a-z]+", ".", version.lower()).removeprefix("v")
    return cpe if told and there.startswith(told.removeprefix("v")) else ""


def _component(
    name: str, entry: Mapping[str, Any], hashes: Mapping[str, str], place: str, depends: set[str]
) -> Component:
    version = str(entry["version"])
    sources = [download["source"] for download in entry.get("downloads", [])]
    # Of several downloads the first is the package; the others are patches and additions.
    first, *others = sources or [""]
    listed = [("hal:file", file) for file in sources]
    listed += [
        ("hal:buildroot:download", f"{file} sha256:{hashes[file]}") for file in others if file in hashes
    ]
    listed += [("hal:buildroot:patch", str(patch)) for patch in entry.get("patches", [])]
    return Component(
        f"{place}/{name}",
        "library",
        str(entry.get("name", name)),
        version,
        purl=PackageURL("generic", None, str(entry.get("name", name)), version).to_string(),
        cpe=cpe_of(str(entry.get("cpe-id", "")), version),
        licence=of_buildroot(str(entry.get("licenses", ""))),
        sha256=hashes.get(first, ""),
        properties=tuple(sorted(listed)),
        depends=tuple(sorted(f"{place}/{needed}" for needed in depends)),
    )
