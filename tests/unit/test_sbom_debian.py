"""The parts of a Debian root, out of a dpkg database, copyright files and the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.lock.file import DebianPackage
from hal.sbom import debian

STATUS = """\
Package: app
Status: install ok installed
Architecture: amd64
Source: app-src (1.0-2)
Version: 1.0-2+b1
Pre-Depends: libc6 (>= 2.38)
Depends: mail-agent | exim4, libnone | liba, python3:any (>= 3.11),
 app-data (= 1.0-2)
Description: an application
 Depends: nothing, this is its description

Package: app-data
Status: install ok installed
Architecture: all
Version: 1.0-2
Source: app-src

Package: exim
Status: install ok installed
Architecture: amd64
Version: 4:4.98-1
Provides: mail-agent (= 1), smtp

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: liba
Status: install ok installed
Architecture: amd64
Version: 1~rc1+dfsg-1
Depends: liba

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: app

Files: *
Copyright: 2020 Somebody
License: GPL-2+

Files: lib/*
Copyright: 2021 Somebody Else
License: Expat
 The text of it.

License: GPL-2+
 The text of it.
"""


def pinned(name: str, version: str, source: str = "") -> DebianPackage:
    file = f"{name}_{version}.deb"
    return DebianPackage(
        file,
        f"{len(name):064x}",
        1,
        f"debian:main/pool/main/a/{source or name}/{file}",
        name,
        version,
        "amd64",
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / debian.STATUS).write_text(STATUS)
    for name, text in {"app": COPYRIGHT, "exim": "Copyright: somebody. GPL.\n", "liba": COPYRIGHT}.items():
        (tmp_path / "usr/share/doc" / name).mkdir(parents=True)
        (tmp_path / "usr/share/doc" / name / "copyright").write_text(text)
    (tmp_path / "usr/share/doc/app-data").symlink_to("app")
    return tmp_path


@pytest.fixture
def parts(tree: Path) -> dict[str, debian.Component]:
    names = ("app", "app-data", "exim", "liba", "libc6", "not-installed")
    found = debian.components(tree, [pinned(name, "1") for name in names], "trixie", "system")
    return {part.name: part for part in found}


def test_a_part_is_a_package_that_is_installed(parts: dict[str, debian.Component]) -> None:
    assert sorted(parts) == ["app", "app-data", "exim", "liba", "libc6"]


def test_a_package_url_names_the_version_the_release_and_the_source(
    parts: dict[str, debian.Component],
) -> None:
    assert parts["app"].purl == (
        "pkg:deb/debian/app@1.0-2%2Bb1?arch=amd64&distro=trixie&upstream=app-src%401.0-2"
    )
    assert parts["exim"].purl == "pkg:deb/debian/exim@4:4.98-1?arch=amd64&distro=trixie"
    assert parts["app"].version == "1.0-2+b1"
    assert ("hal:debian:source", "app-src 1.0-2") in parts["app"].properties


def test_a_part_has_the_digest_of_the_file_that_the_lock_pins(parts: dict[str, debian.Component]) -> None:
    assert parts["libc6"].sha256 == f"{5:064x}"
    assert ("hal:source", "debian:main/pool/main/a/libc6/libc6_1.deb") in parts["libc6"].properties


def test_what_a_part_depends_on_is_what_is_there(parts: dict[str, debian.Component]) -> None:
    """The first alternative that is installed, or what provides it; never itself, never what is absent."""
    assert parts["app"].depends == ("system/app-data", "system/exim", "system/liba", "system/libc6")
    assert parts["liba"].depends == ()


def test_a_licence_is_what_the_copyright_file_says(parts: dict[str, debian.Component]) -> None:
    assert parts["app"].licence == "GPL-2.0-or-later AND MIT"
    assert parts["app-data"].licence == parts["app"].licence  # through a link to the other's directory
    assert not parts["app"].concluded


def test_no_licence_is_made_up_for_prose(parts: dict[str, debian.Component]) -> None:
    assert parts["exim"].licence == ""
    assert parts["libc6"].licence == ""  # no file at all


def test_what_a_person_has_read_is_marked_as_that() -> None:
    package = debian.of_pool(pinned("libgcc-s1", "14.2.0-19", "gcc-14"))
    part = debian.component(package, "Prose.", pinned("libgcc-s1", "14.2.0-19", "gcc-14"), "trixie", "x")
    assert (part.licence, part.concluded) == ("GPL-3.0-or-later WITH GCC-exception-3.1", True)


def test_a_package_that_is_only_unpacked_is_known_by_its_pool() -> None:
    package = debian.of_pool(pinned("libbz2-1.0", "1.0.8-5+b1", "bzip2"))
    assert (package.source, package.source_version) == ("bzip2", "1.0.8-5")
