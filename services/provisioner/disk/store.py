"""Models on the disk: parts, staged files, whole models, and the links through which engines see them.

    DIRECTORY/.staging/ID/FILE       a file that has come whole; its model has not yet
    DIRECTORY/.store/ID/FILE         a whole model
    DIRECTORY/NAME -> .store/ID      the model that engines see
    DIRECTORY/.trash/…               what is being removed
    STATE_DIRECTORY/parts/SHA256     a file that is being fetched

A name appears only once what it stands for is on the disk, by one rename. So at any instant, and after a
power cut at any instant, a model is there as a whole, the old one or the new one, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator

from ..config import Config
from ..core.state import Found
from ..pins import PinnedFile, PinnedModel
from .calls import SHARED, Disk
from .tree import each_file, ensure_folder, is_file, remove_tree, size_of

READABLE = 0o644
STORE, STAGING, TRASH = ".store", ".staging", ".trash"
PRIVATE = 0o700
IMPORT = "import-"
"""What the names of files begin with that are being given by hand: a cut-off one is of no use."""


class Store:
    """The provisioner's part of the state partition. Threads may share it."""

    def __init__(self, config: Config, disk: Disk | None = None) -> None:
        self.config = config
        self.disk = disk or Disk()
        self.models = [model for model in config.models if model.stored]
        self._lock = threading.RLock()
        self._trashed = 0

    def prepare(self) -> None:
        """Make the folders, and finish removals that were cut off.

        Raises:
            OSError: the disk does not let us.
        """
        root = self.config.directory
        ensure_folder(self.disk, root, SHARED)
        for name in (STORE, STAGING, TRASH):
            ensure_folder(self.disk, f"{root}/{name}", SHARED)
        ensure_folder(self.disk, self.config.state_directory, PRIVATE)
        ensure_folder(self.disk, self._parts, PRIVATE)
        for entry in os.listdir(self._parts):  # noqa: PTH208 (pathlib costs at start-up)
            if entry.startswith(IMPORT):
                self.disk.unlink(f"{self._parts}/{entry}")
        self._empty_trash()

    def scan(self) -> tuple[Found, ...]:
        """What there is of each model. What cannot be a pinned file is taken out of the way."""
        with self._lock:
            return tuple(self._scan(model) for model in self.models)

    def part(self, sha256: str) -> str:
        """The path of the part of a file."""
        return f"{self._parts}/{sha256}"

    def incoming(self, number: int) -> str:
        """The path of a file that an operator gives."""
        return f"{self._parts}/{IMPORT}{number}"

    def folder(self, model: PinnedModel) -> str:
        """Where a whole model lies."""
        return f"{self.config.directory}/{STORE}/{model.id}"

    def keep(self, sha256: str, path: str) -> None:
        """Stage a whole file, whose content is on the disk, for every model that wants it; `path` goes.

        Raises:
            OSError: the disk does not take it; `path` is still there.
        """
        with self._lock:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self.disk.chmod(descriptor, READABLE)
                self.disk.sync(descriptor)
            finally:
                os.close(descriptor)
            for model in self.models:
                for file in model.files:
                    if file.sha256 == sha256 and not self._is_stored(model):
                        self._link(path, f"{self._staging(model)}/{file.name}")
            self.disk.unlink(path)
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(f"{path}.json")

    def publish(self, model: PinnedModel) -> tuple[str, ...]:
        """Make a whole model of its staged files; names of those that are not there (then it is not made).

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            if self._is_stored(model):
                return ()
            staging = self._staging(model)
            for file in model.files:
                if not is_file(f"{staging}/{file.name}", file.size):
                    self._from_another(file, f"{staging}/{file.name}")
            missing = tuple(f.name for f in model.files if not is_file(f"{staging}/{f.name}", f.size))
            if missing:
                return missing
            self._only_pinned(model, staging)
            for folder, _, _ in os.walk(staging, topdown=False):
                self.disk.sync_folder(folder)
            if os.path.lexists(self.folder(model)):
                self._discard(self.folder(model))
            self.disk.rename(staging, self.folder(model))
            self.disk.sync_folder(f"{self.config.directory}/{STORE}")
            self.disk.sync_folder(f"{self.config.directory}/{STAGING}")
            return ()

    def show(self, model: PinnedModel) -> None:
        """Let engines see a model under its name, and remove the one that they saw before.

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            path, text = self.name(model), f"{STORE}/{model.id}"
            old = _target(path)
            if old == text:
                return
            if old is None and os.path.lexists(path):
                self._discard(path)
            fresh = f"{self.config.directory}/.{model.name}.new"
            if os.path.lexists(fresh):
                self.disk.unlink(fresh)
            self.disk.symlink(text, fresh)
            self.disk.rename(fresh, path)
            self.disk.sync_folder(self.config.directory)
            wanted = {f"{STORE}/{other.id}" for other in self.models}
            if old is not None and old.startswith(f"{STORE}/") and old not in wanted and "/" not in old[7:]:
                self._discard(f"{self.config.directory}/{old}")

    def hide(self, model: PinnedModel, wrong: tuple[str, ...]) -> None:
        """Take a model away from engines; its files but those that are `wrong` are staged again.

        Raises:
            OSError: the disk does not do it.
        """
        with self._lock:
            staging = self._staging(model)
            if self._is_folder(self.folder(model)):
                if os.path.lexists(staging):
                    self._discard(staging)
                self.disk.rename(self.folder(model), staging)
                self.disk.sync_folder(f"{self.config.directory}/{STORE}")
                self.disk.sync_folder(f"{self.config.directory}/{STAGING}")
            for name in wrong:
                with contextlib.suppress(FileNotFoundError):
                    self.disk.unlink(f"{staging}/{name}")

    def drop(self, model: PinnedModel, parts: tuple[str, ...]) -> None:
        """Give back the space that an unfinished model takes: its staged files, and these parts.

        Raises:
            OSError: the disk does not do it.
        """
        with self._lock:
            if os.path.lexists(self._staging(model)):
                self._discard(self._staging(model))
            for sha256 in parts:
                self._drop_part(sha256)

    def prune(self, old: bool = False) -> list[str]:
        """Remove what no pinned model is or needs; the paths that are gone.

        An old model stays under its name until the new one is there, unless the `old` ones are to go too.

        Raises:
            OSError: the disk does not do it.
        """
        with self._lock:
            root, gone = self.config.directory, []
            ids = {model.id for model in self.models}
            names = {model.name for model in self.models}
            stored = {model.id for model in self.models if self._is_stored(model)}
            for entry in sorted(os.listdir(root)):  # noqa: PTH208 (pathlib costs at start-up)
                target = _target(f"{root}/{entry}")
                stale = target is not None and target.removeprefix(f"{STORE}/") not in ids
                if target is not None and (entry not in names or (old and stale)):
                    self.disk.unlink(f"{root}/{entry}")
                    gone.append(f"{root}/{entry}")
            shown = {_target(self.name(model)) for model in self.models if model.id not in stored}
            for place, wanted in ((STORE, ids), (STAGING, ids - stored)):
                for entry in sorted(os.listdir(f"{root}/{place}")):  # noqa: PTH208
                    if entry not in wanted and f"{place}/{entry}" not in shown:
                        self._discard(f"{root}/{place}/{entry}")
                        gone.append(f"{root}/{place}/{entry}")
            needed = {file.sha256 for model in self.models if model.id not in stored for file in model.files}
            for entry in sorted(os.listdir(self._parts)):  # noqa: PTH208
                if entry.partition(".")[0] not in needed and not entry.startswith(IMPORT):
                    self.disk.unlink(f"{self._parts}/{entry}")
                    gone.append(f"{self._parts}/{entry}")
            self._empty_trash()
            return gone

    def space(self) -> tuple[int, int]:
        """Bytes that are free for us, and bytes that all of this takes."""
        found = os.statvfs(self.config.directory)
        used, seen = 0, set()
        for place in (f"{self.config.directory}/{STORE}", f"{self.config.directory}/{STAGING}", self._parts):
            for path in each_file(place):
                with contextlib.suppress(OSError):
                    entry = os.lstat(path)
                    if entry.st_ino not in seen:  # a file of two models is there once
                        seen.add(entry.st_ino)
                        used += entry.st_size
        return found.f_bavail * found.f_frsize, used

    @property
    def _parts(self) -> str:
        return f"{self.config.state_directory}/parts"

    def _staging(self, model: PinnedModel) -> str:
        return f"{self.config.directory}/{STAGING}/{model.id}"

    def name(self, model: PinnedModel) -> str:
        """Where engines see a model."""
        return f"{self.config.directory}/{model.name}"

    def _is_folder(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except OSError:
            return False

    def _is_stored(self, model: PinnedModel) -> bool:
        folder = self.folder(model)
        return self._is_folder(folder) and all(is_file(f"{folder}/{f.name}", f.size) for f in model.files)

    def _scan(self, model: PinnedModel) -> Found:
        if self._is_stored(model):
            return Found(model.name, stored=True)
        if os.path.lexists(self.folder(model)):  # somebody else was at it: keep what may be good
            self.hide(model, ())
        staging = self._staging(model)
        whole = {f.sha256 for f in model.files if is_file(f"{staging}/{f.name}", f.size)}
        for file in model.files:
            if file.sha256 not in whole and os.path.lexists(f"{staging}/{file.name}"):
                self._discard(f"{staging}/{file.name}")
        held = ((f.sha256, min(f.size, size_of(self.part(f.sha256)))) for f in model.files)
        return Found(model.name, False, frozenset(whole), tuple(one for one in held if one[1]))

    def _link(self, path: str, target: str) -> None:
        self._ensure_folders(target)
        if os.path.lexists(target):
            self.disk.unlink(target)
        self.disk.link(path, target)
        self.disk.sync_folder(os.path.dirname(target))  # noqa: PTH120

    def _ensure_folders(self, target: str) -> None:
        staging = f"{self.config.directory}/{STAGING}"
        path = staging
        for part in os.path.relpath(os.path.dirname(target), staging).split("/"):  # noqa: PTH120
            path = f"{path}/{part}"
            ensure_folder(self.disk, path, SHARED)

    def _from_another(self, file: PinnedFile, target: str) -> None:
        """Take a file from another model that has the same one."""
        for model in self.models:
            for place in (self.folder(model), self._staging(model)):
                for other in model.files:
                    path = f"{place}/{other.name}"
                    if other.sha256 == file.sha256 and path != target and is_file(path, file.size):
                        self._link(path, target)
                        return

    def _only_pinned(self, model: PinnedModel, staging: str) -> None:
        pinned = {f"{staging}/{file.name}" for file in model.files}
        for path in list(each_file(staging)):
            if path not in pinned:
                self.disk.unlink(path)

    def _drop_part(self, sha256: str) -> None:
        for path in (self.part(sha256), f"{self.part(sha256)}.json", f"{self.part(sha256)}.json.new"):
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(path)

    def _discard(self, path: str) -> None:
        """Remove a whole tree: gone by one rename, whatever is cut off afterwards."""
        for target in self._free_names():
            try:
                self.disk.rename(path, target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                    continue
                raise
            remove_tree(self.disk, target)
            return

    def _free_names(self) -> Iterator[str]:
        while True:
            self._trashed += 1
            yield f"{self.config.directory}/{TRASH}/{self._trashed}"

    def _empty_trash(self) -> None:
        trash = f"{self.config.directory}/{TRASH}"
        for entry in os.listdir(trash):  # noqa: PTH208
            remove_tree(self.disk, f"{trash}/{entry}")


def _target(path: str) -> str | None:
    """What a symbolic link says; None where there is none."""
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return None
