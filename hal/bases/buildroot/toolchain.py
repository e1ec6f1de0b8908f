"""An external toolchain for Buildroot, assembled from Debian's packages of GCC, binutils and glibc.

Building a compiler takes longer than all else in an appliance together, and Debian's is pinned, patched
and there. What Buildroot expects of a *custom external toolchain* is a directory with programs of one
prefix, each of which knows its sysroot:

    bin/x86_64-linux-gcc, …     entry scripts that name the sysroot, and links to binutils
    bin/x86_64-linux-gnu-…      Debian's programs; they find the next three beside them
    libexec/gcc, lib/gcc        the compilers proper, their start files and support libraries
    include/c++                 the headers of the C++ library
    sysroot/lib, sysroot/usr    the C library, the run-time libraries and the kernel's headers

Debian keeps libraries in a directory per architecture (`/usr/lib/x86_64-linux-gnu`); in the sysroot they lie
in `lib` and `usr/lib`, where Buildroot copies them from. The programs run inside the tree of Buildroot's host
tools (the set `br-tools`), which holds the libraries they need.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.cache import Cache
from hal.lock.file import DebianPackage
from hal.tools import unpack
from hal.trees import cached_tree, inputs_digest

RECIPE = "1"
"""Changes when the way the toolchain is assembled changes, so that cached ones are made anew."""

DRIVERS = {"gcc": "gcc", "cc": "gcc", "g++": "g++", "c++": "g++", "cpp": "cpp"}
"""The entry scripts, and the program of Debian's that each starts; all of them take `--sysroot`."""

GCC_TOOLS = ("gcc-ar", "gcc-nm", "gcc-ranlib", "gcov")
"""Programs of GCC's that know no sysroot; Debian's names end in GCC's version."""

_SCRIPT = """\
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here/{program}" --sysroot="$here/../sysroot" "$@"
"""


@dataclass(frozen=True)
class Target:
    """What a toolchain makes programs for: Buildroot's prefix, Debian's and the loader's directory."""

    prefix: str
    triplet: str
    loader_directory: str


TARGETS = {
    "x86_64": Target("x86_64-linux", "x86_64-linux-gnu", "lib64"),
}
"""By Buildroot's name of the architecture."""


def digest(packages: Sequence[DebianPackage]) -> str:
    """The name of the toolchain that these packages make."""
    return inputs_digest("br-toolchain", RECIPE, *sorted(package.sha256 for package in packages))


def toolchain(
    packages: Sequence[DebianPackage], blobs: Mapping[str, Path], cache: Cache, architecture: str = "x86_64"
) -> Path:
    """The toolchain of these packages, assembled if the cache does not have it.

    `blobs` maps sha256 to package files. The path is what `BR2_TOOLCHAIN_EXTERNAL_PATH` wants to hold.
    """
    target = TARGETS[architecture]

    def make(tree: Path) -> None:
        unpacked = tree / "unpacked"
        unpacked.mkdir()
        unpack([blobs[package.sha256] for package in packages], unpacked)
        assemble(unpacked, tree, target)
        shutil.rmtree(unpacked)

    return cached_tree(cache, "toolchain", digest(packages), make)


def assemble(unpacked: Path, tree: Path, target: Target) -> None:
    """Move the unpacked packages into the shape of a toolchain."""
    (tree / "lib").mkdir()
    (unpacked / "usr/bin").rename(tree / "bin")
    (unpacked / "usr/libexec").rename(tree / "libexec")
    (unpacked / "usr/lib/gcc").rename(tree / "lib/gcc")
    own = tree / "lib" / target.triplet
    own.mkdir()
    _cxx_headers(unpacked / "usr/include", tree / "include", target)
    _sysroot(unpacked, tree / "sysroot", target, own)
    (version,) = (path.name for path in (tree / "lib/gcc" / target.triplet).iterdir())
    _support_libraries(tree, target, version)
    _programs(tree, target, version)


def _cxx_headers(headers: Path, place: Path, target: Target) -> None:
    """GCC looks for its C++ headers beside its programs, not in the sysroot."""
    (place / target.triplet).mkdir(parents=True)
    (headers / "c++").rename(place / "c++")
    (headers / target.triplet / "c++").rename(place / target.triplet / "c++")


