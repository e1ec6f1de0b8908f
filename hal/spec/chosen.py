"""What a spec's checks look at: its values, and the engines and models that its names stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.documents.document import KeyPath, Problem
from hal.engines import Engine, RemoteEngine, served_model
from hal.models import Model
from hal.spec.model import EngineChoice, Spec


@dataclass(frozen=True)
class Chosen:
    """A spec with the engines and models that its names stand for; those that are not known are missing.

    Each comes with its index in the spec. `directory` is the spec's, `route_lines` are
    those of `gateway.routes`.
    """

    spec: Spec
    engines: tuple[tuple[int, EngineChoice, Engine], ...]
    models: tuple[tuple[int, Model], ...]
    directory: Path
    remote_engines: tuple[tuple[int, EngineChoice, RemoteEngine], ...] = ()
    route_lines: tuple[int, ...] = ()

    def port(self, choice: EngineChoice, engine: Engine) -> int:
        """The port that an engine listens on."""
        return choice.port or engine.port

    def served(self, engine: Engine) -> Model | None:
        """The model that an engine opens when it starts."""
        return served_model(engine, [model for _, model in self.models])


def repeated(path: KeyPath, what: str, names: Sequence[str], *key: str) -> Iterator[Problem]:
    """A problem for every name of a list that has come before; `key` leads from an item to its name."""
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem((*path, index, *key), f"the {what} {name} is there twice")
