"""A spec asks for a GPU and the machine has none: a plain failure, never a silent run on the CPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hal.profiles import profile_path
from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build
from tests.conftest import Archive

NODES = "/dev/nvidiactl, /dev/nvidia0, /dev/nvidia-uvm"
REFUSAL = f"no GPU: the device nodes {NODES} missing (the spec asks for nvidia); not run without it"
SECONDS = 5
"""From the unit's start to its failure, with KVM."""

STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
"""SD_MESSAGE_UNIT_STARTING (sd-messages.h): the words differ with systemd's build."""


def it_fails_within_seconds_and_names_the_nodes(appliance: Appliance, engine: str, program: str) -> None:
    """The journal, the unit's status and the appliance's status say why; `program` runs nowhere."""
    appliance.wait_gateway()
    seen: list[dict[str, object]] = []

    def told() -> bool:
        seen.append(appliance.status())
        return "no GPU" in str(seen[-1].get("reason", ""))

    appliance.vm.wait(told, appliance.deadline(10), "the status that says why")
    assert seen[-1]["healthy"] is False
    assert NODES in str(seen[-1]["reason"])
    host = appliance.ssh()
    lines = host.check_output(f"journalctl --no-pager --output=json --unit={engine}").splitlines()
    journal = [(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6, entry) for entry in map(json.loads, lines)]
    started = next(when for when, entry in journal if entry.get("MESSAGE_ID") == STARTING)
    refused = next(when for when, entry in journal if REFUSAL in entry["MESSAGE"])
    failed = next(when for when, entry in journal if "Failed with result 'exit-code'" in entry["MESSAGE"])
    assert started <= refused <= failed
    print(f"{engine}: failed {failed - started:.1f} s after its start")
    assert failed - started < appliance.deadline(SECONDS).seconds
    # systemd empties the text at each new try, so it is there most of the time, not always.
    appliance.vm.wait(
        lambda: "no GPU" in host.check_output(f"systemctl show --property=StatusText {engine}"),
        appliance.deadline(10),
        "the unit's status text",
    )
    assert host.run(f"pgrep --uid {engine} --full '{program}'").stdout == "", "nothing ran on the CPU"
    assert appliance.get("/health").status_code == 503
    assert appliance.get("/v1/models").json()["error"]["code"] == "no_engine_expected"


def test_the_unit_fails_within_seconds_and_names_the_nodes(
    build_image: Build, write_spec: Callable[..., Path], ollama: Archive, boot_image: Boot
) -> None:
    engines = f"[{{ollama: {{version: {ollama.version}, settings: {{gpu: nvidia}}}}}}]"
    image = build_image(
        write_spec("tiny-gpu", engines=engines, more="disk: {state: 256M}\nselector: {wait: 2}\n"),
        ollama.option,
    )
    with boot_image(image) as appliance:
        it_fails_within_seconds_and_names_the_nodes(appliance, "ollama", "ollama serve")


@pytest.mark.large
def test_the_vllm_unit_of_the_profile_for_gpus_does_so(
    tmp_path: Path, build_image: Build, boot_image: Boot
) -> None:
    """The profile `vllm-gpu` with vLLM's wheels for CUDA; only its weights are the tests' own."""
    profile = yaml.safe_load(profile_path("vllm-gpu").read_text())
    files = [
        {
            "name": file.name,
            "size": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "source": {"kind": "file", "path": f"tiny/{file.name}"},
        }
        for file in sorted(tiny_model.write_safetensors(tmp_path / "tiny").iterdir())
    ]
    profile["appliance"]["name"] = "tiny-vllm-gpu"
    profile["models"] = [{"name": "tiny", "format": "safetensors", "files": files}]
    profile["machine"]["memory"] = "4G"
    profile["selector"] = {"wait": 2}  # seconds that a request waits for an engine
    spec = tmp_path / "tiny-vllm-gpu.yaml"
    spec.write_text(yaml.safe_dump(profile))
    with boot_image(build_image(spec)) as appliance:
        it_fails_within_seconds_and_names_the_nodes(appliance, "vllm", "python3.11")
