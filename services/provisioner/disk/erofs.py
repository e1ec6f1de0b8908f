"""Reads model packs: EROFS images whose files are not compressed.

Source: fs/erofs/erofs_fs.h of Linux; hal/image/erofs.py says how packs are made. An image is not believed:
every offset is checked, and what is read is compared with its pin by whoever reads it.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = 0xE0F5E1E2
SUPERBLOCK = 1024
_SUPER = struct.Struct("<IIIBBHQQIII")
_COMPACT = struct.Struct("<HHHHIII")
_EXTENDED = struct.Struct("<HHHHQI")
_ENTRY = struct.Struct("<QHBB")
FLAT_PLAIN, FLAT_INLINE = 0, 2
SLOT = 32
MOST_FILES = 100_000
MOST_DEPTH = 16
LARGEST_FOLDER = 16 * 1024 * 1024
READ = 1024 * 1024


class NotAPack(Exception):  # noqa: N818 (a finding)
    """The image is none, or not one of ours; the message says why."""


class Inode(NamedTuple):
    """A file or a folder: bytes up to `plain` begin at `start`, the rest at `tail`."""

    mode: int
    size: int
    start: int
    plain: int
    tail: int


class Image:
    """A pack that is open."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        fields = _SUPER.unpack(self._read(SUPERBLOCK, _SUPER.size))
        magic, bits, root, blocks = fields[0], fields[3], fields[5], fields[10]
        if magic != MAGIC:
            raise NotAPack("it is no EROFS image")
        if not 9 <= bits <= 16:
            raise NotAPack(f"its blocks have 2^{bits} bytes")
        self.block = 1 << bits
        self._root = root
        self._meta = struct.unpack("<I", self._read(SUPERBLOCK + 40, 4))[0] * self.block
        self.length = blocks * self.block

    def files(self) -> Iterator[tuple[str, Inode]]:
        """All plain files, with their paths from the root.

        Raises:
            NotAPack: the image is damaged, or is of a kind that hal does not make.
        """
        yield from self._walk(self._root, "", 0, [0])

    def read(self, file: Inode, offset: int, count: int) -> bytes:
        """Bytes of a file, at most `count`.

        Raises:
            NotAPack: they lie outside of the image.
        """
        count = min(count, file.size - offset)
        if count <= 0:
            return b""
        if offset < file.plain:
            return self._read(file.start + offset, min(count, file.plain - offset))
        return self._read(file.tail + offset - file.plain, count)

    def _walk(self, number: int, path: str, depth: int, seen: list[int]) -> Iterator[tuple[str, Inode]]:
        if depth > MOST_DEPTH:
            raise NotAPack("its folders are nested too deeply")
        for name, child in self._entries(self._inode(number)):
            seen[0] += 1
            if seen[0] > MOST_FILES:
                raise NotAPack("it has too many files")
            inode = self._inode(child)
            if stat.S_ISDIR(inode.mode):
                yield from self._walk(child, f"{path}{name}/", depth + 1, seen)
            elif stat.S_ISREG(inode.mode):
                yield f"{path}{name}", inode

    def _inode(self, number: int) -> Inode:
        at = self._meta + number * SLOT
        layout = struct.unpack("<H", self._read(at, 2))[0]
        if layout & 1:
            head = _EXTENDED
            _, attributes, mode, _, size, first = head.unpack(self._read(at, head.size))
            length = 64
        else:
            head = _COMPACT
            _, attributes, mode, _, size, _, first = head.unpack(self._read(at, head.size))
            length = 32
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return Inode(mode, 0, 0, 0, 0)
        tail = at + length + (12 + 4 * (attributes - 1) if attributes else 0)
        kind = layout >> 1 & 7
        if kind == FLAT_PLAIN:
            return Inode(mode, size, first * self.block, size, 0)
        if kind == FLAT_INLINE:
            whole = (size - 1) // self.block * self.block if size else 0
            return Inode(mode, size, first * self.block, whole, tail)
        raise NotAPack("its files are compressed or in chunks: it is no model pack")

    def _entries(self, folder: Inode) -> Iterator[tuple[str, int]]:
        if not stat.S_ISDIR(folder.mode) or folder.size > LARGEST_FOLDER:
            raise NotAPack("a folder of it is none")
        for offset in range(0, folder.size, self.block):
            block = b""
            while len(block) < min(self.block, folder.size - offset):
                block += self.read(folder, offset + len(block), self.block - len(block))
            yield from _names(block)

    def _read(self, offset: int, count: int) -> bytes:
        if offset < 0 or offset + count > self.size:
            raise NotAPack("it is cut off, or points beyond its end")
        data = os.pread(self.descriptor, count, offset)
        if len(data) != count:
            raise NotAPack("it is cut off")
        return data


def _names(block: bytes) -> Iterator[tuple[str, int]]:
    """The entries of one block of a folder."""
    if len(block) < _ENTRY.size:
        return
    first = _ENTRY.unpack_from(block)[1]
    count = first // _ENTRY.size
    if not count or first > len(block):
        raise NotAPack("a folder of it is damaged")
    heads = [_ENTRY.unpack_from(block, place * _ENTRY.size) for place in range(count)]
    ends = [head[1] for head in heads[1:]] + [len(block)]
    for (number, begin, _, _), end in zip(heads, ends, strict=True):
        if not first <= begin <= end <= len(block):
            raise NotAPack("a folder of it is damaged")
        name = block[begin:end].partition(b"\0")[0]
        if name in (b".", b".."):
            continue
        try:
            yield name.decode(), number
        except UnicodeDecodeError:
            raise NotAPack("a name in it is no text") from None
