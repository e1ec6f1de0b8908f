"""A model in Ollama's own form, a manifest and the blobs that it names, becomes one of an engine's store.

The store gets links to the blobs and a copy of the manifest, never of the weights: what the engine reads is
what was verified where it lies. A manifest comes last and by a rename, so that no model is listed in part.
"""

from __future__ import annotations

import contextlib
import os

from .config import Config, LaunchError, Model, missing

FORMAT = "ollama"
LIBRARY = "manifests/registry.ollama.ai/library"


def linked(config: Config, model: Model) -> bool:
    """Whether a model comes into the engine's store as it is, and needs no command of the engine's."""
    registration = config.registration
    return registration is not None and registration.store != "" and model.format == FORMAT


def link(store: str, model: Model) -> None:
    """Put a model into the store; done again, it mends what is missing or leads elsewhere.

    Raises:
        LaunchError: the model is not whole, or the store cannot be written.
    """
    blobs, place = f"{model.path}/blobs", _place(store, model)
    try:
        with open(f"{model.path}/manifest.json", "rb") as file:  # noqa: PTH123 (pathlib costs at start-up)
            manifest = file.read()
        os.makedirs(f"{store}/blobs", exist_ok=True)  # noqa: PTH103
        for name in os.listdir(blobs):  # noqa: PTH208
            _lead(f"{store}/blobs/{name}", f"{blobs}/{name}", f"{store}/hal-blob")
        os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120
        fresh = f"{store}/hal-manifest"  # elsewhere it would count as a model
        with open(fresh, "wb") as file:  # noqa: PTH123
            file.write(manifest)
        os.rename(fresh, place)  # noqa: PTH104
    except OSError as error:
        raise LaunchError(
            f"cannot take the model {model.name} in: {error.filename}: {error.strerror}"
        ) from None


def forget(store: str, model: Model) -> None:
    """Take a model out of what the store lists; blobs stay."""
    with contextlib.suppress(OSError):
        os.unlink(_place(store, model))  # noqa: PTH108


def _place(store: str, model: Model) -> str:
    """Where the store has the manifest of a model that it lists as `NAME:TAG`."""
    name, _, tag = model.listed.partition(":")
    return f"{store}/{LIBRARY}/{name}/{tag or 'latest'}"


def _lead(path: str, target: str, fresh: str) -> None:
    """Make `path` a link to `target`, in one step; `fresh` is a free name beside it."""
    if os.path.islink(path) and os.readlink(path) == target and not missing(path):  # noqa: PTH114, PTH115
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)  # noqa: PTH108
    os.symlink(target, fresh)  # noqa: PTH211
    os.rename(fresh, path)  # noqa: PTH104
