"""Every system call that changes the disk, in one place: tests break off at any of them, or forget it."""

from __future__ import annotations

import errno
import os

FULL = (errno.ENOSPC, errno.EDQUOT)
PRIVATE = 0o700
SHARED = 0o755
"""Of folders that engines look into."""


class Disk:
    """The real one. Paths are absolute."""

    def create(self, path: str, mode: int = 0o600) -> int:
        """A descriptor for reading and writing a file, which is made where it is not there."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """All of `data` at `offset`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            offset += written
            view = view[written:]

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file, or lengthen it by a hole."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until a file's content is on the disk."""
        os.fsync(descriptor)

    def sync_folder(self, path: str) -> None:
        """Wait until a folder's entries are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def chmod(self, descriptor: int, mode: int) -> None:
        """Set a file's mode, whatever the umask is."""
        os.fchmod(descriptor, mode)

    def make_folder(self, path: str, mode: int) -> None:
        """Make one folder; FileExistsError where something has its name. The umask may take rights away."""
        os.mkdir(path, mode)  # noqa: PTH102 (pathlib costs at start-up)

    def open_folder(self, path: str, mode: int) -> None:
        """Set a folder's mode, whatever the umask is."""
        os.chmod(path, mode)  # noqa: PTH101

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)  # noqa: PTH106

    def rename(self, path: str, target: str) -> None:
        """Give a file or a folder another name; a file of that name is replaced."""
        os.rename(path, target)  # noqa: PTH104

    def link(self, path: str, target: str) -> None:
        """Give a file one more name."""
        os.link(path, target)

    def symlink(self, text: str, path: str) -> None:
        """A symbolic link at `path`."""
        os.symlink(text, path)  # noqa: PTH211

    def unlink(self, path: str) -> None:
        """Take a file's name away."""
        os.unlink(path)  # noqa: PTH108


def replace(disk: Disk, path: str, text: str, mode: int = 0o600) -> None:
    """Put a new content in the place of a file's: at any instant it has the old one or the new.

    Raises:
        OSError: the disk does not take it; the old content stays.
    """
    fresh = f"{path}.new"
    descriptor = disk.create(fresh, mode)
    try:
        content = text.encode()
        disk.chmod(descriptor, mode)
        disk.truncate(descriptor, 0)
        disk.write(descriptor, content, 0)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.rename(fresh, path)
    disk.sync_folder(os.path.dirname(path))  # noqa: PTH120
