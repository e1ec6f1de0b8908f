"""The lock: every outside input pinned by version, source, size and sha256 (`hal.lock`, committed).

A lock names no host. Where the bytes come from (which mirror, which index) is decided when they are
fetched, see `hal.fetch.sources`; that they are the right bytes is decided here, by their sha256. Its values
are in `hal.lock.pins`, its form in `hal.lock.format`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hal.errors import HalError
from hal.lock.format import format_lock, parse_lock
from hal.lock.pins import (
    ARCHIVES,
    REFRESH,
    SCHEMA,
    Archive,
    Artifact,
    DebianLock,
    DebianPackage,
    DebianSource,
    FileSource,
    HubSource,
    IndexSource,
    Lock,
    PypiSource,
    RegistrySource,
    Source,
    UrlSource,
    Wheel,
    parse_source,
)

__all__ = [
    "ARCHIVES",
    "LOCK_PATH",
    "SCHEMA",
    "Archive",
    "Artifact",
    "DebianLock",
    "DebianPackage",
    "DebianSource",
    "FileSource",
    "HubSource",
    "IndexSource",
    "Lock",
    "PypiSource",
    "RegistrySource",
    "Source",
    "UrlSource",
    "Wheel",
    "format_lock",
    "load_lock",
    "parse_source",
    "write_lock",
]

LOCK_PATH = Path(__file__).resolve().parents[1] / "hal.lock"
"""The lock that hal ships with."""


def load_lock(path: Path = LOCK_PATH) -> Lock:
    """Read a lock, checking every value of it.

    Raises:
        HalError: the file is missing, is no JSON, or a value is wrong; the message names file and key.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise HalError(f"{path}: there is no lock here", REFRESH) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise HalError(f"{path}: cannot be read as a lock: {error}", REFRESH) from None
    try:
        return parse_lock(document)
    except ValueError as error:
        raise HalError(f"{path}: {error}", REFRESH) from None


def write_lock(lock: Lock, path: Path = LOCK_PATH) -> None:
    """Write a lock so that at every instant the file is either the old one or the new one.

    Raises:
        HalError: it cannot be written (the old file is then untouched).
    """
    text = format_lock(lock)
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise HalError(f"{path}: cannot be written: {error.strerror}") from None
