"""What outlives the selector: commands, and which engine may be up, in one small file on the state partition.

It is replaced as a whole: at any instant it has either the old content or the new one. A full disk, or a hand
that changes it, may leave nothing of use; then nothing was commanded.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os

from .core.events import Saved

LARGEST = 65536
VERSION = 1


def save(path: str, saved: Saved) -> str:
    """Write it durably; why that failed, or empty."""
    return replace(path, dump(saved))


def replace(path: str, text: str) -> str:
    """Put a new content in the place of a file's, durably; why that failed, or empty."""
    if not path:
        return ""
    fresh, content = f"{path}.new", text.encode()
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(fresh, path)  # noqa: PTH104 (pathlib costs at start-up)
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
        try:
            os.fsync(directory)  # the rename itself
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(fresh)  # noqa: PTH108
        return f"{path}: {error.strerror}"
    return ""


def save_names(path: str, names: tuple[str, ...]) -> str:
    """Keep a list of names; why that failed, or empty."""
    return replace(path, json.dumps(names) + "\n")


def load_names(path: str) -> tuple[str, ...]:
    """A list of names that was kept; none where there is no such file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = json.loads(file.read(LARGEST))
        return tuple(_text(name) for name in data) if isinstance(data, list) else ()
    except (OSError, ValueError, TypeError, RecursionError):
        return ()


def load(path: str) -> tuple[Saved | None, str]:
    """What was kept, and what is wrong with it (empty: nothing). No file: nothing was kept."""
    if not path:
        return None, ""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path}: {error.strerror}"
    saved = parse(text)
    return (
        saved,
        "" if saved is not None else f"{path}: not what the selector wrote; nothing is taken from it",
    )


def dump(saved: Saved) -> str:
    """The file's content."""
    return json.dumps({"version": VERSION, **saved._asdict()}) + "\n"


def parse(content: bytes) -> Saved | None:
    """What a file keeps; None where it is not such a file.

    Names in it are only looked up among the configuration's, whoever wrote them.
    """
    try:
        data = json.loads(content)
        if not isinstance(data, dict) or data.pop("version") != VERSION or set(data) != set(Saved._fields):
            return None
        back = data["back"]
        saved = Saved(
            configured=tuple(_text(name) for name in data["configured"]),
            policy=_text(data["policy"]),
            desired=_text(data["desired"]),
            back=None if back is None else (_text(back[0]), _text(back[1])),
            active=_text(data["active"]),
            resident=_text(data["resident"]),
            drained=data["drained"],
        )
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
    return saved if isinstance(saved.drained, bool) and isinstance(data["configured"], list) else None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 200:
        raise TypeError
    return value
