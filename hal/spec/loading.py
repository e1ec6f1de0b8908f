"""From an appliance file, or a profile's name, to a validated spec with its engines and models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hal.documents import plugins
from hal.documents.document import (
    Document,
    KeyPath,
    Problem,
    SpecError,
    did_you_mean,
    parse_document,
    read_document,
)
from hal.engines import Engine, RemoteEngine, available_engines, load_any_engine, served_model
from hal.models import Model, available_models, load_model, load_model_file
from hal.profiles import profile_names, profile_path
from hal.spec.check import NOT_YET, impossible, unsupported
from hal.spec.chosen import Chosen
from hal.spec.gateway import Gateway, Token
from hal.spec.model import (
    Appliance,
    Arch,
    Base,
    Compression,
    Disk,
    EngineChoice,
    Init,
    Machine,
    ModelChoice,
    Network,
    Selector,
    Spec,
    Tee,
    Variant,
)
from hal.spec.reading import read_spec, written_path

__all__ = [
    "Appliance",
    "Arch",
    "Base",
    "Compression",
    "Disk",
    "EngineChoice",
    "Gateway",
    "Init",
    "LoadedSpec",
    "Machine",
    "ModelChoice",
    "Network",
    "Selector",
    "Spec",
    "SpecError",
    "Tee",
    "Token",
    "Variant",
    "json_schema",
    "load_spec",
    "parse_spec",
    "spec_path",
    "unsupported",
]

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class LoadedSpec:
    """A valid spec, the file it came from, and what its engines and models are, in the spec's order.

    `engines` run in the appliance; `remote_engines` run elsewhere and have neither unit nor pack.
    `route_lines` are where the file has each of `gateway.routes`.
    """

    spec: Spec
    path: Path
    engines: tuple[Engine, ...]
    models: tuple[Model, ...]
    remote_engines: tuple[RemoteEngine, ...] = ()
    route_lines: tuple[int, ...] = ()

    def choice(self, engine: Engine | RemoteEngine) -> EngineChoice:
        """What the spec says about an engine."""
        return next(choice for choice in self.spec.engines if choice.name == engine.name)

    def port(self, engine: Engine) -> int:
        """The loopback port that an engine listens on."""
        return self.choice(engine).port or engine.port

    def served(self, engine: Engine) -> Model | None:
        """The model that an engine opens when it starts: the first one in a format that it reads."""
        return served_model(engine, self.models)


def spec_path(source: str | Path) -> Path:
    """The appliance file that `source` means: a path, or a profile's name (`starter`, `profiles/starter`).

    Raises:
        SpecError: there is neither such a file nor such a profile.
    """
    path, profiles = Path(source), profile_names()
    name = str(source).removeprefix("profiles/")
    if isinstance(source, str) and name in profiles:
        return profile_path(name)
    if path.is_file():
        return path
    if path.suffix not in SUFFIXES and "/" not in name:
        hint = f"profiles: {', '.join(profiles)}; or give the path of a YAML file"
        raise SpecError(f"there is no profile {name!r}{did_you_mean(name, profiles)}", hint)
    what = "is a folder, not a file" if path.is_dir() else "does not exist"
    raise SpecError(
        f"the spec {path} {what}", f"give a YAML file, or one of the profiles: {', '.join(profiles)}"
    )


def load_spec(source: str | Path, *, engines: Path | None = None, models: Path | None = None) -> LoadedSpec:
    """Read and check an appliance file; `engines` and `models` are folders of plugins other than hal's own.

    Raises:
        SpecError: the file is missing or not valid. `details` holds every problem of it, each as
            `FILE:LINE: key.path: problem`.
    """
    return _checked(read_document(spec_path(source), "spec"), engines, models)


def parse_spec(
    text: str, path: Path, *, engines: Path | None = None, models: Path | None = None
) -> LoadedSpec:
    """As `load_spec`, from text; `path` names it in errors, and relative paths are relative to its folder."""
    return _checked(parse_document(text, path, "spec"), engines, models)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of appliance files, for editors."""
    from hal.spec.schema import json_schema  # only `hal schema` needs it

    return json_schema()


def _checked(document: Document, engines: Path | None, models: Path | None) -> LoadedSpec:
    data = document.data
    if data is None and not document.problems:
        raise document.error("spec", [Problem((), "is empty; docs/spec.md begins with the shortest file")])
    spec, found, wrong = read_spec(data)
    known = {problem.path for problem in document.problems}
    problems = [*document.problems, *(problem for problem in found if problem.path not in known)]
    if spec is None:
        raise document.error("spec", problems)
    wrong |= known
    found = []
    chosen_engines = [] if ("engines",) in wrong else _engines_of(spec, engines, found, wrong)
    chosen_models = (
        [] if ("models",) in wrong else _models_of(spec, models, document.file.parent, found, wrong)
    )
    found += unsupported(spec)
    wrong |= {problem.path[:1] for problem in found if problem.path[0] in ("engines", "models")}
    here = [(index, choice, engine) for index, choice, engine in chosen_engines if isinstance(engine, Engine)]
    elsewhere = [
        (index, choice, engine) for index, choice, engine in chosen_engines if not isinstance(engine, Engine)
    ]
    lines = tuple(document.line(("gateway", "routes", index)) for index, _ in enumerate(spec.gateway.routes))
    chosen = Chosen(spec, tuple(here), tuple(chosen_models), document.file.parent, tuple(elsewhere), lines)
    found += impossible(chosen, wrong)
    problems += [replace(problem, path=written_path(problem.path, data)) for problem in found]
    if problems:
        raise document.error("spec", problems)
    return LoadedSpec(
        spec,
        document.file,
        tuple(engine for _, _, engine in chosen.engines),
        tuple(model for _, model in chosen.models),
        tuple(engine for _, _, engine in chosen.remote_engines),
        lines,
    )


def _engines_of(
    spec: Spec, directory: Path | None, problems: list[Problem], wrong: set[KeyPath]
) -> list[tuple[int, EngineChoice, Engine | RemoteEngine]]:
    """The engines that the spec names; names that nothing knows are added to `problems`."""
    known = available_engines(directory)
    engines: list[tuple[int, EngineChoice, Engine | RemoteEngine]] = []
    for index, choice in enumerate(spec.engines):
        if ("engines", index) in wrong:
            continue
        if choice.name in known:
            engines.append((index, choice, load_any_engine(choice.name, directory)))
        elif ("engines", choice.name) not in NOT_YET:
            problems.append(
                Problem(("engines", index, "name"), plugins.unknown("engine", choice.name, known))
            )
    return engines


def _models_of(
    spec: Spec, directory: Path | None, folder: Path, problems: list[Problem], wrong: set[KeyPath]
) -> list[tuple[int, Model]]:
    """The models that the spec names or holds; names that nothing knows are added to `problems`.

    `folder` is the spec's, where the paths of models' files begin.
    """
    known = available_models(directory)
    models = []
    for index, choice in enumerate(spec.models):
        if ("models", index) in wrong:
            continue
        try:
            if choice.inline is not None:
                model = choice.inline
            elif choice.file is not None:
                model = load_model_file(folder, choice.file)
            elif choice.name in known:
                model = load_model(choice.name, directory)
            else:
                text = plugins.unknown("model", choice.name, known)
                problems.append(Problem(("models", index, "name"), text))
                continue
        except SpecError as error:
            if choice.file is None:
                raise
            text = "; ".join([error.message, *error.details])
            problems.append(Problem(("models", index, "name"), text))
            continue
        delivery = choice.delivery or model.delivery
        models.append((index, model.model_copy(update={"delivery": delivery})))
    return models
