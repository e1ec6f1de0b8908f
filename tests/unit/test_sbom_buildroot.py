"""The parts of a Buildroot root, out of what show-info says and its hash files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hal.bases import Base
from hal.cache import Cache
from hal.image.kernel import Kernel
from hal.inputs import Inputs
from hal.lock.file import load_lock
from hal.run import run
from hal.sbom.buildroot import buildroot_components, cpe_of, release, source_hashes
from hal.sbom.collect import buildroot_system
from hal.sbom.component import Component


def entry(version: str, licences: str, depends: list[str], **more: Any) -> dict[str, Any]:
    known = {"type": "target", "virtual": False, "downloads": [], "patches": [], "hashes": []}
    return {**known, "version": version, "licenses": licences, "dependencies": depends, **more}


SHOW_INFO: dict[str, Any] = {
    "haproxy": entry(
        "3.0.11",
        "GPL-2.0+, LGPL-2.1+",
        ["host-pkgconf", "openssl", "toolchain"],
        name="haproxy",
        downloads=[{"source": "haproxy-3.0.11.tar.gz"}, {"source": "fix.patch"}],
        patches=["package/haproxy/0001-mend.patch"],
        hashes=["package/haproxy/haproxy.hash"],
        **{"cpe-id": "cpe:2.3:a:haproxy:haproxy:3.0.11:*:*:*:*:*:*:*"},
    ),
    "openssl": {"type": "target", "virtual": True, "name": "openssl", "dependencies": ["libopenssl"]},
    "libopenssl": entry("3.5.7", "Apache-2.0", ["zlib"], name="libopenssl"),
    "zlib": {"type": "target", "virtual": True, "name": "zlib", "dependencies": ["libzlib", "zlib"]},
    "libzlib": entry("1.3.1", "Zlib", [], name="libzlib"),
    "skeleton": entry("", "", [], name="skeleton"),
    "toolchain": entry("", "", [], name="toolchain"),
    "host-pkgconf": entry("2.0", "pkgconf license", [], type="host", name="pkgconf"),
    "rootfs-tar": {"type": "rootfs", "image_name": "rootfs.tar", "dependencies": ["haproxy"]},
}

HASHES = f"""\
# From the release's page
sha256  {"a" * 64}  haproxy-3.0.11.tar.gz
sha512  {"b" * 128}  haproxy-3.0.11.tar.gz
sha256  {"c" * 64}  fix.patch
sha256  {"d" * 64}  LICENSE
"""


@pytest.fixture
def parts() -> dict[str, Component]:
    hashes = source_hashes(SHOW_INFO, {"package/haproxy/haproxy.hash": HASHES}.__getitem__)
    return {part.name: part for part in buildroot_components(SHOW_INFO, hashes, "system")}


def test_only_what_is_in_the_image_is_a_part(parts: dict[str, Component]) -> None:
    assert sorted(parts) == ["haproxy", "libopenssl", "libzlib"]


def test_dependencies_lead_through_virtual_packages(parts: dict[str, Component]) -> None:
    assert parts["haproxy"].depends == ("system/libopenssl",)
    assert parts["libopenssl"].depends == ("system/libzlib",)


def test_a_part_says_what_buildroot_knows_of_it(parts: dict[str, Component]) -> None:
    part = parts["haproxy"]
    assert part.licence == "GPL-2.0-or-later AND LGPL-2.1-or-later"
    assert part.cpe == "cpe:2.3:a:haproxy:haproxy:3.0.11:*:*:*:*:*:*:*"
    assert part.purl == "pkg:generic/haproxy@3.0.11"
    assert part.sha256 == "a" * 64
    assert ("hal:buildroot:patch", "package/haproxy/0001-mend.patch") in part.properties
    assert ("hal:buildroot:download", f"fix.patch sha256:{'c' * 64}") in part.properties


@pytest.mark.parametrize(
    ("told", "version", "kept"),
    [
        ("3.0.11", "3.0.11", True),
        ("10.2:p1", "10.2p1", True),
        ("2.41", "v2.41-1", True),
        ("1.2.3", "1_2_3", True),
        ("10.2:p1", "10.0p1", False),
        ("6.6.20251231", "6.5-20250216", False),
        ("", "1.0", False),
    ],
)
def test_a_cpe_name_of_another_version_is_left_out(told: str, version: str, kept: bool) -> None:
    """Seen with sources of a distribution: the version is the given one, the CPE name Buildroot's own."""
    name = f"cpe:2.3:a:vendor:product:{told}:*:*:*:*:*:*:*"
    assert cpe_of(name, version) == (name if kept else "")


