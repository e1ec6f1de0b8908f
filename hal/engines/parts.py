"""The parts of an engine's file: readiness, resources, what goes into its pack, its exceptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hal.documents.size import Size
from hal.documents.strict import EngineName, Line, Many, Matching, Sha256, Value
from hal.engines.settings import Scalar

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
        description="the versions that can be had; others need `--artifact` with a digest", default={}
    )
    name: EngineName | None = Field(
        description="what `--artifact` calls it; default: the engine's name", default=None
    )
    license: Line = Field(
        description="SPDX expression of what is in it; NOASSERTION: not known",
        default="NOASSERTION",
        min_length=1,
    )
    when: dict[SettingName, Many[Scalar]] = Field(
        description="settings with the values that it is needed for; default: it always is", default={}
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
    store: VariableName | Literal[""] = Field(
        description="the variable of `environment` that says where its store is, if models in Ollama's own "
        "form (`format: ollama`) go into that as links, without the command",
        default="",
    )


class SandboxException(Value):
    """A sandbox directive that an engine needs otherwise than all others have it."""

    value: Line = Field(description="value of the directive in the engine's unit")
    reason: Line = Field(description="why the engine cannot run without", min_length=1)
