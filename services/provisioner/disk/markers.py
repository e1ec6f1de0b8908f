"""Markers: a file for each model that this boot has verified. Engines open no network model without it."""

from __future__ import annotations

import contextlib
import os

from ..pins import PinnedModel
from .calls import SHARED, Disk, replace
from .tree import ensure_folder

READABLE = 0o644


class Markers:
    """Files in a folder of /run, each with the id of the model that was verified."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._disk = Disk()

    def clear(self, models: tuple[PinnedModel, ...]) -> None:
        """Take the markers away: what they say was seen by another process, which no longer holds the files.

        Raises:
            OSError: they cannot be.
        """
        ensure_folder(self._disk, self.folder, SHARED)
        for model in models:
            self.remove(model.name)

    def put(self, model: PinnedModel) -> None:
        """Say that a model was verified.

        Raises:
            OSError: it cannot be said.
        """
        replace(self._disk, f"{self.folder}/{model.name}", f"{model.id}\n", READABLE)

    def remove(self, name: str) -> None:
        """Say so no more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/{name}")  # noqa: PTH108 (pathlib costs at start-up)