def test_only_downloads_have_digests() -> None:
    found = source_hashes(SHOW_INFO, {"package/haproxy/haproxy.hash": HASHES}.__getitem__)
    assert found == {"haproxy": {"fix.patch": "c" * 64, "haproxy-3.0.11.tar.gz": "a" * 64}}


def test_virtual_packages_that_depend_on_each_other_end() -> None:
    circle = {
        "a": entry("1", "MIT", ["v"], name="a"),
        "v": {"type": "target", "virtual": True, "dependencies": ["w"]},
        "w": {"type": "target", "virtual": True, "dependencies": ["v", "b"]},
        "b": entry("1", "MIT", [], name="b"),
    }
    assert buildroot_components(circle, {}, "s")[0].depends == ("s/b",)


def test_the_release_is_what_wrote_the_configuration() -> None:
    assert (
        release("#\n# Automatically generated file; DO NOT EDIT.\n# Buildroot 2026.02.3 Configuration\n")
        == "2026.02.3"
    )
    assert release("") == ""


def test_a_base_s_parts_come_from_what_lies_beside_its_tree(tmp_path: Path) -> None:
    """The C library is the toolchain's, a Debian package: it is there when its file is."""
    (tmp_path / "show-info.json").write_text(json.dumps(SHOW_INFO))
    (tmp_path / "source-hashes.json").write_text(json.dumps({"haproxy": {"haproxy-3.0.11.tar.gz": "a" * 64}}))
    (tmp_path / "buildroot.config").write_text("# Buildroot 2026.02.3 Configuration\n")
    base = Base(tmp_path / "root", "buildroot-1", Kernel(tmp_path / "vmlinuz", "6.12", None), {})
    inputs = Inputs(load_lock(), {}, (), Cache(tmp_path / "cache"))
    whole, *parts = buildroot_system(base, inputs)
    assert (whole.kind, whole.name, whole.version) == ("operating-system", "buildroot", "2026.02.3")
    assert whole.depends == tuple(part.ref for part in parts)
    assert {part.name: part.sha256 for part in parts}["haproxy"] == "a" * 64
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    (tmp_path / "root/usr/lib/libc.so.6").touch()
    libc = next(item for item in inputs.lock.packages("br-toolchain") if item.package == "libc6")
    inputs = replace(inputs, blobs={libc.sha256: deb(tmp_path / "deb")})
    # The tree of another name is another one, and is looked at anew.
    found = {part.name: part for part in buildroot_system(replace(base, name="buildroot-2"), inputs)}
    part = found["libc6"]
    assert (part.version, part.licence, part.sha256) == ("9.9-1", "LGPL-2.1-or-later", libc.sha256)
    assert "system/libc6" in found["buildroot"].depends
    assert "libgcc-s1" not in found


def deb(tree: Path) -> Path:
    """A small package, as dpkg makes them."""
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: libc6\nVersion: 9.9-1\nArchitecture: amd64\nSource: glibc\nMaintainer: N <n@example.org>\n"
        "Description: a library\n"
    )
    (tree / "usr/share/doc/libc6").mkdir(parents=True)
    (tree / "usr/share/doc/libc6/copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nCopyright: somebody\nLicense: LGPL-2.1+\n"
    )
    file = tree.with_suffix(".deb")
    run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(file)])
    return file
