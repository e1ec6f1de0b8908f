"""dm-verity hash trees: what lets a guest trust a read-only image by one hash.

Source: the kernel's admin-guide/device-mapper/verity; veritysetup(8).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hal.errors import HalError
from hal.sandbox import Sandbox

BLOCK = 4096
"""Bytes of a data block and of a hash block."""


@dataclass(frozen=True)
class Verity:
    """What a guest must know to open a device; none of it may come from the device itself.

    `data_blocks` counts blocks of 4,096 bytes; `salt` and `root_hash` are hex.
    """

    data_blocks: int
    salt: str
    root_hash: str


def append_tree(image: Path, salt: str, tools: Sandbox) -> Verity:
    """Write the hash tree directly behind the data, in the same file (a pack's layout)."""
    return _format(image, image, image.stat().st_size, salt, tools)


def write_tree(image: Path, tree: Path, salt: str, tools: Sandbox) -> Verity:
    """Write the hash tree to a file of its own (the root's layout: a partition beside the data's)."""
    return _format(image, tree, 0, salt, tools)


def _format(image: Path, tree: Path, offset: int, salt: str, tools: Sandbox) -> Verity:
    size = image.stat().st_size
    if size % BLOCK:
        raise HalError(f"{image} has {size} bytes, which is no multiple of {BLOCK}")
    blocks = size // BLOCK
    hash_file = image.with_name(image.name + ".roothash")
    tools.run(
        [
            *("veritysetup", "format", "--no-superblock", "--hash=sha256"),
            f"--data-block-size={BLOCK}",
            f"--hash-block-size={BLOCK}",
            f"--data-blocks={blocks}",
            f"--hash-offset={offset}",
            f"--salt={salt}",
            f"--root-hash-file={hash_file}",
            str(image),
            str(tree),
        ],
        writable=[image.parent, tree.parent],
        what=f"veritysetup (hashing {image.name})",
    )
    root_hash = hash_file.read_text().strip()
    hash_file.unlink()
    return Verity(blocks, salt, root_hash)
