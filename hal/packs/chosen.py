"""Packs of models by themselves: which model a reference means, and its pack as a directory or a disk."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hal.cache import disk_error
from hal.image.disk import pack_disk
from hal.models import Model, available_models, load_model, load_model_file
from hal.packs.build import Pack
from hal.pinning import Wishes, pin
from hal.sandbox import Sandbox

PACKS = Path("build/packs")
"""Where packs of models go, each in a directory of its own."""


def referenced(references: Sequence[str], wishes: Wishes) -> tuple[Model, Path]:
    """The model that is meant, pinned, and where relative paths of its files begin.

    A reference is one of `hal.pinning`, a model that hal knows by name, or a model's file (NAME.yaml).

    Raises:
        HalError: there is no such model, or it cannot be had.
    """
    first, here = references[0], Path()
    if len(references) == 1 and first in available_models():
        return load_model(first), here
    if len(references) == 1 and first.endswith(".yaml"):
        return load_model_file(here, first), here
    return pin(references, wishes), here


def write_disk(pack: Pack, file: Path, tools: Sandbox) -> None:
    """Write a pack as a disk to be attached; a file that is there is replaced when the new one is whole.

    Raises:
        HalError: it cannot be written.
    """
    file = file.absolute()
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".hal-") as work:
            made = pack_disk(pack, Path(work) / file.name, tools)
            made.chmod(0o644)
            made.replace(file)
    except OSError as error:
        raise disk_error(error, file.parent, "give") or error from error
