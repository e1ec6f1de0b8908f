"""Reads a whole model and compares each file with its pin."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from ..pins import PinnedModel
from .seal import seal
from .tree import each_file

CHUNK = 1024 * 1024


class Verdict(NamedTuple):
    """What came of it: names of files that are wrong, or are not pinned at all (`extra`).

    `sealed`: all files are under fs-verity; `descriptors` hold them open, and belong to the caller.
    """

    wrong: tuple[str, ...]
    sealed: bool
    descriptors: list[int]
    extra: tuple[str, ...] = ()

    def close(self) -> None:
        """Let go of the files."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def verify(model: PinnedModel, folder: str, beat: Callable[[int], None], sealing: bool = True) -> Verdict:
    """Seal each file where that can be had, then read it through.

    `beat` is told of the bytes read so far, and ends it by what it raises.
    """
    wrong: list[str] = []
    verdict = Verdict((), True, [])
    sealed, done = True, 0
    try:
        for file in model.files:
            try:
                descriptor = os.open(f"{folder}/{file.name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                wrong.append(file.name)
                continue
            verdict.descriptors.append(descriptor)
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
                wrong.append(file.name)
                continue
            sealed = sealing and seal(descriptor) and sealed
            if _sha256(descriptor, lambda count, before=done: beat(before + count)) != file.sha256:  # type: ignore[misc]
                wrong.append(file.name)
            done += file.size
        pinned = {file.name for file in model.files}
        names = (os.path.relpath(path, folder) for path in each_file(folder))
        extra = tuple(sorted(name for name in names if name not in pinned))
    except BaseException:
        verdict.close()
        raise
    if wrong or extra:
        verdict.close()
    return verdict._replace(wrong=tuple(wrong), sealed=sealed and not wrong, extra=extra)


def _sha256(descriptor: int, beat: Callable[[int], None]) -> str:
    """The SHA-256 of an open file; empty where it cannot be read (fs-verity refuses altered blocks)."""
    digest, count = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))
    while True:
        try:
            got = os.preadv(descriptor, [buffer], count)
        except OSError:
            return ""
        if not got:
            return digest.hexdigest()
        digest.update(buffer[:got])
        count += got
        beat(count)
