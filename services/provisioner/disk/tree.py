"""Folders and files of the store, as they are, never through a symbolic link."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from .calls import Disk


def is_file(path: str, size: int) -> bool:
    """Whether a plain file of so many bytes is there."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def size_of(path: str) -> int:
    """Bytes of a plain file; 0 where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def each_file(folder: str) -> Iterator[str]:
    """The paths of all that is no folder below one."""
    for path, folders, files in os.walk(folder):
        for name in files:
            yield f"{path}/{name}"
        for name in folders:
            if os.path.islink(f"{path}/{name}"):  # noqa: PTH114 (pathlib costs at start-up)
                yield f"{path}/{name}"


def ensure_folder(disk: Disk, path: str, mode: int) -> None:
    """Make a folder, its parent too, so that it outlives a power cut; what else has its name is removed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path)  # noqa: PTH120
        if not os.path.isdir(parent):  # noqa: PTH112
            ensure_folder(disk, parent, mode)
        disk.make_folder(path, mode)
        disk.open_folder(path, mode)
        disk.sync_folder(parent)
        return
    if not stat.S_ISDIR(found.st_mode):
        disk.unlink(path)
        disk.make_folder(path, mode)
        disk.sync_folder(os.path.dirname(path))  # noqa: PTH120
        disk.open_folder(path, mode)
    elif stat.S_IMODE(found.st_mode) != mode:  # a power cut came between
        with contextlib.suppress(PermissionError):  # another has made it for us
            disk.open_folder(path, mode)


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a file, or a folder with all that is in it; links are not followed."""
    if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)
        return
    for name in os.listdir(path):  # noqa: PTH208
        remove_tree(disk, f"{path}/{name}")
    disk.remove_folder(path)
