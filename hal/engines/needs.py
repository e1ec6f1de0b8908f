"""What an engine of an appliance takes of the machine: a GPU and memory on it, and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hal.engines import Engine
from hal.engines.gpu import gpu_of
from hal.models import Model

if TYPE_CHECKING:
    from hal.engines.settings import Scalar
    from hal.spec.model import EngineChoice


@dataclass(frozen=True)
class Needs:
    """The make of GPU (empty: none), bytes on all its GPUs together, bytes of memory, and how many GPUs."""

    gpu: str
    vram: int
    memory: int
    gpus: int


def values_of(engine: Engine, choice: EngineChoice) -> dict[str, Scalar]:
    """The settings of an engine as an appliance has them."""
    return {name: setting.default for name, setting in engine.settings.items()} | choice.settings


def needs(engine: Engine, choice: EngineChoice, model: Model | None) -> Needs:
    """What an engine takes with the model that it opens.

    On a GPU that is the model's weights over the share of its memory that the engine may take
    (`gpu_memory_utilization`, of engines with such a setting), as `hal.spec.check` counts it.
    """
    gpu = gpu_of(engine, choice)
    own = engine.resources.memory
    if gpu is None:
        return Needs("", 0, own + (model.memory_needed if model is not None else 0), 0)
    values = values_of(engine, choice)
    share = float(values.get("gpu_memory_utilization", 1.0)) or 1.0
    shared = tensor_parallel(engine, choice)
    weights = sum(file.size for file in model.files) if model is not None else 0
    return Needs(gpu.kind, int(weights / share), own, max(1, int(shared) if shared.isdigit() else 1))


def tensor_parallel(engine: Engine, choice: EngineChoice) -> str:
    """How many GPUs share the model, or `auto`; empty where that is no question."""
    return str(values_of(engine, choice).get("tensor_parallel_size", ""))


def served_names(engine: Engine, choice: EngineChoice, model: Model | None) -> tuple[str, ...]:
    """The names of models that it can ever list; none where it binds models at run time: any."""
    if engine.binds_models == "runtime" or model is None:
        return ()
    return (model.name, *str(values_of(engine, choice).get("served_model_names", "")).split())
