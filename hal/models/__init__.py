"""Models: weights as data. One YAML file each, or the same keys inline in a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from hal import plugins
from hal.size import Size
from hal.strict import Line, Many, Matching, ModelName, Sha256, Value

DIRECTORY = Path(__file__).parent
MOUNTPOINT = "/srv/models"
"""Where an appliance mounts its model packs, each at the model's name."""

_FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$"

Count = Annotated[str, Matching(r"^[0-9]+(\.[0-9]+)?[KMBT]$", "a count, such as 135M or 7B")]
ModelFormat = Literal["gguf", "safetensors"]


class PypiSource(Value):
    """A member of a wheel of a PyPI project."""

    kind: Literal["pypi"] = Field(description="a file inside a wheel")
    project: Line = Field(description="the project's name on the index", min_length=1)
    version: Line = Field(description="the exact version", min_length=1)
    member: Line = Field(description="path of the file inside the wheel", min_length=1)


class FileSource(Value):
    """A file on the machine that builds."""

    kind: Literal["file"] = Field(description="a file on this machine")
    path: Line = Field(description="path of the file, relative to the spec", min_length=1)


class HttpsSource(Value):
    """A file behind a URL."""

    kind: Literal["https"] = Field(description="a download")
    url: Annotated[str, Matching(r"^https://[^\s/]+/\S+$", "a URL that begins with https://")] = Field(
        description="the address; what comes is held against `sha256`"
    )


Source = Annotated[PypiSource | FileSource | HttpsSource, Field(discriminator="kind")]


class ModelFile(Value):
    """One file of a model, pinned by size and digest."""

    name: Annotated[str, Matching(_FILE_NAME, "a file name, without spaces and `..`")] = Field(
        description="name of the file in the model pack"
    )
    size: int = Field(description="bytes", ge=1)
    sha256: Sha256 = Field(description="SHA-256 of the file's content")
    source: Source = Field(description="where the file comes from when a build first needs it")


class Model(Value):
    """A model: what it is, what it needs, and its files."""

    name: ModelName = Field(description="the model's name, for clients, mounts and packs")
    summary: Line = Field(description="the model in one line", default="")
    license: Line = Field(
        description="SPDX identifier of the weights' licence; NOASSERTION: not known",
        default="NOASSERTION",
        min_length=1,
    )
    format: ModelFormat = Field(description="format of the weights; an engine says which it reads")
    parameters: Count | None = Field(
        description="how many parameters, as people say it: 135M, 7B", default=None
    )
    memory: Size | None = Field(
        description="memory that serving it takes, beyond the engine's own; default: the size of its files",
        default=None,
    )
    files: Many[ModelFile] = Field(
        description="the files; the first is what a GGUF engine opens", min_length=1
    )

    @field_validator("files")
    @classmethod
    def _names_are_unique(cls, files: tuple[ModelFile, ...]) -> tuple[ModelFile, ...]:
        names = [file.name for file in files]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise PydanticCustomError("duplicate", "two files are named {name}", {"name": twice})
        return files

    @property
    def memory_needed(self) -> int:
        """Bytes that serving takes; where the file does not say, the size of the weights."""
        return sum(file.size for file in self.files) if self.memory is None else self.memory

    @property
    def mountpoint(self) -> str:
        """Where the appliance mounts the model's pack."""
        return f"{MOUNTPOINT}/{self.name}"

    @property
    def path(self) -> str:
        """What an engine opens in the appliance: the (first) file of GGUF weights, else the folder.

        llama.cpp finds the further parts of split weights by itself, from the first one's name.
        """
        return f"{self.mountpoint}/{self.files[0].name}" if self.format == "gguf" else self.mountpoint


def available_models(directory: Path | None = None) -> tuple[str, ...]:
    """Names of the models in `directory` (default: those that hal ships), sorted."""
    return plugins.available(directory or DIRECTORY)


def load_model(name: str, directory: Path | None = None) -> Model:
    """Read and check the model file `NAME.yaml`.

    Raises:
        SpecError: there is no such model, or its file is not valid; `details` holds every problem.
    """
    return plugins.load("model", name, directory or DIRECTORY, lambda data: Model, lambda model: ())
