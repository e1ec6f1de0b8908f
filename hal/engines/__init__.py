"""Engines: inference servers as data. One YAML file says all that hal needs to know about one.

An engine that runs in the appliance is an `Engine`; one that runs elsewhere, and is only talked to, is a
`RemoteEngine`: it has no program, no user and no unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from hal.documents import plugins
from hal.documents.document import Problem, SpecError
from hal.documents.strict import EngineName, Line, Many, Value
from hal.engines.parts import (
    ArchiveArtifact,
    Directive,
    EngineArtifact,
    EngineFile,
    PackPaths,
    Readiness,
    Registration,
    Relative,
    Release,
    Resources,
    SandboxException,
    Seconds,
    SettingName,
    VariableName,
    WheelAlias,
)
from hal.engines.settings import Setting, setting_problem
from hal.models import Model, ModelFormat

__all__ = [
    "ArchiveArtifact",
    "Engine",
    "EngineFile",
    "Release",
    "RemoteEngine",
    "WheelAlias",
    "available_engines",
    "load_any_engine",
    "load_engine",
    "served_model",
]

DIRECTORY = Path(__file__).parent

BUILT_IN_PLACEHOLDERS = ("port", "model_path", "model_name", "model_marker", "cpus")
"""What an environment's value may hold in braces, besides the names of the engine's settings."""

VARIABLE = re.compile(r"\$(\{\w+\}|\w+$)")
"""A variable in a command line: `${NAME}` within a word, or `$NAME` as a whole word, which is split."""

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


class RemoteEngine(Value):
    """An engine that runs elsewhere: an endpoint that a spec's settings say where to find."""

    name: EngineName = Field(description="the engine's name, for the selector and specs")
    kind: Literal["remote"] = Field(description="that it runs elsewhere")
    summary: Line = Field(description="the engine in one line", min_length=1)
    dialects: Many[Literal["openai"]] = Field(description="the HTTP APIs that it speaks", min_length=1)
    settings: dict[SettingName, Setting] = Field(description="what a spec may set, by name")
    readiness: Readiness = Field(description="how one tells that it serves")


class Engine(Value):
    """An engine that runs in the appliance: what it is, how it runs, what it needs."""

    name: EngineName = Field(description="the engine's name, for units, packs and specs")
    kind: Literal["local"] = Field(description="that it runs in the appliance", default="local")
    summary: Line = Field(description="the engine in one line", min_length=1)
    dialects: Many[Literal["openai", "ollama"]] = Field(
        description="the HTTP APIs that it speaks", min_length=1
    )
    user: EngineName = Field(description="user that it runs as")
    group: EngineName = Field(description="group that it runs as")
    uid: int = Field(
        description="number of that user and of that group, the same in every image", ge=904, le=999
    )
    state_directory: Relative | None = Field(
        description="its directory below /var/lib, which lasts over restarts", default=None
    )
    cache_directory: Relative | None = Field(
        description="its directory below /var/cache, which does not", default=None
    )
    port: int = Field(description="port that it listens on, on loopback", ge=1024, le=65535)
    environment: dict[VariableName, Line] = Field(
        description="its environment file; {port}, {model_path}, {model_name}, {model_marker}, {cpus} "
        "and the names of settings, in braces, are filled in",
        default={},
    )
    settings: dict[SettingName, Setting] = Field(
        description="what a spec may set, by name; each is a placeholder for `environment`", default={}
    )
    command: Many[Line] = Field(
        description="its command line; ${VARIABLE} stands for a variable of `environment`", min_length=1
    )
    notifies: bool = Field(
        description="whether its command tells systemd itself when it serves; else hal's launcher does",
        default=False,
    )
    keeps_connections: bool = Field(
        description="whether a connection that is open after an answer takes another request; else the "
        "gateway opens one for each",
        default=True,
    )
    readiness: Readiness = Field(description="how one tells that it serves")
    start_timeout: Seconds = Field(description="seconds that it may take to become ready", default=300)
    stop_timeout: Seconds = Field(
        description="seconds that it may take to end before it is killed", default=20
    )
    resources: Resources = Field(description="what it takes of the machine")
    binds_models: Literal["start", "runtime"] = Field(
        description="start: one model for as long as it runs; runtime: any, as requests name them"
    )
    registration: Registration | None = Field(
        description="how it gets to know the image's models, where it binds them at run time", default=None
    )
    formats: Many[ModelFormat] = Field(description="formats of weights that it reads", default=())
    artifacts: dict[Literal["x86_64", "aarch64"], Many[EngineArtifact]] = Field(
        description="what goes into its pack, per architecture", default={}
    )
    files: Many[EngineFile] = Field(description="files of ours that go into its pack", default=())
    aliases: Many[WheelAlias] = Field(description="second names for wheels' metadata", default=())
    leave_out: Many[PackPaths] = Field(
        description="what its pack is without, as serving never reads it", default=()
    )
    strip: Many[PackPaths] = Field(
        description="shared objects of its pack without their debug symbols", default=()
    )
    compression: Literal["none", "lz4", "lz4hc", "zstd"] = Field(
        description="compression of its pack", default="lz4"
    )
    sandbox: dict[Directive, SandboxException] = Field(
        description="exceptions from the sandbox that all engines share, by directive", default={}
    )


