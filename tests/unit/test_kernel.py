"""Which modules the initrd gets, and in which order."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from hal.errors import HalError
from hal.image.kernel import Module, depends, modules

DEPENDS = {
    "drivers/md/dm-verity": "dm-bufio,dm-mod",
    "drivers/md/dm-bufio": "dm-mod",
    "drivers/md/dm-mod": "",
    "fs/erofs/erofs": "",
    "drivers/virt/coco/sev-guest": "tsm",
    "drivers/virt/coco/tsm": "",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The modules' directory of a kernel, with files that hold nothing but their .modinfo."""
    for name, needed in DEPENDS.items():
        path = tmp_path / "kernel" / f"{name}.ko.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(f"license=GPL\0depends={needed}\0name=x\0".encode()))
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return tmp_path


def names(found: list[Module]) -> list[str]:
    return [("?" if module.optional else "") + module.name for module in found]


def test_dependencies_come_first_and_once(directory: Path) -> None:
    found = modules(directory, [{"name": "dm_verity"}, {"name": "erofs"}, {"name": "dm-mod"}], "none")
    assert names(found) == ["dm_mod", "dm_bufio", "dm_verity", "erofs"]


def test_modules_come_uncompressed(directory: Path) -> None:
    (module,) = modules(directory, [{"name": "erofs"}], "none")
    assert module.content.startswith(b"license=GPL\0")


def test_what_is_built_in_is_left_out(directory: Path) -> None:
    assert modules(directory, [{"name": "ext4"}], "none") == []


def test_optional_modules_may_be_absent_and_make_their_dependencies_optional(directory: Path) -> None:
    table = [{"name": "sev-guest", "optional": True}, {"name": "tdx-guest", "optional": True}]
    assert names(modules(directory, table, "none")) == ["?tsm", "?sev_guest"]


def test_a_dependency_that_something_needs_is_not_optional(directory: Path) -> None:
    table = [{"name": "sev-guest", "optional": True}, {"name": "tsm"}]
    assert names(modules(directory, table, "none")) == ["tsm", "?sev_guest"]


def test_a_tee_has_its_own_modules(directory: Path) -> None:
    table = [{"name": "sev_guest", "tee": "sev-snp"}]
    assert names(modules(directory, table, "sev-snp")) == ["tsm", "sev_guest"]
    assert modules(directory, table, "none") == []


def test_a_missing_module_is_named(directory: Path) -> None:
    with pytest.raises(HalError, match="no module 'virtio_blk'"):
        modules(directory, [{"name": "virtio_blk"}], "none")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\0depends=a,b-c\0", ["a", "b_c"]),
        (b"\0depends=\0", []),
        (b"nothing of the kind", []),
    ],
)
def test_what_a_module_says_it_needs(content: bytes, expected: list[str]) -> None:
    assert depends(content) == expected
