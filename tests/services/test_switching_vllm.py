"""Zero loss with the real vLLM on this machine's CPU and llama.cpp, which serve the same weights.

Minutes, most of them vLLM's starts where only one of the two may run. `pytest -s` shows the figures.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from hal.engines.environment import engine_environment
from hal.spec.loading import LoadedSpec
from tests import tiny_model
from tests.services.conftest import wait_for
from tests.services.load import Load, Question, ask
from tests.services.pair import FIRST, SECOND, Pair, pair
from tests.services.switches import active, control, healthy
from tests.services.test_same_answers import loaded, vllm  # noqa: F401 (fixtures)
from tests.tiny_model import ANSWER, NAME

pytestmark = pytest.mark.large

READY = 400.0
"""Seconds for a switch: vLLM starts in half a minute on idle CPUs, and here they are not."""

SWITCHES = 10
SECONDS = 120.0
STREAM = Question(NAME, prompt="Name", tokens=48)
SHORT = Question(NAME, messages=[{"role": "user", "content": "Hi"}], answer=ANSWER)


def with_vllm(stack: Pair, pack: Path, spec: LoadedSpec) -> None:
    """Put vLLM in the second engine's place, with the tiny model as safetensors."""
    weights = stack.home / "safetensors"
    weights.mkdir()
    tiny_model.write_safetensors(weights)
    lines = stack.files[f"/etc/hal/engines/{SECOND}.env"].content.splitlines()
    port = next(line.partition("=")[2] for line in lines if line.startswith("LLAMACPP_PORT="))
    engine = spec.engines[0]
    found = engine_environment(engine, spec.choice(engine), spec.served(engine), spec.spec)
    here = {name: value.replace("/var/", f"{stack.home}/var/") for name, value in found.items()}
    here |= {
        "VLLM_API_PORT": port,
        "VLLM_MODEL": str(weights),
        "VLLM_SERVED_MODEL_NAMES": NAME,
        "VLLM_DTYPE": "float32",
        "VLLM_MAX_MODEL_LEN": "512",
    }
    words = ["env", *(f"{name}={value}" for name, value in here.items()), str(pack / "bin/vllm")]
    (stack.home / "units" / SECOND).write_text(f"exec {shlex.join(words)}\n")
    selector = stack.home / "etc/hal/selector.json"
    data = json.loads(selector.read_text())
    for entry in data["engines"]:
        if entry["name"] == SECOND:
            entry |= {"state_file": "", "start_timeout": READY}
    selector.write_text(json.dumps(data))


@pytest.mark.parametrize("exclusive", [False, True], ids=["both up", "exclusive"])
def test_vllm_and_llamacpp_change_places(
    haproxy: Any,
    engine_pack: Path,
    tiny: Path,
    vllm: Path,  # noqa: F811
    loaded: LoadedSpec,  # noqa: F811
    exclusive: bool,
) -> None:
    asked = f"{{wait: {READY:g}, drain: 60, queue: 512, exclusive: {str(exclusive).lower()}}}"
    with pair(haproxy, engine_pack, tiny, selector=asked) as stack:
        with_vllm(stack, vllm, loaded)
        unit = stack.home / "units" / FIRST
        unit.write_text(unit.read_text().replace("LLAMACPP_PARALLEL=1", "LLAMACPP_PARALLEL=8"))
        for name in ("control", "gateway", "selector"):
            stack.start(name)
        wait_for(lambda: active(stack) == FIRST, "llama.cpp serves", READY)
        question = ask(stack.url, STREAM)
        if not exclusive:
            wait_for(lambda: healthy(stack, SECOND), "vLLM is up", READY)
        took: dict[str, list[float]] = {FIRST: [], SECOND: []}
        with Load(stack.url, question, SHORT, patience=READY + 60) as clients:
            wait_for(lambda: clients.done > 48, "the clients have begun", READY)
            began = time.monotonic()
            for number in range(SWITCHES):
                time.sleep(max(0.0, began + number * SECONDS / SWITCHES - time.monotonic()))
                name = (SECOND, FIRST)[number % 2]
                at, before = time.monotonic(), clients.done
                control(stack, "switch", engine=name)
                wait_for(lambda name=name: active(stack) == name, f"{name} serves", READY)
                took[name].append(time.monotonic() - at)
                wait_for(lambda before=before: clients.done > before + 48, "the clients go on", READY)
        report = clients.report()
        print(f"\n{SWITCHES} switches of vLLM and llama.cpp, exclusive: {exclusive}: {report.words()}")
        for name, seconds in took.items():
            words = f"{min(seconds):.2f} to {max(seconds):.2f} s"
            print(f"  to {'vLLM' if name == SECOND else 'llama.cpp'}: {words}")
        assert not report.failed
