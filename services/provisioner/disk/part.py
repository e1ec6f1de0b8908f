"""An unfinished file: its bytes so far with their SHA-256, and where they came from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time

from ..failures import StoppedError
from .calls import Disk, replace

READ = 1024 * 1024
SYNC_BYTES = 64 * 1024 * 1024
SYNC_SECONDS = 5.0
"""How much is fetched again at most after a power cut: what came since the last sync."""

MIXED = "*"


class Part:
    """The bytes of a file that is being fetched, in a file of their own, resumed after a restart.

    Beside it lies `<path>.json` with what is needed to resume. All changes of the disk go through `disk`, on
    the thread that calls. Bytes that are there are read once, here, for their hash: keep the object between
    attempts.

    `size` is the bytes there are; `origin` the URL that all of them are from ("": there are none; `*`: they
    are from several), `validator` what If-Range sends to it. `alone`: bytes of several places proved wrong
    together, so that from now on a place continues only what it began. `unranged`: URLs whose answers to
    ranges are of no use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        disk: Disk | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Open or create the part at `path` of a file of `size` bytes.

        Raises:
            OSError: the disk does not let us.
            StoppedError: told to stop while it read what is there.
        """
        self.path = os.fspath(path)
        self.expected = size
        self.size = 0
        self.origin = self.validator = ""
        self.alone = False
        self.unranged: set[str] = set()
        self._disk = disk or Disk()
        self._hash = hashlib.sha256()
        self._synced = 0
        self._synced_at = time.monotonic()
        self._descriptor = self._disk.create(self.path)
        try:
            self._resume(os.fstat(self._descriptor).st_size, stop)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def missing(self) -> int:
        """The bytes still to come."""
        return self.expected - self.size

    def hexdigest(self) -> str:
        """The SHA-256 of the bytes so far."""
        return self._hash.hexdigest()

    def begin(self, url: str, validator: str, *, whole: bool) -> None:
        """Note that the bytes from now on are from `url`, in the state that `validator` names ("": unknown).

        `whole`: those before are as well, or are the same.
        """
        origin = url if whole or self.origin in ("", url) or not self.size else MIXED
        if (origin, validator) != (self.origin, self.validator):
            self.origin, self.validator = origin, validator
            self._note()

    def put(self, position: int, data: bytes) -> None:
        """Bytes that belong at `position`, which is `size` or less.

        Where there are bytes already and they are the same, they stay; else what was there from `position` on
        is thrown away.

        Raises:
            OSError: the disk cannot take them.
        """
        same = min(len(data), self.size - position)
        if same > 0:
            if os.pread(self._descriptor, same, position) == data[:same]:
                data = data[same:]
            else:
                self.cut(position)
        if data:
            self._disk.write(self._descriptor, data, self.size)
            self._hash.update(data)
            self.size += len(data)
            if self.size - self._synced >= SYNC_BYTES or time.monotonic() - self._synced_at >= SYNC_SECONDS:
                self.sync()

    def cut(self, size: int) -> None:
        """Throw away all bytes from `size` on."""
        self._disk.truncate(self._descriptor, size)
        self._hash = hashlib.sha256()
        self.size = self._synced = 0
        self._read(size)
        if not size:
            self.origin = self.validator = ""

    def wrong(self) -> None:
        """Throw all away: it is not the file that is wanted."""
        self.alone = self.alone or self.origin == MIXED
        self.cut(0)
        self._note()

    def sync(self) -> None:
        """Wait until the bytes are on the disk."""
        self._disk.sync(self._descriptor)
        self._synced, self._synced_at = self.size, time.monotonic()

    def close(self) -> None:
        """Sync what is there and let go of the file, which stays. A second time does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                if self.size != self._synced:
                    self._disk.sync(descriptor)
            finally:
                os.close(descriptor)

    def _resume(self, size: int, stop: threading.Event | None) -> None:
        if size > self.expected:
            self.cut(0)
            return
        self._read(size, stop)
        if self.size:
            self.origin = MIXED  # unless the note says better
        with contextlib.suppress(OSError, ValueError, RecursionError):
            with open(self._notes, encoding="utf-8") as file:  # noqa: PTH123 (as in all of this package)
                notes = json.load(file)
            if isinstance(notes, dict):
                self.alone = notes.get("alone") is True
                if self.size:
                    self.origin = str(notes.get("origin") or MIXED)
                    self.validator = str(notes.get("validator") or "")

    def _read(self, size: int, stop: threading.Event | None = None) -> None:
        """Take up the hash of the first `size` bytes."""
        while self.size < size:
            data = os.pread(self._descriptor, min(READ, size - self.size), self.size)
            if not data:
                break
            self._hash.update(data)
            self.size += len(data)
            if stop and stop.is_set():
                raise StoppedError
        self._synced = self.size

    def _note(self) -> None:
        notes = {"origin": self.origin, "validator": self.validator, "alone": self.alone}
        replace(self._disk, self._notes, json.dumps(notes))

    @property
    def _notes(self) -> str:
        return f"{self.path}.json"
