"""Engines: inference servers as data. One YAML file says all that hal needs to know about one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hal import plugins
from hal.document import Problem
from hal.engines.settings import Setting, setting_problem
from hal.models import Model, ModelFormat
from hal.size import Size
from hal.strict import EngineName, Line, Many, Matching, Sha256, Value

DIRECTORY = Path(__file__).parent

BUILT_IN_PLACEHOLDERS = ("port", "model_path", "model_name", "cpus")
"""What an environment's value may hold in braces, besides the names of the engine's settings."""

VARIABLE = re.compile(r"\$(\{\w+\}|\w+$)")
"""A variable in a command line: `${NAME}` within a word, or `$NAME` as a whole word, which is split."""

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")

VariableName = Annotated[str, Matching(r"^[A-Z][A-Z0-9_]*$", "the name of an environment variable")]
SettingName = Annotated[str, Matching(r"^[a-z][a-z0-9_]*$", "a name in small letters")]
Directive = Annotated[str, Matching(r"^[A-Z][A-Za-z0-9]*$", "the name of a systemd directive")]
UrlPath = Annotated[str, Matching(r"^/[A-Za-z0-9/._-]*$", "a path that begins with /")]
Relative = Annotated[
    str, Matching(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$", "a relative path")
]
Seconds = Annotated[int, Field(ge=1, le=86400)]


class Readiness(Value):
    """How the selector tells that an engine can serve: it answers, and lists the model."""

    path: UrlPath = Field(description="path that answers once the engine serves")
    status: int = Field(description="HTTP status of that answer", default=200, ge=100, le=599)
    models_path: UrlPath | None = Field(
        description="path that lists the models that are loaded; absent: not asked", default=None
    )
    listed_as: Line = Field(
        description="how that list names a model; {model_name} is filled in", default="{model_name}"
    )


class Resources(Value):
    """What an engine takes of the machine, without its models."""

    gpu: Literal["required", "optional", "none"] = Field(description="whether it computes on a GPU")
    gpu_setting: SettingName | None = Field(
        description="the setting that says which GPU: nvidia or cuda, amd, intel; none or cpu for none",
        default=None,
    )
    memory: Size = Field(description="memory that it takes before any model")


class WheelArtifact(Value):
    """A Python package, unpacked into `lib/` of the pack; `hal.lock` pins which file exactly."""

    kind: Literal["wheel"] = Field(description="a Python package, unpacked into `lib/` of the pack")
    project: Line = Field(description="the project's name on the index", min_length=1)


class WheelSetArtifact(Value):
    """A Python package with all that it needs, unpacked into `lib/`; `hal.lock` pins each wheel."""

    kind: Literal["wheel_set"] = Field(description="a package with all that it needs, unpacked into `lib/`")
    set: Line = Field(
        description="name of the wheel set in the lock; names of settings in braces are filled in",
        min_length=1,
    )
    version: Line = Field(description="the version where a spec asks for none", min_length=1)


class DebianSetArtifact(Value):
    """Debian packages, unpacked side by side; `hal.lock` pins each."""

    kind: Literal["debian_set"] = Field(description="Debian packages, unpacked and not installed")
    set: Line = Field(description="name of the set in hal/bases/debian.yaml", min_length=1)
    path: Relative = Field(description="folder of the pack that they are unpacked into")


class Release(Value):
    """One release of an archive, pinned by its digest."""

    url: Annotated[str, Matching(r"^https://[^\s/]+/\S+$", "a URL that begins with https://")] = Field(
        description="where it is published"
    )
    sha256: Sha256 = Field(description="SHA-256 of the archive")
    size: int | None = Field(description="bytes; absent: the server is asked", default=None, ge=1)


class ArchiveArtifact(Value):
    """A project's own release archive, unpacked whole, with the layout that it has."""

    kind: Literal["archive"] = Field(description="a release archive (tar, with gzip or Zstandard)")
    version: Line = Field(description="the version where a spec asks for none", min_length=1)
    releases: dict[Line, Release] = Field(
        description="the versions that can be had; others need `--artifact` with a digest"
    )


