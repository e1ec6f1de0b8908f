"""What a spec's models are, where they come from, and on how many GPUs of which class each fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hal.engines import Engine, available_engines, load_any_engine
from hal.engines.needs import values_of
from hal.models import (
    FileSource,
    HttpsSource,
    HuggingFaceSource,
    Model,
    OllamaSource,
    available_models,
    load_model,
)
from hal.spec.loading import LoadedSpec
from hal.spec.model import EngineChoice

GPU_CLASSES = (24, 40, 80)
"""Memory of common GPUs in GB (10^9 bytes): of an L4 or RTX 4090, of the smaller A100, of an H100. They have
a little more than that: an L4 24.1, an H100 85.5."""

GB = 10**9
MOST_GPUS = 8
"""What one machine commonly has."""


@dataclass(frozen=True)
class ModelRow:
    """A model in a list. `size` and `memory` in bytes.

    `engines` are those that read its format. `gpus` is how many GPUs it takes of each class, as `24 GB`; None
    where no number of them up to 8 is enough. It is empty where no engine computes on a GPU.
    """

    name: str
    summary: str
    delivery: str
    source: str
    format: str
    size: int
    license: str
    parameters: str
    memory: int
    engines: tuple[str, ...]
    gpus: dict[str, int | None] = field(default_factory=dict)


def known_models() -> list[ModelRow]:
    """The models that hal knows by name, with the engines that hal has."""
    engines = [load_any_engine(name) for name in available_engines()]
    choices = [(engine, EngineChoice(name=engine.name)) for engine in engines if isinstance(engine, Engine)]
    return [_row(load_model(name), choices) for name in available_models()]


def spec_models(loaded: LoadedSpec) -> list[ModelRow]:
    """The models of a spec, with its engines as it sets them."""
    choices = [(engine, loaded.choice(engine)) for engine in loaded.engines]
    return [_row(model, choices) for model in loaded.models]


def _row(model: Model, choices: Sequence[tuple[Engine, EngineChoice]]) -> ModelRow:
    reading = [(engine, choice) for engine, choice in choices if model.format in engine.formats]
    computing = [pair for pair in reading if pair[0].resources.gpu != "none"]
    return ModelRow(
        name=model.name,
        summary=model.summary,
        delivery=model.delivery,
        source=origin(model),
        format=model.format,
        size=model.size,
        license=model.license,
        parameters=model.parameters or "",
        memory=model.memory_needed,
        engines=tuple(engine.name for engine, _ in reading),
        gpus={f"{size} GB": gpus_needed(*computing[0], model, size * GB) for size in GPU_CLASSES}
        if computing
        else {},
    )


def gpus_needed(engine: Engine, choice: EngineChoice, model: Model, vram: int) -> int | None:
    """How many GPUs with `vram` bytes an engine needs for a model; None where even eight are too few.

    A model takes what serving it takes in memory, at least its weights, of the share of a GPU's memory that
    the engine may use. Only engines with a setting for it share a model among GPUs, 2, 4 or 8 of them.
    """
    values = values_of(engine, choice)
    share = float(values.get("gpu_memory_utilization", 1.0)) or 1.0
    needed = max(model.size, model.memory_needed) / share
    most = MOST_GPUS if "tensor_parallel_size" in values else 1
    return next((count for count in (1, 2, 4, 8) if count <= most and needed <= count * vram), None)


def origin(model: Model) -> str:
    """Where a model's files come from, in a few words; of several places, that of the largest file."""
    source = max(model.files, key=lambda file: file.size).source
    match source:
        case HuggingFaceSource():
            return f"huggingface:{source.repository}@{source.revision[:12]}"
        case OllamaSource():
            return f"ollama:{source.model.removeprefix('library/')}:{source.tag}"
        case HttpsSource():
            return f"https://{urlsplit(source.url).hostname}"
        case FileSource():
            return f"file:{source.path}"
        case _:
            return f"pypi:{source.project}=={source.version}"
