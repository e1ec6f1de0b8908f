"""Other sources for Buildroot's packages: the file that names them, and what Buildroot is given to read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hal.bases.buildroot.downloads import Downloads
from hal.bases.buildroot.sources import archive_name, load_sources
from hal.cache import Cache
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.spec.loading import load_spec
from tests.misbehaving.server import MisbehavingServer

SHA256 = "0123456789abcdef" * 4
HERE = Path(__file__).resolve().parents[2] / "buildroot-external" / "sources" / "debian-trixie.yaml"

FILE = f"""\
packages:
  zlib-ng:
    version: 1.3.1
    file: zlib_1.3.dfsg+really1.3.1.orig.tar.gz
    location: debian:main/pool/main/z/zlib
    sha256: {SHA256}
    size: 5
    also: [zlib-tools]
    subdirectory: src
    autoreconf: true
    patches: PATCHES
    variables: {{ZLIB_NG_VERSION_MAJOR: "1.3"}}
"""

STAND_IN = """\
packages:
  ccache:
    installed: {bin/ccache: /usr/bin/ccache, include/x.h: /usr/include/x.h}
    environment: {CCACHE_DIR: $BR_CACHE_DIR}
"""

BUILDROOT = """\
pkg-patches-dirs = $($(1)_PKGDIR) /global/$($(1)_RAWNAME)
include {override}
ZLIB_NG_RAWNAME = zlib-ng
ZLIB_NG_PKGDIR = package/zlib-ng/
ZLIB_NG_VERSION = 9
OTHER_RAWNAME = other
OTHER_PKGDIR = package/other/
all:
\t@echo $(ZLIB_NG_VERSION) $(ZLIB_NG_SOURCE) $(ZLIB_NG_SUBDIR) $(ZLIB_NG_VERSION_MAJOR)
\t@echo $(call pkg-patches-dirs,ZLIB_NG)
\t@echo $(call pkg-patches-dirs,OTHER)
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "sources.yaml"
    path.write_text(text)
    return path


def test_an_artifact_is_what_the_lock_would_have(tmp_path: Path) -> None:
    (artifact,) = load_sources(write(tmp_path, FILE.replace("PATCHES", "keep"))).artifacts()
    assert artifact.source == "debian:main/pool/main/z/zlib/zlib_1.3.dfsg+really1.3.1.orig.tar.gz"
    assert (artifact.sha256, artifact.size) == (SHA256, 5)


@pytest.mark.parametrize(
    ("location", "source"),
    [
        ("pypi:meson==1.10.1", "pypi:meson==1.10.1"),
        ("https://mirror.example/a/", "https://mirror.example/a/zlib_1.3.dfsg+really1.3.1.orig.tar.gz"),
        ("archives", "file:{here}/archives/zlib_1.3.dfsg+really1.3.1.orig.tar.gz"),
    ],
)
def test_places_that_a_location_may_name(tmp_path: Path, location: str, source: str) -> None:
    text = FILE.replace("PATCHES", "keep").replace("debian:main/pool/main/z/zlib", location)
    (artifact,) = load_sources(write(tmp_path, text)).artifacts()
    assert artifact.source == source.format(here=tmp_path)


