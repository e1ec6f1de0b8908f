"""fs-verity: the kernel checks each block of a file against a hash that it holds, from now on.

Source: Documentation/filesystems/fsverity.rst. The disk is the host's, who may change it at any time. Files
that are sealed and kept open stay in the kernel as they were when they were verified: their hashes, and the
way that leads to them (a file that is open keeps the entries of its path in memory).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

ENABLE = 0x40806685
"""FS_IOC_ENABLE_VERITY: _IOW('f', 133, struct fsverity_enable_arg), of 128 bytes."""

SHA256, BLOCK = 1, 4096
_ARGUMENT = struct.pack("=IIIIQIIQ88x", 1, SHA256, BLOCK, 0, 0, 0, 0, 0)


def seal(descriptor: int) -> bool:
    """Enable fs-verity on a file that is open for reading only; False where it cannot be had here.

    It takes as long as reading the file. Raises no error: without it, a file is verified once and no more.
    """
    try:
        fcntl.ioctl(descriptor, ENABLE, _ARGUMENT)
    except OSError as error:
        return error.errno == errno.EEXIST  # it was sealed at an earlier boot
    return True


class Kept:
    """Descriptors that hold verified files in the kernel, by model."""

    def __init__(self) -> None:
        self._descriptors: dict[str, list[int]] = {}

    def keep(self, model: str, descriptors: list[int]) -> None:
        """Keep these, and let go of those before."""
        before, self._descriptors[model] = self._descriptors.get(model, []), descriptors
        _close(before)

    def add(self, model: str, descriptors: list[int]) -> None:
        """Keep these too, where its files are kept; else let go of them."""
        if model in self._descriptors:
            self._descriptors[model] += descriptors
        else:
            _close(descriptors)

    def forget(self, model: str) -> None:
        """Let go of a model's files."""
        _close(self._descriptors.pop(model, []))

    def close(self) -> None:
        """Let go of all."""
        for model in list(self._descriptors):
            self.forget(model)


def hold(path: str) -> list[int]:
    """A descriptor that keeps a symbolic link's entry in the kernel; none where there is no such link."""
    with contextlib.suppress(OSError):
        return [os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)]
    return []


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
