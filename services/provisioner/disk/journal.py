"""state.json: what outlives a restart, in one small file. A wrong content of it can harm nothing."""

from __future__ import annotations

import json
from typing import Any

from ..core.state import Saved
from .calls import Disk, replace

VERSION = 1
LARGEST = 1024 * 1024


def load(path: str) -> tuple[Saved, ...]:
    """What was kept; nothing where there is no such file, or one that we did not write."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib costs at start-up)
            data = json.loads(file.read(LARGEST))
        if data["version"] != VERSION:
            return ()
        return tuple(_saved(entry) for entry in data["models"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def save(path: str, saved: tuple[Saved, ...], disk: Disk | None = None) -> None:
    """Keep it.

    Raises:
        OSError: the disk does not take it; the old one stays.
    """
    text = json.dumps({"version": VERSION, "models": [one._asdict() for one in saved]}, indent=1)
    replace(disk or Disk(), path, text + "\n")


def _saved(entry: dict[str, Any]) -> Saved:
    one = Saved(**entry)
    for value in (one.name, one.id, one.error):
        if not isinstance(value, str) or len(value) > 2000 or not value.isprintable():
            raise TypeError
    for number in (one.attempts, one.fetched):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise TypeError
    return one
