"""A disk that fails as disks do: broken off at the n-th change, or without what was not synced.

`Breaking` does what it is told on real files, and stops for good in front of one change.

`Forgetful` keeps a second book: what would be there after a power cut. Changes of names go to the disk in
their order, as a journal brings them, at the latest when something is synced; the content of a file goes
there when the file is synced, and else perhaps, in part.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.provisioner.disk.calls import Disk


class PowerCut(BaseException):
    """The machine is off: nothing catches this."""


class Breaking(Disk):
    """Stops in front of change number `at` (from 0; None: never), and refuses all after it.

    `before` is called in front of every change. With an `error`, the change fails with it, and only that one.
    """

    def __init__(
        self, at: int | None = None, before: Callable[[], None] = lambda: None, error: int = 0
    ) -> None:
        self.at = at
        self.count = 0
        self.before = before
        self.error = error

    def _change(self) -> None:
        self.before()
        self.count += 1
        if self.error and self.count - 1 == self.at:
            raise OSError(self.error, os.strerror(self.error), "the disk")
        if not self.error and self.at is not None and self.count > self.at:
            raise PowerCut

    def create(self, path: str, mode: int = 0o600) -> int:
        self._change()
        return super().create(path, mode)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._change()
        super().write(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        self._change()
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        self._change()

    def sync_folder(self, path: str) -> None:
        self._change()

    def chmod(self, descriptor: int, mode: int) -> None:
        self._change()
        super().chmod(descriptor, mode)

    def make_folder(self, path: str, mode: int) -> None:
        self._change()
        super().make_folder(path, mode)

    def open_folder(self, path: str, mode: int) -> None:
        self._change()
        super().open_folder(path, mode)

    def remove_folder(self, path: str) -> None:
        self._change()
        super().remove_folder(path)

    def rename(self, path: str, target: str) -> None:
        self._change()
        super().rename(path, target)

    def link(self, path: str, target: str) -> None:
        self._change()
        super().link(path, target)

    def symlink(self, text: str, path: str) -> None:
        self._change()
        super().symlink(text, path)

    def unlink(self, path: str) -> None:
        self._change()
        super().unlink(path)


class Small(Breaking):
    """Takes no more than `room` bytes, until there is more of it."""

    def __init__(self, root: Path, room: int) -> None:
        super().__init__()
        self.root = root
        self.room = room

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        files = {p.stat().st_ino: p.stat().st_size for p in self.root.rglob("*") if p.is_file()}
        if sum(files.values()) + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data, offset)


class Forgetful(Breaking):
    """After `cut`, the folder is as the disk would have it; `chance` decides where the disk may choose."""

    def __init__(self, root: Path, at: int | None = None) -> None:
        super().__init__(at)
        self.root = root
        self._names: list[tuple[str, ...]] = []
        self._safe = 0
        self._synced: dict[int, bytes] = {}
        self._was = {str(path.relative_to(root)): self._node(path) for path in sorted(root.rglob("*"))}
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self._synced[path.stat().st_ino] = path.read_bytes()

    def create(self, path: str, mode: int = 0o600) -> int:
        fresh = not os.path.lexists(path)
        descriptor = super().create(path, mode)
        if fresh:
            inode = os.fstat(descriptor).st_ino
            self._synced.pop(inode, None)
            self._note("file", path, str(inode))
        return descriptor

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        size = os.fstat(descriptor).st_size
        self._synced[os.fstat(descriptor).st_ino] = os.pread(descriptor, size, 0)
        self._safe = len(self._names)

    def sync_folder(self, path: str) -> None:
        super().sync_folder(path)
        self._safe = len(self._names)

    def make_folder(self, path: str, mode: int) -> None:
        super().make_folder(path, mode)
        self._note("folder", path)

    def remove_folder(self, path: str) -> None:
        super().remove_folder(path)
        self._note("gone", path)

    def rename(self, path: str, target: str) -> None:
        if Path(target).is_file() and not Path(target).is_symlink():
            self._keep(Path(target).stat().st_ino, target)
        super().rename(path, target)
        self._note("rename", path, target)

    def link(self, path: str, target: str) -> None:
        super().link(path, target)
        self._note("file", target, str(Path(target).stat().st_ino))

    def symlink(self, text: str, path: str) -> None:
        super().symlink(text, path)
        self._note("symlink", path, text)

    def unlink(self, path: str) -> None:
        inode = os.lstat(path).st_ino
        self._keep(inode, path)
        super().unlink(path)
        self._note("gone", path)

    def _note(self, *change: str) -> None:
        self._names.append(change)

    def _keep(self, inode: int, path: str) -> None:
        """A file that goes may come back with the power: hold its inode so that no other gets the number."""
        keep = self.root.parent / f"{self.root.name}.inodes"
        keep.mkdir(exist_ok=True)
        if not (keep / str(inode)).exists() and not Path(path).is_symlink():
            os.link(path, keep / str(inode))

    def cut(self, chance: random.Random) -> None:
        """Make the folder what is on the disk."""
        contents = self._live()
        reached = chance.randint(self._safe, len(self._names))
        tree: dict[str, Any] = dict(self._was)
        for change in self._names[:reached]:
            self._apply(tree, change)
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, node in sorted(tree.items()):
            path = self.root / name
            if node[0] == "folder":
                path.mkdir(exist_ok=True)
            elif node[0] == "symlink":
                path.symlink_to(node[1])
            else:
                path.write_bytes(self._content(int(node[1]), contents, chance))
        shutil.rmtree(self.root.parent / f"{self.root.name}.inodes", ignore_errors=True)

    def _content(self, inode: int, contents: dict[int, bytes], chance: random.Random) -> bytes:
        """What was synced, and perhaps some of what came after it."""
        synced, now = self._synced.get(inode, b""), contents.get(inode, b"")
        if now == synced or chance.random() < 0.5:
            return synced
        if now.startswith(synced):
            return now[: chance.randint(len(synced), len(now))]
        return chance.choice([synced, now, now[: len(now) // 2]])

    def _live(self) -> dict[int, bytes]:
        places = [self.root, self.root.parent / f"{self.root.name}.inodes"]
        files = (path for place in places for path in place.rglob("*"))
        return {p.stat().st_ino: p.read_bytes() for p in files if p.is_file() and not p.is_symlink()}

    def _apply(self, tree: dict[str, Any], change: tuple[str, ...]) -> None:
        what, path, *more = change
        name = os.path.relpath(path, self.root)
        if what == "rename":
            target = os.path.relpath(more[0], self.root)
            for old in [one for one in tree if one == name or one.startswith(f"{name}/")]:
                tree[target + old.removeprefix(name)] = tree.pop(old)
        elif what == "gone":
            tree.pop(name, None)
        else:
            tree[name] = (what, *more)

    @staticmethod
    def _node(path: Path) -> tuple[str, ...]:
        if path.is_symlink():
            return ("symlink", str(path.readlink()))
        return ("folder",) if path.is_dir() else ("file", str(path.stat().st_ino))
