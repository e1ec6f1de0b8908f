"""Pinning the files of a directory on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hal.errors import HalError, UsageError
from hal.models import MANIFEST, FileSource, Model, ModelFile
from hal.pinning import Wishes, model_name, weights_first, weights_format
from hal.pinning.entry import checked

EVERYTHING = ("*",)


def pin_directory(directory: Path, wishes: Wishes) -> Model:
    """The model whose files lie in a directory; hidden files are none of it.

    Raises:
        HalError: a file cannot be read, or there are no weights.
    """
    if wishes.endpoint:
        raise UsageError(f"{directory}: a directory has no --endpoint")
    paths = sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    ollama = wishes.format in ("", "ollama") and MANIFEST in paths and (directory / "blobs").is_dir()
    chosen = wishes.chosen(paths, EVERYTHING) if wishes.include or wishes.exclude else paths
    format = wishes.format or ("ollama" if ollama else weights_format(chosen, str(directory)))
    files = [_file(directory, path) for path in chosen]
    name = wishes.name or model_name(directory.resolve().name)
    return checked(
        name=name,
        license=wishes.license or "NOASSERTION",
        format=format,
        files=weights_first(files),
        where=str(directory),
    )


def _file(directory: Path, name: str) -> ModelFile:
    path = directory / name
    try:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        size = path.stat().st_size
    except OSError as error:
        raise HalError(f"{path}: {error.strerror}") from None
    if not size:
        raise HalError(f"{path}: is empty", "leave it out: --exclude")
    return ModelFile.model_construct(
        name=name, size=size, sha256=digest, source=FileSource.model_construct(kind="file", path=str(path))
    )
