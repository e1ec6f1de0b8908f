"""vLLM from its pack and llama.cpp from its own, on this machine: greedy answers from the same weights.

Minutes: the pack is built where the cache does not have it, and vLLM takes half a minute to start.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hal.cache import Cache
from hal.engines.environment import engine_environment
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.inputs import gather
from hal.lock.file import load_lock
from hal.packs.build import SIZES
from hal.packs.build import engine_pack as make_pack
from hal.progress import Silent
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, load_spec
from tests.gguf_to_safetensors import convert, dequantise
from tests.services.conftest import free_port, wait_for

pytestmark = pytest.mark.large

READY = 300.0
QUESTIONS = ("What is the capital of France?", "Where is Berlin?", "Count to five.")


@pytest.fixture(scope="module")
def loaded() -> LoadedSpec:
    return load_spec("vllm-cpu")


@pytest.fixture(scope="module")
def vllm(tools: Sandbox, loaded: LoadedSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """vLLM's pack, unpacked again from the image that an appliance mounts."""
    lock, engine = load_lock(), loaded.engines[0]
    fetcher = Fetcher(Cache(), Mirrors.choose(moment=lock.debian.created))
    without_models = LoadedSpec(loaded.spec, loaded.path, loaded.engines, ())
    inputs = gather((), without_models, lock, fetcher, Silent(), locked=True)
    pack = make_pack(engine, inputs.runtime(loaded, engine), tools, inputs.cache)
    print((pack.path.parent / SIZES).read_text())
    directory = tmp_path_factory.mktemp("vllm")
    tools.run(
        ["fsck.erofs", f"--extract={directory}/pack", "--no-preserve", str(pack.path)],
        readable=[pack.path],
        writable=[directory],
    )
    yield directory / "pack"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """SmolLM2 as GGUF and as safetensors, both in float32: with its 4-bit weights llama.cpp would round the
    activations to 8 bits, and where two tokens are nearly as likely the answers would part."""
    loaded, lock = load_spec("starter"), load_lock()
    fetcher = Fetcher(Cache(), Mirrors.choose(moment=lock.debian.created))
    inputs = gather((), loaded, lock, fetcher, Silent(), locked=True)
    (model,) = loaded.models
    (source,) = inputs.model_files(model, loaded.path.parent).values()
    directory = tmp_path_factory.mktemp("smollm2")
    yield dequantise(source, directory / "smollm2.gguf"), convert(source, directory / "safetensors")
    shutil.rmtree(directory)


@contextmanager
def serving(argv: list[str], environment: dict[str, str], port: int, log: Path) -> Iterator[str]:
    """The address of a server while it runs; its whole process group ends with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return httpx.get(f"{url}/health", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(ready, f"{argv[0]} is healthy", READY)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None


def ask(url: str, model: str, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    answer.raise_for_status()
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_smollm2_says_the_same_in_both(
    vllm: Path, engine_pack: Path, weights: tuple[Path, Path], loaded: LoadedSpec, tmp_path: Path
) -> None:
    gguf, safetensors = weights
    port = free_port()
    llamacpp = {
        "PATH": os.environ["PATH"],
        "LLAMACPP_HOST": "127.0.0.1",
        "LLAMACPP_PORT": str(port),
        "LLAMACPP_MODEL": str(gguf),
        "LLAMACPP_ALIAS": "smollm2",
        "LLAMACPP_MARKER": "",
        "LLAMACPP_CONTEXT_LENGTH": "512",
        "LLAMACPP_THREADS": "0",
        "LLAMACPP_PARALLEL": "1",
    }
    launcher = [sys.executable, "-I", str(engine_pack / "bin/hal-llamacpp")]
    with serving(launcher, llamacpp, port, tmp_path / "llamacpp.log") as url:
        expected = [ask(url, "smollm2", question) for question in QUESTIONS]
    assert "Paris" in expected[0]

    port = free_port()
    engine = loaded.engines[0]
    found = engine_environment(engine, loaded.choice(engine), loaded.served(engine), loaded.spec)
    here = {name: value.replace("/var/", f"{tmp_path}/var/") for name, value in found.items()}
    here |= {
        "PATH": os.environ["PATH"],
        "VLLM_API_PORT": str(port),
        "VLLM_MODEL": str(safetensors),
        "VLLM_SERVED_MODEL_NAMES": "smollm2 orchestrator",
        "VLLM_DTYPE": "float32",
    }
    with serving([str(vllm / "bin/vllm")], here, port, tmp_path / "vllm.log") as url:
        listed = [entry["id"] for entry in httpx.get(f"{url}/v1/models", timeout=30).json()["data"]]
        answers = [ask(url, name, question) for name in listed for question in QUESTIONS]
    assert listed == ["smollm2", "orchestrator"]
    assert answers == expected * 2
