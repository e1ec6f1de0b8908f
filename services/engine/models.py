"""Making models known to an engine that binds models at run time: no network and no pull.

What was made known is kept in a file in the engine's state directory, so that the second start does
nothing, and another image's other weights under the same name are registered anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable

from . import store
from .config import Config, LaunchError, Model, filled

MARK = "hal-models.json"


def due(config: Config, models: Iterable[Model], listed: frozenset[str]) -> list[Model]:
    """Those of `models` to be registered: they are not listed, or were registered from other weights."""
    if config.registration is None:
        return []
    known = _known(config)
    return [
        model
        for model in models
        if model.listed not in listed
        or (not store.linked(config, model) and known.get(model.name) != model.sha256)
    ]


def tidy(config: Config, directory: str) -> None:
    """Before the engine starts: its store, `directory`, lists no model that is yet to arrive.

    One that was registered from the very weights that are awaited stays: the store has a copy of its own.
    """
    known = _known(config)
    for model in config.models:
        own = not store.linked(config, model) and known.get(model.name) == model.sha256
        if not model.arrived and not own:
            store.forget(directory, model)
        elif model.arrived and store.linked(config, model):
            store.link(directory, model)


def prepare(config: Config, model: Model) -> list[str]:
    """Lay out what the registration of a model needs; the command to be run, variables not yet filled in.

    Raises:
        LaunchError: the state directory cannot be written.
    """
    assert config.registration is not None
    state, registration = config.state_directory, config.registration
    file = f"{state}/hal-{model.name}.model"
    try:
        with open(file, "w", encoding="utf-8") as target:  # noqa: PTH123
            target.write(filled(registration.text, model))
    except OSError as error:
        raise LaunchError(
            f"cannot register the model {model.name}: {error.filename}: {error.strerror}"
        ) from None
    return [filled(word, model, file=file) for word in registration.command]


def registered(config: Config, model: Model) -> None:
    """Remember a registration that succeeded."""
    known = {**_known(config), model.name: model.sha256}
    path = f"{config.state_directory}/{MARK}"
    with contextlib.suppress(OSError):  # then it is registered again at the next start
        with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(known, file)
        os.rename(f"{path}.new", path)  # noqa: PTH104


def _known(config: Config) -> dict[str, str]:
    try:
        with open(f"{config.state_directory}/{MARK}", encoding="utf-8") as file:  # noqa: PTH123
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
