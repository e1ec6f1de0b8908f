"""Models: weights as data. One YAML file each, or the same keys inline in a spec."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from hal.documents import plugins
from hal.documents.document import SpecError
from hal.documents.size import Size
from hal.documents.strict import Line, Many, Matching, ModelName, Sha256, Value
from hal.models.sources import (
    FILE_NAME,
    FileSource,
    HttpsSource,
    HuggingFaceSource,
    NetworkSource,
    OllamaSource,
    PypiSource,
    Source,
)

__all__ = [
    "FileSource",
    "HttpsSource",
    "HuggingFaceSource",
    "Model",
    "ModelFile",
    "NetworkSource",
    "OllamaSource",
    "PypiSource",
    "Source",
    "available_models",
    "load_model",
    "load_model_file",
]

DIRECTORY = Path(__file__).parent
MOUNTPOINT = "/srv/models"
"""Where an appliance mounts its model packs, each at the model's name."""

MARKERS = "/run/hal/models"
"""Where hal-provision says which models it has found good in this boot."""

Count = Annotated[str, Matching(r"^[0-9]+(\.[0-9]+)?[KMBT]$", "a count, such as 135M or 7B")]
ModelFormat = Literal["gguf", "safetensors", "ollama"]

Delivery = Literal["image", "disk", "network", "import"]
"""How a model comes into the appliance: packed on its disk, packed on a disk that is attached, fetched at
first boot, or given by an operator."""

PACKED: tuple[Delivery, ...] = ("image", "disk")
"""Models that are packs; the others lie on the state partition."""

MANIFEST = "manifest.json"
"""The file of a model in Ollama's format that names all others, its blobs."""

BLOB = "blobs/sha256-"
"""What the names of an Ollama model's blobs begin with, before their digest."""


class ModelFile(Value):
    """One file of a model, pinned by size and digest."""

    name: Annotated[str, Matching(FILE_NAME, "a file name, without spaces and `..`")] = Field(
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
    delivery: Delivery = Field(
        description="how it comes into the appliance: packed on its disk, packed on a disk that is attached, "
        "fetched at first boot, or given by an operator",
        default="image",
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

    @model_validator(mode="after")
    def _is_laid_out_as_ollama_does(self) -> Model:
        odd = next((words for file in self.files if (words := _layout_problem(self.format, file))), None)
        if odd is None and self.format == "ollama" and all(file.name != MANIFEST for file in self.files):
            odd = f"an Ollama model needs its manifest, a file named {MANIFEST}"
        if odd:
            raise PydanticCustomError("layout", "{words}", {"words": odd})
        return self

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def identity(self) -> str:
        """What names exactly these files in an appliance's store: 32 hexadecimal digits.

        The beginning of the SHA-256 over the sorted lines `SHA256 SIZE NAME`.
        """
        lines = sorted(f"{file.sha256} {file.size} {file.name}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]

    @property
    def packed(self) -> bool:
        """Whether the appliance has it as a pack, checked by dm-verity, and not on the state partition."""
        return self.delivery in PACKED

    @property
    def marker(self) -> str:
        """The file without which no engine opens the model; "" for a pack, which the kernel checks."""
        return "" if self.packed else f"{MARKERS}/{self.name}"

    @property
    def memory_needed(self) -> int:
        """Bytes that serving takes; where the file does not say, the size of the weights."""
        return self.size if self.memory is None else self.memory

    @property
    def mountpoint(self) -> str:
        """Where the appliance has the model: its pack, or a link to where it lies once it has come."""
        return f"{MOUNTPOINT}/{self.name}"

    @property
    def path(self) -> str:
        """What an engine opens in the appliance: the (first) file of GGUF weights, else the folder.

        llama.cpp finds the further parts of split weights by itself, from the first one's name.
        """
        return f"{self.mountpoint}/{self.files[0].name}" if self.format == "gguf" else self.mountpoint


def _layout_problem(format: str, file: ModelFile) -> str | None:
    """What keeps a file from being one of a model in Ollama's format, or an Ollama registry's."""
    if format != "ollama" and file.source.kind != "ollama":
        return None
    if file.name in (MANIFEST, f"{BLOB}{file.sha256}"):
        return None
    return f"{file.name}: a file of an Ollama model is named {MANIFEST}, or {BLOB}SHA256 with its own digest"


def available_models(directory: Path | None = None) -> tuple[str, ...]:
    """Names of the models in `directory` (default: those that hal ships), sorted."""
    return plugins.available(directory or DIRECTORY)


def load_model(name: str, directory: Path | None = None) -> Model:
    """Read and check the model file `NAME.yaml`.

    Raises:
        SpecError: there is no such model, or its file is not valid; `details` holds every problem.
    """
    return plugins.load("model", name, directory or DIRECTORY, lambda data: Model, lambda model: ())


def load_model_file(folder: Path, path: str) -> Model:
    """Read and check a model's file in a spec's `folder`; its name is the file's, without `.yaml`.

    The paths of its `file` sources, which begin at its own folder, come back as beginning at `folder`.

    Raises:
        SpecError: there is no such file, or it is not valid; `details` holds every problem.
    """
    file = folder / path
    if file.suffix != ".yaml" or not file.is_file():
        raise SpecError(f"there is no file {file}" if file.suffix == ".yaml" else f"{path} is no .yaml file")
    model = load_model(file.stem, file.parent)
    above = PurePosixPath(path).parent
    files = tuple(
        item.model_copy(
            update={"source": item.source.model_copy(update={"path": str(above / item.source.path)})}
        )
        if isinstance(item.source, FileSource)
        else item
        for item in model.files
    )
    return model.model_copy(update={"files": files})