@pytest.mark.parametrize(
    ("patches", "expected"),
    [
        ("keep", "package/zlib-ng/ /global/zlib-ng"),
        ("drop", "{tree}/no-patches /global/zlib-ng"),
        ("buildroot:1.2", "package/zlib-ng//1.2 /global/zlib-ng"),
        ("own", "{tree}/patches/zlib-ng /global/zlib-ng"),
    ],
)
def test_make_takes_the_values_of_the_file(tmp_path: Path, patches: str, expected: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "0001-it.patch").write_text("a patch\n")
    blob = tmp_path / "blob"
    blob.write_bytes(b"12345")
    tree = tmp_path / "tree"
    tree.mkdir()
    load_sources(write(tmp_path, FILE.replace("PATCHES", patches))).lay_out({SHA256: blob}, tree)

    makefile = tmp_path / "Makefile"
    makefile.write_text(BUILDROOT.format(override=tree / "override.mk"))
    done = subprocess.run(
        ["make", "--silent", "-f", str(makefile)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [
        "1.3.1 zlib-ng-1.3.1.tar.gz src 1.3",
        expected.format(tree=tree),
        "package/other/ /global/other",
    ]
    assert (tree / "files" / "zlib-ng-1.3.1.tar.gz").read_bytes() == b"12345"
    assert (tree / "hashes" / "zlib-ng.hash").read_text() == f"sha256  {SHA256}  zlib-ng-1.3.1.tar.gz\n"
    assert (tree / "patches" / "zlib-ng").exists() == (patches == "own")


def test_packages_of_one_archive_share_its_hash(tmp_path: Path) -> None:
    lines = load_sources(write(tmp_path, FILE.replace("PATCHES", "drop"))).override().splitlines()
    assert "override ZLIB_TOOLS_HASH_FILES = $(hal-sources)/hashes/zlib-ng.hash" in lines
    assert "HAL_PATCHES_zlib-tools = $(hal-sources)/no-patches" in lines


def test_what_stands_in_for_a_host_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    sources = load_sources(write(tmp_path, STAND_IN))
    sources.lay_out({}, tree)
    program = tree / "installed" / "ccache" / "tree" / "bin" / "ccache"
    assert program.read_text() == '#!/bin/sh\nCCACHE_DIR="$BR_CACHE_DIR" exec /usr/bin/ccache "$@"\n'
    assert program.stat().st_mode & 0o111
    assert str((tree / "installed/ccache/tree/include/x.h").readlink()) == "/usr/include/x.h"
    assert "override HOST_CCACHE_DEPENDENCIES =" in sources.override().splitlines()
    assert sources.artifacts() == []


def test_another_patch_is_another_digest_of_that_package(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    patch = tmp_path / "own" / "0001-it.patch"
    patch.write_text("one\n")
    path = write(tmp_path, FILE.replace("PATCHES", "own"))
    before = load_sources(path).digests()
    assert load_sources(path).digests() == before
    patch.write_text("another\n")
    assert load_sources(path).digests() != before


def test_patches_that_are_nowhere(tmp_path: Path) -> None:
    sources = load_sources(write(tmp_path, FILE.replace("PATCHES", "gone")))
    with pytest.raises(HalError, match=r"zlib-ng: there are no patches in .*/gone"):
        sources.digests()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f"sha256: {SHA256}", "sha256: abc", "packages.zlib-ng.sha256"),
        ("    size: 5\n", "", "belong together"),
        ("debian:main/pool", "debian:other/pool", "'other' is no Debian archive"),
        ("    size: 5\n", "    size: 5\n    installed: {bin/x: /usr/bin/x}\n", "either `installed` or has"),
        ("    size: 5\n", "    size: 5\n    colour: red\n", "colour"),
    ],
)
def test_wrong_files_are_told_with_their_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, FILE.replace("PATCHES", "keep").replace(old, new))
    with pytest.raises(HalError) as raised:
        load_sources(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)


def test_the_file_that_comes_with_hal_is_whole() -> None:
    sources = load_sources(HERE)
    assert sources.digests().keys() == sources.packages.keys()
    names = [archive_name(name, package) for name, package in sources.packages.items() if package.file]
    assert all(name.endswith((".gz", ".xz", ".bz2")) for name in names)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"other", "expat-1.tar.gz: "), (None, "gone from the pinned place")],
    ids=["another file", "no file"],
)
def test_a_file_that_is_not_what_is_pinned_is_mended_in_the_sources_file(
    tmp_path: Path, server: MisbehavingServer, content: bytes | None, said: str
) -> None:
    if content is not None:
        server.files["/expat-1.tar.gz"] = content
    text = f"version: '1', file: expat-1.tar.gz, location: {server.url}, sha256: {SHA256}, size: 5"
    path = write(tmp_path, f"packages: {{expat: {{{text}}}}}\n")
    cache = Cache(tmp_path / "cache")
    downloads = Downloads.of(load_spec("starter-buildroot"), Fetcher(cache, Mirrors()), path)
    with pytest.raises(HalError) as failure:
        downloads.lay_out(cache)
    assert said in str(failure.value)
    assert failure.value.hint is not None and failure.value.hint.startswith(f"mend {path} ")
