"""The state of the core: what is known of each file and model. Values, and how they are changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from ..config import Config
from ..pins import PinnedModel
from .policy import Schedule


class Stage(StrEnum):
    """Where a model is on its way: a pack has none; then each follows from the one before."""

    PACK = "pack"
    FETCH = "fetch"
    PUBLISH = "publish"
    VERIFY = "verify"
    SHOW = "show"
    READY = "ready"


class Trouble(StrEnum):
    """What keeps a model from going on: it failed, there is no space, or its pack is not there."""

    NONE = ""
    FAILED = "failed"
    NO_SPACE = "no-space"
    MISSING = "missing"


class File(NamedTuple):
    """A file that models want, by its SHA-256, and so many places to have it from.

    `held`: bytes of its part; `whole`: it is staged or stored, `running`: an attempt is on, `stopping`: and
    is told to stop.
    """

    sha256: str
    size: int
    places: int
    held: int = 0
    whole: bool = False
    running: bool = False
    stopping: bool = False
    schedule: Schedule = Schedule()

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return 0 if self.whole else max(0, self.size - self.held)


class Model(NamedTuple):
    """A model on its way. `files` are SHA-256s.

    `admitted`: the space it needs is there and set aside; `busy`: work on the disk is on for it;
    `dropping`: its space is to be given back once its attempts have stopped; `began`: when this round began
    to fetch; `again_at`: when the trouble is looked at again; `spoilt`: how often in a row it was wrong when
    it was verified; `evicted`: how often it lost its space. `reason` says why it is in trouble; `attempts`,
    `fetched` and `error` outlive restarts.
    """

    name: str
    delivery: str
    id: str
    size: int
    files: tuple[str, ...]
    stage: Stage
    admitted: bool = False
    busy: bool = False
    dropping: bool = False
    again: bool = False
    sealed: bool = False
    trouble: Trouble = Trouble.NONE
    reason: str = ""
    began: float | None = None
    again_at: float = 0.0
    spoilt: int = 0
    evicted: int = 0
    attempts: int = 0
    fetched: int = 0
    error: str = ""


class Saved(NamedTuple):
    """What is kept of a model over restarts."""

    name: str
    id: str
    attempts: int
    fetched: int
    error: str


class Found(NamedTuple):
    """What the disk had of a model at the start: the whole, or so many bytes of its files, by SHA-256."""

    name: str
    stored: bool = False
    whole: frozenset[str] = frozenset()
    held: tuple[tuple[str, int], ...] = ()


class State(NamedTuple):
    """All of it. `route`: there is a network; `free` and `used` are None before the first measurement."""

    config: Config
    models: tuple[Model, ...]
    files: tuple[File, ...]
    route: bool = True
    free: int | None = None
    used: int = 0
    pruned: bool = False
    pruning: bool = False
    due: float = 0.0

    def model(self, name: str) -> Model:
        """The model of this name.

        Raises:
            KeyError: there is none.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(name)

    def file(self, sha256: str) -> File:
        """The file with this SHA-256.

        Raises:
            KeyError: no model wants it.
        """
        for file in self.files:
            if file.sha256 == sha256:
                return file
        raise KeyError(sha256)

    def of(self, model: Model) -> list[File]:
        """A model's files."""
        return [file for file in self.files if file.sha256 in model.files]

    def wanting(self, sha256: str) -> list[Model]:
        """The models that want a file and are not whole yet."""
        return [model for model in self.models if sha256 in model.files and model.stage == Stage.FETCH]


def with_model(state: State, name: str, **changes: Any) -> State:
    """The state with a model's fields changed."""
    models = tuple(model._replace(**changes) if model.name == name else model for model in state.models)
    return state._replace(models=models)


def with_file(state: State, sha256: str, **changes: Any) -> State:
    """The state with a file's fields changed."""
    files = tuple(file._replace(**changes) if file.sha256 == sha256 else file for file in state.files)
    return state._replace(files=files)


def initial(
    config: Config,
    places: dict[str, int],
    found: tuple[Found, ...],
    saved: tuple[Saved, ...] = (),
    packs: dict[str, str] | None = None,
) -> State:
    """The state at the start.

    `places` is how many places each file has; `packs` says of each model that comes in a pack why it is not
    there ("": it is).
    """
    seen = {one.name: one for one in found}
    kept = {(one.name, one.id): one for one in saved}
    missing = packs or {}
    models: list[Model] = []
    files: dict[str, File] = {}
    for pinned in config.models:
        mine = seen.get(pinned.name, Found(pinned.name))
        model = _model(pinned, mine, missing.get(pinned.name, ""))
        old = kept.get((pinned.name, pinned.id))
        if old is not None:
            model = model._replace(attempts=old.attempts, fetched=old.fetched, error=old.error)
        models.append(model)
        if not pinned.stored:
            continue
        held = dict(mine.held)
        for file in pinned.files:
            before = files.get(file.sha256)
            whole = mine.stored or file.sha256 in mine.whole or (before is not None and before.whole)
            number = max(places.get(file.sha256, 0), before.places if before else 0)
            got = max(held.get(file.sha256, 0), before.held if before else 0)
            files[file.sha256] = File(file.sha256, file.size, number, got, whole)
    return State(config, tuple(models), tuple(files.values()))


def _model(pinned: PinnedModel, found: Found, missing: str) -> Model:
    if not pinned.stored:
        stage, trouble = Stage.PACK, Trouble.MISSING if missing else Trouble.NONE
    else:
        stage, trouble = Stage.VERIFY if found.stored else Stage.FETCH, Trouble.NONE
    return Model(
        name=pinned.name,
        delivery=pinned.delivery,
        id=pinned.id,
        size=pinned.size,
        files=tuple(dict.fromkeys(file.sha256 for file in pinned.files)) if pinned.stored else (),
        stage=stage,
        trouble=trouble,
        reason=missing,
    )


def to_save(state: State) -> tuple[Saved, ...]:
    """What outlives a restart."""
    return tuple(
        Saved(model.name, model.id, model.attempts, model.fetched, model.error)
        for model in state.models
        if model.stage != Stage.PACK
    )