EngineArtifact = Annotated[
    WheelArtifact | WheelSetArtifact | DebianSetArtifact | ArchiveArtifact, Field(discriminator="kind")
]
"""Something from outside that goes into an engine's pack."""


class PackPaths(Value):
    """Files of an engine's pack that something is done to, and why."""

    paths: Many[Line] = Field(
        description="files and folders of the pack: `*` within a name, `**` any folders", min_length=1
    )
    reason: Line = Field(description="why", min_length=1)


class WheelAlias(Value):
    """A second name for a wheel's metadata: some packages ask for their own version under another name."""

    wheel: Line = Field(description="the project whose wheel it is", min_length=1)
    name: Line = Field(description="the name that its metadata is found under as well", min_length=1)
    local: Line = Field(description="local part of the version there: 1.0 becomes 1.0+LOCAL", min_length=1)


class EngineFile(Value):
    """A file of ours that goes into the engine's pack."""

    source: Line = Field(description="the file, relative to hal's repository (or absolute)", min_length=1)
    path: Relative = Field(description="where it lies in the pack")
    mode: Annotated[str, Matching(r"^0[0-7]{3}$", 'file permissions such as "0755", in quotes')] = Field(
        description="its permissions, in octal", default="0644"
    )


class Registration(Value):
    """How a model of the image becomes known to a running engine that binds models at run time.

    {model_name}, {model_path} and {model_sha256} (of the model's first file) are filled in.
    """

    copies: int = Field(
        description="copies of the weights that the engine keeps on the state partition meanwhile, at most",
        ge=0,
    )
    text: Line = Field(description="content of a file for the command, which knows its path as {file}")
    command: Many[Line] = Field(description="what registers the model, run beside the engine", min_length=1)


class SandboxException(Value):
    """A sandbox directive that an engine needs otherwise than all others have it."""

    value: Line = Field(description="value of the directive in the engine's unit")
    reason: Line = Field(description="why the engine cannot run without", min_length=1)


class Engine(Value):
    """An engine: what it is, how it runs, what it needs."""

    name: EngineName = Field(description="the engine's name, for units, packs and specs")
    summary: Line = Field(description="the engine in one line", min_length=1)
    dialects: Many[Literal["openai", "ollama"]] = Field(
        description="the HTTP APIs that it speaks", min_length=1
    )
    user: EngineName = Field(description="user that it runs as")
    group: EngineName = Field(description="group that it runs as")
    uid: int = Field(
        description="number of that user and of that group, the same in every image", ge=903, le=999
    )
    state_directory: Relative | None = Field(
        description="its directory below /var/lib, which lasts over restarts", default=None
    )
    cache_directory: Relative | None = Field(
        description="its directory below /var/cache, which does not", default=None
    )
    port: int = Field(description="port that it listens on, on loopback", ge=1024, le=65535)
    environment: dict[VariableName, Line] = Field(
        description="its environment file; {port}, {model_path}, {model_name}, {cpus} and the names of "
        "settings, in braces, are filled in",
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


def load_engine(name: str, directory: Path | None = None) -> Engine:
    """Read and check the engine file `NAME.yaml`.

    Raises:
        SpecError: there is no such engine, or its file is not valid; `details` holds every problem.
    """
    return plugins.load("engine", name, directory or DIRECTORY, Engine, _problems)


def _problems(engine: Engine) -> Iterator[Problem]:
    """What is wrong with an engine file although every value has the right type."""
    for name, setting in engine.settings.items():
        if name in BUILT_IN_PLACEHOLDERS:
            yield Problem(("settings", name), "is a placeholder that hal fills in itself")
        wrong = setting_problem(setting, setting.default)
        if wrong:
            yield Problem(("settings", name, "default"), wrong)
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
    if engine.registration is not None and engine.state_directory is None:
        yield Problem(("registration",), "needs a `state_directory`")
    if not engine.command[0].startswith("/"):
        yield Problem(("command", 0), "must be the absolute path of a program")


def served_model(engine: Engine, models: Sequence[Model]) -> Model | None:
    """The model that an engine opens: the first of an appliance's that is in a format it reads."""
    return next((model for model in models if model.format in engine.formats), None)