def available_engines(directory: Path | None = None) -> tuple[str, ...]:
    """Names of the engines in `directory` (default: those that hal ships), sorted."""
    return plugins.available(directory or DIRECTORY)


def load_any_engine(name: str, directory: Path | None = None) -> Engine | RemoteEngine:
    """Read and check the engine file `NAME.yaml`.

    Raises:
        SpecError: there is no such engine, or its file is not valid; `details` holds every problem.
    """
    return plugins.load("engine", name, directory or DIRECTORY, _model, _any_problems)


def load_engine(name: str, directory: Path | None = None) -> Engine:
    """As `load_any_engine`, for an engine that runs in the appliance.

    Raises:
        SpecError: also where it runs elsewhere.
    """
    engine = load_any_engine(name, directory)
    if isinstance(engine, RemoteEngine):
        raise SpecError(f"the engine {name} runs elsewhere")
    return engine


def _model(data: object) -> type[Engine | RemoteEngine]:
    remote = isinstance(data, Mapping) and data.get("kind") == "remote"
    return RemoteEngine if remote else Engine


def _any_problems(engine: Engine | RemoteEngine) -> Iterator[Problem]:
    if isinstance(engine, Engine):
        yield from _problems(engine)
    for name, setting in engine.settings.items():
        wrong = setting_problem(setting, setting.default)
        if wrong:
            yield Problem(("settings", name, "default"), wrong)


def _problems(engine: Engine) -> Iterator[Problem]:
    """What is wrong with an engine file although every value has the right type."""
    for name in engine.settings:
        if name in BUILT_IN_PLACEHOLDERS:
            yield Problem(("settings", name), "is a placeholder that hal fills in itself")
    known = {*BUILT_IN_PLACEHOLDERS, *engine.settings}
    for variable, value in engine.environment.items():
        for placeholder in PLACEHOLDER.findall(value):
            if placeholder not in known:
                problem = f"{{{placeholder}}} is neither {', '.join(BUILT_IN_PLACEHOLDERS)} nor a setting"
                yield Problem(("environment", variable), problem)
    for index, argument in enumerate(engine.command):
        for variable in VARIABLE.findall(argument):
            if variable.strip("{}") not in engine.environment:
                yield Problem(("command", index), f"${variable} is not in `environment`")
    gpu_setting = engine.resources.gpu_setting
    if gpu_setting is not None and gpu_setting not in engine.settings:
        yield Problem(("resources", "gpu_setting"), f"{gpu_setting} is not one of `settings`")
    for arch, artifacts in engine.artifacts.items():
        for index, artifact in enumerate(artifacts):
            if isinstance(artifact, ArchiveArtifact) and (
                odd := artifact.when.keys() - engine.settings.keys()
            ):
                yield Problem(("artifacts", arch, index, "when"), f"{min(odd)} is not one of `settings`")
    if engine.registration is not None and engine.state_directory is None:
        yield Problem(("registration",), "needs a `state_directory`")
    if engine.registration is not None and engine.registration.store not in ("", *engine.environment):
        yield Problem(("registration", "store"), f"{engine.registration.store} is not in `environment`")
    if not engine.command[0].startswith("/"):
        yield Problem(("command", 0), "must be the absolute path of a program")


def served_model(engine: Engine, models: Sequence[Model]) -> Model | None:
    """The model that an engine opens: the first of an appliance's that is in a format it reads."""
    return next((model for model in models if model.format in engine.formats), None)
