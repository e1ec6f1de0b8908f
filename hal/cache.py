"""The content-addressed cache: what was fetched, and trees made from it, each under the name of its content.

    blobs/sha256/AA/HASH   files, read-only, complete: a name here is a promise about the bytes
    parts/HASH             downloads under way, kept when interrupted so that the next run resumes
    trees/NAME-DIGEST      directories, complete
    tmp/PURPOSE.XXXX       work under way; what a dead process left is swept away by the next
    locks/NAME             files whose flock makes processes wait for each other

Everything is published by a rename on one file system, so that whoever looks sees nothing or all of
it, whatever is killed when. Any number of hal processes may share a cache.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hal.errors import HalError
from hal.run import run
from hal.sandbox import namespace

log = logging.getLogger("hal.cache")

_DIGEST = re.compile(r"[0-9a-f]{16,128}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHOICE = "set HAL_CACHE to"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def default_root() -> Path:
    """`$HAL_CACHE`, or `hal` in the user's cache directory (XDG Base Directory Specification)."""
    if chosen := os.environ.get("HAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base.absolute() / "hal"


class Cache:
    """One cache directory; made when first written to.

    `choice` begins the sentence that tells a user how to name another directory.
    """

    def __init__(self, root: Path | None = None, choice: str = CHOICE) -> None:
        self.root = default_root() if root is None else root.absolute()
        self._choice = choice

    # Files

    def path(self, sha256: str) -> Path:
        """Where the file of this content lies, or would lie."""
        return self.root / "blobs" / "sha256" / _checked(_DIGEST, sha256)[:2] / sha256

    def find(self, sha256: str, size: int | None = None) -> Path | None:
        """The cached file of this content, or None.

        Costs one `stat`: files are verified when they come in and are not hashed again. A file of another
        length than `size` was cut off by a crash of the machine: it is removed and counts as absent.
        """
        path = self.path(sha256)
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error, self.root, self._choice) or error from error
        if size is not None and found.st_size != size:
            log.warning("%s has %d bytes instead of %d and is fetched again", path, found.st_size, size)
            path.unlink(missing_ok=True)
            return None
        return path

    @contextlib.contextmanager
    def part(self, sha256: str) -> Iterator[IO[bytes]]:
        """The unfinished file of this content, open for reading and writing, ours alone until the end.

        Waits while another process has it, and after the wait the file may be in the cache already: look
        with `find` first. It stays for resuming unless `publish_part` or `discard_part` takes it away.
        """
        path = self._directory("parts") / _checked(_DIGEST, sha256)
        while True:
            with self._explained():
                file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", 0)
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Whoever had it before us may have published it, and then this is no longer `path`.
                if _same_file(file, path):
                    yield file
                    return

    def publish_part(self, file: IO[bytes], sha256: str) -> Path:
        """Make the part, whose content the caller has verified, the cached file."""
        target = self.path(sha256)
        with self._explained():
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.root / "parts" / sha256).replace(target)
        return target

    def discard_part(self, sha256: str) -> None:
        """Forget what was fetched of this file (call it while holding `part`)."""
        (self.root / "parts" / _checked(_DIGEST, sha256)).unlink(missing_ok=True)

    # Trees

    def tree(self, name: str, digest: str) -> Path:
        """Where the directory made from inputs of this digest lies, or would lie. It is there or complete."""
        return self.root / "trees" / f"{_checked(_NAME, name)}-{_checked(_DIGEST, digest)}"

    def publish_tree(self, temporary: Path, name: str, digest: str) -> Path:
        """Rename a finished directory (made in `self.temporary`) into its place.

        When another process was quicker, its tree stays and `temporary` is left to its owner to remove.
        """
        target = self.tree(name, digest)
        self._directory("trees")
        with self._explained():
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            _sync_directory(target.parent)
        return target

    # Working together

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Be the only process in the section `name`; wait until the others have left it.

        The kernel ends the lock with the process, so a killed build blocks nobody.
        """
        path = self._directory("locks") / _checked(_NAME, name)
        with self._explained():
            file = path.open("ab")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another hal process (%s)", name)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def temporary(self, purpose: str) -> Iterator[Path]:
        """A new directory on the cache's file system, removed at the end unless it was renamed away.

        What processes that were killed left behind is removed first. A disk that is full or cannot be
        written, wherever in the block it shows, is explained by a HalError.
        """
        parent = self._directory("tmp")
        with self.lock("tmp"), self._explained():
            self.sweep()
            descriptor, name = tempfile.mkstemp(".lock", f"{_checked(_NAME, purpose)}.", parent)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # until the end, so that nobody sweeps it
        mark = Path(name)
        path = mark.with_suffix("")
        try:
            with self._explained():
                path.mkdir()
                yield path
        finally:
            remove_tree(path)
            mark.unlink(missing_ok=True)
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove the temporary directories of processes that are no more (within `lock("tmp")`)."""
        for mark in (self.root / "tmp").glob("*.lock"):
            with contextlib.suppress(OSError), mark.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if remove_tree(mark.with_suffix("")):
                    mark.unlink(missing_ok=True)

    def require_space(self, size: int) -> None:
        """Raise a HalError when fewer than `size` bytes are free, before work that would fail halfway."""
        place = self.root
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < size:
            raise HalError(
                f"{self.root}: {size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free",
                f"free some space, or {self._choice} a directory on a larger disk",
            )

    def _directory(self, name: str) -> Path:
        path = self.root / name
        with self._explained():
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of a full or unwritable disk into HalErrors."""
        try:
            yield
        except OSError as error:
            explained = disk_error(error, self.root, self._choice)
            if explained is None:
                raise
            raise explained from error


def disk_error(error: OSError, root: Path, choice: str = CHOICE) -> HalError | None:
    """The explanation of an error of the disk that holds `root`; None when it is of another kind."""
    if error.errno in _FULL:
        return HalError(
            f"{root}: no space is left on the device",
            f"free some and run it again, or {choice} a directory on a larger disk",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return HalError(
            f"{error.filename or root}: cannot be written: {error.strerror}",
            f"{choice} a directory that is yours",
        )
    return None


def remove_tree(path: Path) -> bool:
    """Remove a directory and all in it; absent is fine. False, with a warning, when that cannot be done.

    Directories without write permission go too, and so do the files of an image's users that a sandbox made
    without root: they belong to the caller's subordinate ids.
    """
    if path.is_symlink():
        path.unlink()
        return True
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        return True
    except OSError as error:
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(directory).chmod(stat.S_IRWXU)
        with contextlib.suppress(HalError):
            run([*namespace(), "rm", "-rf", "--", str(path)], check=False)
        if path.exists():
            log.warning("%s: cannot be removed: %s", path, error.strerror)
            return False
        return True


def _same_file(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value!r} cannot be a name in the cache")
    return value
