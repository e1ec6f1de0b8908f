"""The parts of a Debian root tree: what its dpkg database lists, with the licences of its copyright files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packageurl import PackageURL

from hal.lock.file import DebianPackage
from hal.sbom.component import Component
from hal.sbom.licences import all_of, of_debian, tables

STATUS = "var/lib/dpkg/status"
MACHINE_READABLE = "debian.org/doc/packaging-manuals/copyright-format"
"""What the `Format` of a copyright file holds when programs can read it; an earlier form was a wiki page."""


@dataclass(frozen=True)
class Installed:
    """A package as dpkg knows it; `needs` holds, for each dependency, the names that would satisfy it."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str
    provides: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()


def installed(status: str) -> tuple[Installed, ...]:
    """The installed packages of a dpkg database (`var/lib/dpkg/status`, dpkg(1)), by name."""
    from debian_inspector.debcon import get_paragraphs_data

    found = (
        _installed(fields)
        for fields in get_paragraphs_data(status)
        if fields.get("status", "").endswith(" installed")
    )
    return tuple(sorted(found, key=lambda package: package.name))


def control(fields: str) -> Installed:
    """A package out of the control fields of its file, as `dpkg-deb --field` prints them."""
    from debian_inspector.debcon import get_paragraph_data

    return _installed(get_paragraph_data(fields))


def _installed(fields: Mapping[str, str]) -> Installed:
    name, version = fields["package"], fields["version"]
    source, _, rest = fields.get("source", name).partition(" ")
    needs = f"{fields.get('pre-depends', '')},{fields.get('depends', '')}"
    return Installed(
        name,
        version,
        fields["architecture"],
        source,
        rest.strip("() ") or version,
        tuple(_names(fields.get("provides", ""), ",")),
        tuple(tuple(_names(group, "|")) for group in needs.split(",") if group.strip()),
    )


def _names(text: str, between: str) -> list[str]:
    """The names of packages in a relationship field, without versions and architectures."""
    return [re.split(r"[\s(:\[]", item.strip())[0] for item in text.split(between) if item.strip()]


def licence(copyright: str) -> str:
    """The licences that a copyright file names, as one expression; empty: no program can read the file.

    All of them together: a file says what its package's *source* holds, not which of it a binary was made of.
    """
    from debian_inspector.copyright import CopyrightFilesParagraph, DebianCopyright

    if MACHINE_READABLE not in copyright[:2000] and "Copyright_Format" not in copyright[:2000]:
        return ""
    paragraphs = DebianCopyright.from_text(copyright).paragraphs
    return all_of(
        of_debian(paragraph.license.name or "text")
        for paragraph in paragraphs
        if isinstance(paragraph, CopyrightFilesParagraph) and paragraph.license
    )


def component(
    package: Installed,
    copyright: str,
    pinned: DebianPackage,
    suite: str,
    place: str,
    depends: Iterable[str] = (),
) -> Component:
    """A package as a part: `pinned` is its entry in the lock, `place` is what its reference begins with."""
    declared = licence(copyright)
    read = "" if declared else tables()["read"].get(package.source, "")
    upstream = package.source
    if package.source_version != package.version:
        upstream += f"@{package.source_version}"
    qualifiers = {"arch": package.architecture, "distro": suite}
    if upstream != package.name:
        qualifiers["upstream"] = upstream
    return Component(
        f"{place}/{package.name}",
        "library",
        package.name,
        package.version,
        purl=PackageURL("deb", "debian", package.name, package.version, qualifiers).to_string(),
        licence=declared or read,
        concluded=bool(read),
        sha256=pinned.sha256,
        properties=(
            ("hal:debian:source", f"{package.source} {package.source_version}"),
            ("hal:file", pinned.name),
            ("hal:source", pinned.source),
        ),
        depends=tuple(sorted(depends)),
    )


def components(tree: Path, pinned: Sequence[DebianPackage], suite: str, place: str) -> tuple[Component, ...]:
    """The parts of a root tree: what dpkg says is installed, with the files that the lock pins for it."""
    packages = installed((tree / STATUS).read_text())
    files = {package.package: package for package in pinned}
    there = {package.name for package in packages}
    providers: dict[str, list[str]] = {}
    for package in packages:
        for name in package.provides:
            providers.setdefault(name, []).append(package.name)

    def needed(package: Installed) -> Iterable[str]:
        for group in package.needs:
            for name in group:
                if found := [name] if name in there else providers.get(name):
                    yield from (f"{place}/{other}" for other in found if other != package.name)
                    break

    return tuple(
        component(
            package, _copyright(tree, package.name), files[package.name], suite, place, set(needed(package))
        )
        for package in packages
    )


def _copyright(tree: Path, name: str) -> str:
    """A package's copyright file; empty where there is none. A link leads to a package's that shares it."""
    path = tree / "usr/share/doc" / name / "copyright"
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def of_pool(pinned: DebianPackage) -> Installed:
    """A package that is unpacked and not installed, out of the lock alone.

    Its folder in the pool is its source's name; the source's version is the package's without the number of a
    rebuild (`+b2`).
    """
    source = pinned.source.split("/")[-2]
    return Installed(
        pinned.package, pinned.version, pinned.architecture, source, re.sub(r"\+b\d+$", "", pinned.version)
    )
