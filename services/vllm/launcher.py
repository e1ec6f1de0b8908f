"""Makes vLLM's command line from /etc/hal/engines/vllm.env, checks what can be checked, and becomes vLLM.

Runs on the Python of the pack. What cannot work ends here with one line: more GPUs asked for than there
are, a model that does not fit into their memory or into the machine's.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

GIB = 1 << 30
EX_CONFIG = 78
"""Says to hal's launcher that trying again does not help (sysexits.h(3head))."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
NVML = "libnvidia-ml.so.1"
OURS = re.compile(
    r"VLLM_(API_HOST|API_PORT|MODEL|SERVED_MODEL_NAMES|GPU_MEMORY_UTILIZATION|MAX_MODEL_LEN|"
    r"TENSOR_PARALLEL|DTYPE|DEVICE|ENFORCE_EAGER|EXTRA_ARGS)"
)
"""The variables that are read here; vLLM warns of variables that it does not know."""


class LaunchError(Exception):
    """Why vLLM cannot be started, in one line."""


def arguments(env: Mapping[str, str], gpus: Sequence[int]) -> list[str]:
    """vLLM's command line. `gpus` holds the memory of each GPU in bytes.

    Raises:
        LaunchError: a variable is missing, or asks for GPUs that are not there.
    """
    device = _value(env, "VLLM_DEVICE")
    found = [
        *("serve", _value(env, "VLLM_MODEL")),
        *("--host", _value(env, "VLLM_API_HOST"), "--port", _value(env, "VLLM_API_PORT")),
        *("--served-model-name", *_value(env, "VLLM_SERVED_MODEL_NAMES").split()),
        *("--max-model-len", _value(env, "VLLM_MAX_MODEL_LEN")),
        *("--dtype", _value(env, "VLLM_DTYPE")),
        *("--uvicorn-log-level", "warning"),
    ]
    if device == "cuda":
        found += ["--gpu-memory-utilization", _value(env, "VLLM_GPU_MEMORY_UTILIZATION")]
        found += ["--tensor-parallel-size", str(_tensor_parallel(_value(env, "VLLM_TENSOR_PARALLEL"), gpus))]
    if _value(env, "VLLM_ENFORCE_EAGER") == "true" or device == "cpu":
        found.append("--enforce-eager")  # a CPU's kernels would be compiled, and there is no compiler here
    return [*found, *shlex.split(env.get("VLLM_EXTRA_ARGS", ""))]


def check_memory(env: Mapping[str, str], weights: int, gpus: Sequence[int], available: int) -> None:
    """Refuse a model that cannot fit: `weights` are its bytes, `available` the memory that can still be had.

    Raises:
        LaunchError: it does not fit; the message holds the figures.
    """
    model = _value(env, "VLLM_MODEL")
    if _value(env, "VLLM_DEVICE") == "cuda":
        count = _tensor_parallel(_value(env, "VLLM_TENSOR_PARALLEL"), gpus)
        share = float(_value(env, "VLLM_GPU_MEMORY_UTILIZATION"))
        room = int(sum(sorted(gpus, reverse=True)[:count]) * share)
        if weights > room:
            raise LaunchError(
                f"{model} has {_gib(weights)} of weights and does not fit into {_gib(room)}: {count} GPU(s) "
                f"with gpu_memory_utilization {share}; take a smaller model, more GPUs, or a higher share"
            )
        return
    cache = int(float(env.get("VLLM_CPU_KVCACHE_SPACE") or 0) * GIB)
    if weights + cache > available:
        raise LaunchError(
            f"{model} has {_gib(weights)} of weights and the KV cache takes {_gib(cache)}, but only "
            f"{_gib(available)} of memory are free; give the machine more, or take a smaller model or cache"
        )


def _tensor_parallel(asked: str, gpus: Sequence[int]) -> int:
    if asked == "auto":
        return max(1, len(gpus))
    if int(asked) > len(gpus):
        raise LaunchError(f"tensor_parallel_size is {asked}, and there are {len(gpus)} GPUs")
    return int(asked)


def _value(env: Mapping[str, str], name: str) -> str:
    try:
        return env[name]
    except KeyError:
        raise LaunchError(f"{name} is not set: it belongs in /etc/hal/engines/vllm.env") from None


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def weights_size(model: Path) -> int:
    """Bytes of a model's weights.

    Raises:
        LaunchError: there is no model.
    """
    if not (model / "config.json").is_file():
        raise LaunchError(f"{model} holds no model: there is no config.json")
    return sum(file.stat().st_size for file in model.iterdir() if file.suffix in WEIGHTS)


def available_memory(meminfo: str) -> int:
    """Bytes that programs can still get, from the text of /proc/meminfo (proc_meminfo(5))."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def gpu_memory() -> list[int]:
    """The memory of each NVIDIA GPU in bytes, as the driver's library says (NVML API, "Device Queries").

    Raises:
        LaunchError: the library is missing or sees no driver.
    """

    class Memory(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        raise LaunchError(f"no GPU: {NVML} is missing, NVIDIA's driver is not installed") from None
    if code := nvml.nvmlInit_v2():
        raise LaunchError(f"no GPU: NVIDIA's driver does not answer (NVML error {code})")
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found = []
    for index in range(count.value):
        handle, memory = ctypes.c_void_p(), Memory()
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        found.append(int(memory.total))
    return found


def main() -> int:  # noqa: RET503 (execv does not return)
    """Become vLLM; 78, with one line on standard error, where that makes no sense."""
    env = os.environ
    try:
        gpus = gpu_memory() if _value(env, "VLLM_DEVICE") == "cuda" else []
        weights = weights_size(Path(_value(env, "VLLM_MODEL")))
        check_memory(env, weights, gpus, available_memory(Path("/proc/meminfo").read_text()))
        argv = arguments(env, gpus)
    except LaunchError as refusal:
        print(f"vllm: {refusal}", file=sys.stderr, flush=True)
        return EX_CONFIG
    for name in [name for name in env if OURS.fullmatch(name)]:
        del env[name]
    module = "vllm.entrypoints.cli.main"
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])


if __name__ == "__main__":
    sys.exit(main())
