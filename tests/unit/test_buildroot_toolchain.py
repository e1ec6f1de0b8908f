"""Buildroot's toolchain, assembled from what Debian's packages hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hal.bases.buildroot.toolchain import TARGETS, assemble, lines, without_paths

TARGET = TARGETS["x86_64"]
TRIPLET = "x86_64-linux-gnu"
GCC = f"lib/gcc/{TRIPLET}/14"

LIBC = """\
/* GNU ld script */
OUTPUT_FORMAT(elf64-x86-64)
GROUP ( /lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/libc_nonshared.a \
 AS_NEEDED ( /lib64/ld-linux-x86-64.so.2 ) )
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A toolchain of stand-ins: its programs say how they were called."""
    unpacked = tmp_path / "unpacked" / "usr"
    files = {
        f"bin/{TRIPLET}-ld": "ELF",
        f"libexec/gcc/{TRIPLET}/14/cc1": "ELF",
        f"{GCC}/libgcc.a": "an archive",
        "include/stdio.h": "stdio",
        "include/c++/14/vector": "vector",
        f"include/{TRIPLET}/c++/14/bits/config.h": "config",
        f"include/{TRIPLET}/bits/types.h": "types",
        "include/sys/queue.h": "queue",
        f"include/{TRIPLET}/sys/cdefs.h": "cdefs",
        "include/arm-linux-gnueabihf/asm/types.h": "of another architecture",
        "lib/linux/uapi/x86/asm/types.h": "asm",
        f"lib/{TRIPLET}/libc.so": LIBC,
        f"lib/{TRIPLET}/libc.so.6": "ELF",
        f"lib/{TRIPLET}/libc_nonshared.a": "an archive",
        f"lib/{TRIPLET}/crt1.o": "an object",
        f"lib/{TRIPLET}/libresolv.so.2": "ELF",
        f"lib/{TRIPLET}/libstdc++.so.6": "ELF",
        f"lib/{TRIPLET}/ldscripts/elf.x": "of the linker",
    }
    for name, text in files.items():
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_text(text)
    for name in ("gcc", "g++", "cpp", "gcc-ar", "gcc-nm", "gcc-ranlib", "gcov"):
        program = unpacked / "bin" / f"{TRIPLET}-{name}-14"
        program.write_text('#!/bin/sh\necho "$@"\n')
        program.chmod(0o755)
    (unpacked / f"include/{TRIPLET}/asm").symlink_to("../../lib/linux/uapi/x86/asm")
    (unpacked / f"lib/{TRIPLET}/libresolv.so").symlink_to("libresolv.so.2")
    (unpacked / f"{GCC}/libstdc++.so").symlink_to(f"../../../{TRIPLET}/libstdc++.so.6")
    (unpacked / f"{GCC}/libasan.so").symlink_to(f"../../../{TRIPLET}/libasan.so.8")
    made = tmp_path / "toolchain"
    made.mkdir()
    assemble(unpacked.parent, made, TARGET)
    return made


@pytest.mark.parametrize("name", ["gcc", "cc", "g++", "c++", "cpp"])
def test_compilers_know_their_sysroot_wherever_they_are_called_from(tree: Path, name: str) -> None:
    moved = tree.rename(tree.with_name("moved"))
    link = moved.parent / "compiler"
    link.symlink_to(moved / "bin" / f"x86_64-linux-{name}")
    said = subprocess.run([link, "-O2", "a b"], capture_output=True, text=True, check=True).stdout
    assert said == f"--sysroot={moved}/bin/../sysroot -O2 a b\n"


def test_all_programs_have_the_prefix(tree: Path) -> None:
    for name in ("ld", "gcc-ar", "gcov"):
        assert (tree / "bin" / f"x86_64-linux-{name}").exists(), name
    assert (tree / TRIPLET / "bin" / "ld").exists()


def test_libraries_lie_where_buildroot_takes_them_from(tree: Path) -> None:
    sysroot = tree / "sysroot"
    assert {path.name for path in (sysroot / "lib").iterdir()} == {
        "libc.so.6",
        "libresolv.so.2",
        "libstdc++.so.6",
    }
    for name in ("libc_nonshared.a", "crt1.o", "libresolv.so"):
        assert (sysroot / "usr/lib" / name).exists(), name
    assert (sysroot / "lib64").resolve() == sysroot / "lib"
    assert (tree / GCC / "libstdc++.so").resolve() == sysroot / "lib/libstdc++.so.6"
    assert not (tree / GCC / "libasan.so").is_symlink()


def test_headers_of_one_architecture_are_in_one_directory(tree: Path) -> None:
    include = tree / "sysroot/usr/include"
    assert {path.name for path in include.iterdir()} == {"stdio.h", "bits", "sys", "asm"}
    assert {path.name for path in (include / "sys").iterdir()} == {"queue.h", "cdefs.h"}
    assert (include / "asm/types.h").read_text() == "asm"
    assert (tree / "include/c++/14/vector").exists()
    assert (tree / f"include/{TRIPLET}/c++/14/bits/config.h").exists()


def test_linker_scripts_name_no_directory(tree: Path) -> None:
    assert (tree / "sysroot/usr/lib/libc.so").read_text() == (
        "/* GNU ld script */\nOUTPUT_FORMAT(elf64-x86-64)\n"
        "GROUP ( libc.so.6 libc_nonshared.a  AS_NEEDED ( ld-linux-x86-64.so.2 ) )\n"
    )
    assert without_paths("INPUT(-lfoo /usr/lib/bar.a)") == "INPUT(-lfoo bar.a)"


def test_the_configuration_names_place_and_prefix() -> None:
    said = lines("/somewhere")
    assert 'BR2_TOOLCHAIN_EXTERNAL_PATH="/somewhere"' in said
    assert 'BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX="x86_64-linux"' in said
