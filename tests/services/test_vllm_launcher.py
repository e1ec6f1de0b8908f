"""What vLLM is started with, and what is refused before it starts: settings of the spec, GPUs, memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.engines import load_engine
from hal.engines.environment import engine_environment
from hal.spec.loading import parse_spec
from services.vllm.launcher import (
    GIB,
    OURS,
    LaunchError,
    arguments,
    available_memory,
    check_memory,
    weights_size,
)

SPEC = """\
appliance: {{name: a, version: 1.0.0}}
variant: debug
engines: {{vllm: {{settings: {settings}}}}}
models: [smollm2-135m-safetensors]
machine: {{memory: 8G}}
"""


def environment(settings: str = "{}") -> dict[str, str]:
    loaded = parse_spec(SPEC.format(settings=settings), Path("a.yaml"))
    engine = loaded.engines[0]
    return engine_environment(engine, loaded.choice(engine), loaded.served(engine), loaded.spec)


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_the_defaults() -> None:
    argv = arguments(environment(), [80 * GIB])
    assert argv[:2] == ["serve", "/srv/models/smollm2-135m-safetensors"]
    assert option(argv, "--host") == "127.0.0.1"
    assert option(argv, "--port") == "8000"
    assert option(argv, "--gpu-memory-utilization") == "0.85"
    assert option(argv, "--max-model-len") == "1024"
    assert option(argv, "--tensor-parallel-size") == "1"
    assert "--enforce-eager" not in argv


def test_settings_reach_the_command_line() -> None:
    settings = (
        "{device: cpu, served_model_names: orchestrator specialist, dtype: float32, max_model_len: 64,"
        " extra_arguments: \"--seed 3 --api-key 'a b'\"}"
    )
    argv = arguments(environment(settings), [])
    start = argv.index("--served-model-name") + 1
    assert argv[start : start + 3] == ["smollm2-135m-safetensors", "orchestrator", "specialist"]
    assert option(argv, "--dtype") == "float32"
    assert option(argv, "--max-model-len") == "64"
    assert argv[-4:] == ["--seed", "3", "--api-key", "a b"]
    assert "--enforce-eager" in argv
    assert "--gpu-memory-utilization" not in argv


def test_auto_takes_every_gpu_and_more_are_refused() -> None:
    assert option(arguments(environment(), [GIB] * 4), "--tensor-parallel-size") == "4"
    assert (
        option(arguments(environment("{tensor_parallel_size: 2}"), [GIB] * 4), "--tensor-parallel-size")
        == "2"
    )
    with pytest.raises(LaunchError, match="tensor_parallel_size is 8, and there are 4 GPUs"):
        arguments(environment("{tensor_parallel_size: 8}"), [GIB] * 4)


def test_a_model_that_does_not_fit_is_refused_with_the_figures() -> None:
    check_memory(environment(), 20 * GIB, [24 * GIB], 0)
    with pytest.raises(LaunchError, match=r"21.0 GiB of weights and does not fit into 20.4 GiB: 1 GPU"):
        check_memory(environment(), 21 * GIB, [24 * GIB], 0)
    check_memory(environment(), 40 * GIB, [24 * GIB] * 2, 0)
    cpu = environment("{device: cpu, cpu_kvcache_space: 2}")
    check_memory(cpu, GIB, [], 4 * GIB)
    with pytest.raises(LaunchError, match=r"the KV cache takes 2.0 GiB, but only 4.0 GiB of memory are free"):
        check_memory(cpu, 3 * GIB, [], 4 * GIB)


def test_every_variable_of_ours_is_taken_away_before_vllm_sees_it() -> None:
    known = {"VLLM_HOST_IP", "VLLM_LOOPBACK_IP", "VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS"}
    known |= {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "VLLM_DO_NOT_TRACK", "VLLM_CONFIG_ROOT", "VLLM_CACHE_ROOT"}
    rest = {name for name in environment() if name.startswith("VLLM_") and not OURS.fullmatch(name)}
    assert rest == known


def test_what_is_on_disk(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="holds no model"):
        weights_size(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(bytes(100))
    (tmp_path / "tokenizer.json").write_bytes(bytes(50))
    assert weights_size(tmp_path) == 100
    assert available_memory("MemTotal:  9 kB\nMemAvailable:     7 kB\n") == 7 * 1024


def test_the_environment_keeps_it_offline_and_on_loopback() -> None:
    found = environment()
    assert found["HF_HUB_OFFLINE"] == found["TRANSFORMERS_OFFLINE"] == "1"
    assert found["VLLM_API_HOST"] == found["VLLM_HOST_IP"] == "127.0.0.1"
    assert found["VLLM_MODEL"].startswith("/")
    assert "VLLM_PORT" not in found  # vLLM takes it for the port of its workers
    assert load_engine("vllm").stop_timeout >= 60
