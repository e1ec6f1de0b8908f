"""What an operator gives: a file, or a model pack with files in it. Content decides, never a name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator

from ..core import space
from ..pins import PinnedFile
from .calls import FULL
from .erofs import READ, Image, NotAPack
from .store import Store

_numbers = itertools.count(1)


class Refused(Exception):  # noqa: N818 (an answer)
    """It is of no use here; the message says why."""


def take(
    store: Store, descriptor: int, wanted: list[PinnedFile], beat: Callable[[int], None]
) -> Iterator[str]:
    """Stage all wanted files that are in what is open; the SHA-256 of each, once it is staged.

    `beat` is told of the bytes copied, and ends it by what it raises.

    Raises:
        Refused: nothing of it is wanted, it is damaged, or there is no space.
    """
    size = _size(descriptor)
    try:
        yield from _taken(store, descriptor, size, wanted, beat)
    except OSError as error:
        if error.errno in FULL:
            raise Refused("there is no space left for it on the state partition") from None
        raise Refused(f"it cannot be taken: {error.strerror}") from None


def _taken(
    store: Store, descriptor: int, size: int, wanted: list[PinnedFile], beat: Callable[[int], None]
) -> Iterator[str]:
    alike = {file.sha256 for file in wanted if file.size == size}
    if alike:

        def read(offset: int, count: int) -> bytes:
            return os.pread(descriptor, count, offset)

        found = _copy(store, read, size, beat)
        if found.sha256 in alike:
            found.keep()
            yield found.sha256
            return
        found.drop()
        raise Refused(f"its size fits, and its SHA-256 is {found.sha256}, which no model here has")
    try:
        image = Image(descriptor, size)
    except NotAPack:
        raise Refused(f"no model here wants a file of {size} bytes, and it is no model pack") from None
    try:
        yield from _unpacked(store, image, wanted, beat)
    except NotAPack as error:
        raise Refused(f"as a model pack: {error}") from None


def _unpacked(
    store: Store, image: Image, wanted: list[PinnedFile], beat: Callable[[int], None]
) -> Iterator[str]:
    sizes: dict[int, set[str]] = {}
    for file in wanted:
        sizes.setdefault(file.size, set()).add(file.sha256)
    taken: set[str] = set()
    different = ""
    for name, inode in image.files():
        candidates = sizes.get(inode.size, set()) - taken
        if not candidates:
            continue

        def read(offset: int, count: int, inode=inode) -> bytes:  # type: ignore[no-untyped-def]
            return image.read(inode, offset, count)

        found = _copy(store, read, inode.size, beat)
        if found.sha256 not in candidates:
            found.drop()
            different = name
            continue
        found.keep()
        taken.add(found.sha256)
        yield found.sha256
    if not taken:
        also = f" ({different} has the size of one, and another SHA-256)" if different else ""
        raise Refused(f"it is a model pack, and no file in it is wanted here{also}")


class _Copy:
    def __init__(self, store: Store, path: str, sha256: str) -> None:
        self.store, self.path, self.sha256 = store, path, sha256

    def keep(self) -> None:
        try:
            self.store.keep(self.sha256, self.path)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.store.disk.unlink(self.path)


def _copy(store: Store, read: Callable[[int, int], bytes], size: int, beat: Callable[[int], None]) -> _Copy:
    """A copy on our own disk, whose bytes nobody changes after they were hashed."""
    free = store.space()[0] - store.config.reserve
    if size > free:
        raise Refused(f"it needs {space.size(size)} of disk and {space.size(max(0, free))} are free for it")
    path = store.incoming(next(_numbers))
    digest, offset = hashlib.sha256(), 0
    target = store.disk.create(path)
    try:
        while offset < size:
            data = read(offset, min(READ, size - offset))
            if not data:
                raise OSError(errno.EIO, "it ended too early")
            store.disk.write(target, data, offset)
            digest.update(data)
            offset += len(data)
            beat(len(data))
    except BaseException:
        with contextlib.suppress(OSError):
            store.disk.unlink(path)
        raise
    finally:
        os.close(target)
    return _Copy(store, path, digest.hexdigest())


def _size(descriptor: int) -> int:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise Refused("it is neither a file nor a partition")
    return os.lseek(descriptor, 0, os.SEEK_END)