def _sysroot(unpacked: Path, sysroot: Path, target: Target, own: Path) -> None:
    """The C library and the headers; `own` takes what only the toolchain's programs load."""
    (sysroot / "usr").mkdir(parents=True)
    asm = unpacked / "usr/include" / target.triplet / "asm"
    shutil.copytree(asm, own / "asm")  # links to elsewhere become the files
    _remove(asm)
    (own / "asm").rename(asm)
    (unpacked / "usr/include").rename(sysroot / "usr/include")
    _lift(sysroot / "usr/include", target.triplet)
    for other in (sysroot / "usr/include").glob("*-linux-*"):  # headers of the kernel's other architectures
        shutil.rmtree(other)
    libraries = unpacked / "usr/lib" / target.triplet
    for path in sorted(libraries.iterdir()):
        if path.name.startswith(("libbfd-", "libopcodes-", "bfd-plugins", "libcc1.so.0", "ldscripts")):
            path.rename(own / path.name)
    libraries.rename(sysroot / "lib")
    (sysroot / "usr/lib").mkdir()
    for path in sorted((sysroot / "lib").iterdir()):
        if path.suffix in (".a", ".o", ".so"):
            path.rename(sysroot / "usr/lib" / path.name)
    for path in sorted((sysroot / "usr/lib").iterdir()):
        if path.is_symlink():
            name = Path(path.readlink()).name
            path.unlink()
            path.symlink_to(f"../../lib/{name}" if (sysroot / "lib" / name).exists() else name)
        elif _is_script(path):
            path.write_text(without_paths(path.read_text()))
    if target.loader_directory != "lib":
        (sysroot / target.loader_directory).symlink_to("lib")
        (sysroot / "usr" / target.loader_directory).symlink_to("lib")


def _remove(directory: Path) -> None:
    if directory.is_symlink():
        directory.unlink()
    else:
        shutil.rmtree(directory)


def _lift(directory: Path, name: str) -> None:
    """Move what `directory/name` holds into `directory`, joining directories that are in both."""
    for path in sorted((directory / name).iterdir()):
        if path.is_dir() and (directory / path.name).is_dir():
            shutil.copytree(path, directory / path.name, symlinks=True, dirs_exist_ok=True)
        else:
            path.rename(directory / path.name)
    shutil.rmtree(directory / name)


def _support_libraries(tree: Path, target: Target, version: str) -> None:
    """GCC's own library directory: its links lead to the libraries in the sysroot."""
    for path in sorted((tree / "lib/gcc" / target.triplet / version).glob("*.so")):
        if path.is_symlink() and not path.exists():
            name = Path(path.readlink()).name
            path.unlink()
            if (tree / "sysroot/lib" / name).exists():
                path.symlink_to(f"../../../../sysroot/lib/{name}")


def _programs(tree: Path, target: Target, version: str) -> None:
    programs = tree / "bin"
    shared = tree / target.triplet / "bin"
    shared.mkdir(parents=True)
    for path in sorted(programs.iterdir()):
        name = path.name.removeprefix(f"{target.triplet}-")
        if not name.endswith(f"-{version}"):
            (programs / f"{target.prefix}-{name}").symlink_to(path.name)
            (shared / name).symlink_to(f"../../bin/{path.name}")
    for name in GCC_TOOLS:
        (programs / f"{target.prefix}-{name}").symlink_to(f"{target.triplet}-{name}-{version}")
    for name, program in DRIVERS.items():
        script = programs / f"{target.prefix}-{name}"
        script.write_text(_SCRIPT.format(program=f"{target.triplet}-{program}-{version}"))
        script.chmod(0o755)


def _is_script(path: Path) -> bool:
    """Whether a library is a linker script, as `libm.a` is on x86-64."""
    with path.open("rb") as file:
        return file.read(2) == b"/*"


def without_paths(script: str) -> str:
    """A linker script that names libraries without directories: the linker looks for them in the sysroot."""
    return re.sub(r"(?<=[\s(])/[^\s()*]*/", "", script)


def lines(place: str = "/hal/toolchain", architecture: str = "x86_64") -> list[str]:
    """The lines of a defconfig that describe the toolchain, when it lies at `place`."""
    return [
        "BR2_TOOLCHAIN_EXTERNAL=y",
        "BR2_TOOLCHAIN_EXTERNAL_CUSTOM=y",
        "BR2_TOOLCHAIN_EXTERNAL_PREINSTALLED=y",
        f'BR2_TOOLCHAIN_EXTERNAL_PATH="{place}"',
        f'BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX="{TARGETS[architecture].prefix}"',
        "BR2_TOOLCHAIN_EXTERNAL_GCC_14=y",
        "BR2_TOOLCHAIN_EXTERNAL_HEADERS_6_12=y",
        "BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC=y",
        "BR2_TOOLCHAIN_EXTERNAL_CXX=y",
        "BR2_TOOLCHAIN_EXTERNAL_OPENMP=y",
        "# BR2_TOOLCHAIN_EXTERNAL_INET_RPC is not set",
    ]
