"""GPUs that a spec says the machine has: told at build where they do not suffice."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.spec.loading import LoadedSpec, SpecError, parse_spec

SPEC = """\
appliance: {{name: a, version: 1.0.0}}
variant: debug
engines: {{vllm: {{settings: {settings}}}}}
models:
  - name: big
    format: safetensors
    files:
      - {{name: model.safetensors, size: {size}, sha256: {sha256}, source: {{kind: https, url: "https://a.test/m"}}}}
    memory: 1G
machine: {{memory: 8G}}
"""
GIB = 1 << 30


def parsed(settings: str, gib: int = 10) -> LoadedSpec:
    return parse_spec(SPEC.format(settings=settings, size=gib * GIB, sha256="a" * 64), Path("a.yaml"))


@pytest.mark.parametrize(
    "settings",
    [
        "{}",
        "{gpus: 2, tensor_parallel_size: 2}",
        "{gpus: 2}",
        "{vram: 24}",
        "{gpus: 2, vram: 8}",
        "{device: cpu}",
        "{tensor_parallel_size: 8}",
    ],
)
def test_what_may_fit_is_left_to_the_start(settings: str) -> None:
    assert parsed(settings).engines[0].name == "vllm"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            "{gpus: 2, tensor_parallel_size: 4}",
            "tensor_parallel_size: is 4, and the machine has 2 GPUs (`gpus`)",
        ),
        ("{device: cpu, tensor_parallel_size: 2}", "2 GPUs are to share the model, and vllm is to use none"),
        (
            "{vram: 8}",
            "big has 10G of weights and does not fit into 1 GPU(s) of 8 GiB, of which vllm may take 85%",
        ),
        (
            "{gpus: 2, vram: 8, gpu_memory_utilization: 0.5}",
            "into 2 GPU(s) of 8 GiB, of which vllm may take 50%",
        ),
        ("{tensor_parallel_size: many}", "must be a whole number or auto, not 'many'"),
        ("{tensor_parallel_size: 0}", "must be at least 1, not 0"),
        ("{device: gpu}", "must be one of cuda, cpu, not 'gpu'"),
    ],
)
def test_what_cannot_fit_is_told_with_its_figures(settings: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parsed(settings)
    (told,) = caught.value.details
    assert problem in told
