"""EROFS images that are the same bytes whenever they are made from the same files.

Source: mkfs.erofs(1), version 1.8.
"""

from __future__ import annotations

from pathlib import Path

COMPRESSION = {
    "none": (),
    "lz4": ("-zlz4", "-C65536"),
    "lz4hc": ("-zlz4hc,12", "-C65536", "-Efragments,dedupe"),
    "zstd": ("-zzstd,level=12", "-C65536", "-Efragments,dedupe"),
}
"""Options by name. `lz4` packs a root in a fifth of a second; the others are for releases: smaller, slow."""


def mkfs_command(image: Path, tree: Path, uuid: str, epoch: int, compression: str) -> list[str]:
    """The command that packs `tree` into `image`: one time for all files, no extended attributes,
    a given UUID (so that nothing of the moment or the host gets in)."""
    return [
        # With this variable mkfs.erofs 1.8 takes -T for a limit only and lets older times of files through.
        *("env", "-u", "SOURCE_DATE_EPOCH"),
        "mkfs.erofs",
        *COMPRESSION[compression],
        *("-x-1", f"-T{epoch}", "--all-time", f"-U{uuid}", "--quiet"),
        str(image),
        str(tree),
    ]
