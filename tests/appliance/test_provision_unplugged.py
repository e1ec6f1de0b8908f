"""The first boot without a network: what is in the image serves, what is missing comes when there is one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build, Image
from tests.appliance.provisioning import (
    MIB,
    Mirror,
    Model,
    active_since,
    ollama_model,
    padded,
    provision_status,
    unplugged,
    wait_status,
)
from tests.conftest import Archive
from tests.misbehaving.registry import add_tag
from tests.misbehaving.server import misbehaving_server

UNPLUGGED = 4.0
"""Seconds without a network, with KVM: a boot is long over then."""

RECORDER = """
import json, time, urllib.request
while True:
    row = {"provision": json.load(open("/run/hal/provisioner/status.json"))}
    try:
        with urllib.request.urlopen("http://127.0.0.1:7001/api/v1/inference/status", timeout=5) as answer:
            row["gateway"] = json.load(answer)
    except OSError as error:
        row["gateway"] = {"error": str(error)}
    with open("/tmp/record", "a") as file: file.write(json.dumps(row) + chr(10))
    time.sleep(1)
"""
"""Looks at the status once a second, also while nobody can reach the guest."""


def wait_unplugged(appliance: Appliance) -> float:
    """Seconds since the start at which the cable is plugged in again."""
    time.sleep(UNPLUGGED * appliance.plan.accelerator.deadline_factor)
    plugged = appliance.vm.uptime
    appliance.vm.set_link(True)
    return plugged


def test_what_is_in_the_image_serves_at_once(image: Image, boot_image: Boot) -> None:
    with boot_image(image) as appliance:
        unplugged(appliance)
        plugged = wait_unplugged(appliance)
        appliance.wait_ready(30)
        host = appliance.ssh()
        served = active_since(host, "llamacpp")
        print(f"served after {served:.1f} s, plugged in after {plugged:.1f} s")
        assert served < plugged
        assert appliance.openai().completions.create(model="tiny", prompt="Hi", max_tokens=4).choices


@dataclass(frozen=True)
class World:
    """An image with Ollama and models that come by network: a GGUF, one of its registry, and a large one."""

    image: Image
    mirror: Mirror
    large: Model


@pytest.fixture(scope="module")
def world(build_image: Build, ollama: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("unplugged")
    weights = tiny_model.write(directory / "tiny.gguf").read_bytes()
    with misbehaving_server() as server:
        mirror = Mirror(server)
        tiny = Model("tiny", {"tiny.gguf": weights})
        own = ollama_model(
            "own", add_tag(server, "library/own", "tiny", {"model": padded(weights, MIB, "own")})
        )
        large = Model("large", {"large.gguf": padded(weights, 12 * MIB, "large")})
        mirror.add(tiny, large)
        engines = f"[{{ollama: {{version: {ollama.version}}}}}]"
        spec = directory / "unplugged.yaml"
        spec.write_text(mirror.spec("unplugged", tiny, own, large, engines=engines, state="512M"))
        yield World(build_image(spec, ollama.option), mirror, large)


def states(row: dict[str, Any]) -> dict[str, str]:
    return {model["name"]: model["state"] for model in row["provision"]["models"]}


def test_ollama_says_what_is_missing_and_gets_it_when_the_network_returns(
    world: World, boot_image: Boot
) -> None:
    world.mirror.pace(400_000)
    with boot_image(world.image) as appliance:
        unplugged(appliance)
        plugged = wait_unplugged(appliance)
        host = appliance.ssh()
        assert active_since(host, "ollama") < plugged, "it is up without a network and without a model"
        assert active_since(host, "hal-provision") < plugged
        before = provision_status(host)
        print({name: (model["state"], model["reason"], model["attempts"]) for name, model in before.items()})
        assert before["large"]["state"] != "ready"
        files = {model.name: len(model.files) for model in world.image.loaded.models}
        assert all(model["attempts"] <= files[name] for name, model in before.items()), (
            "one for each file, and none without a network"
        )
        pids = {
            unit: host.check_output(f"systemctl show -P MainPID {unit}")
            for unit in ("ollama", "hal-provision")
        }

        host.check_output("systemd-run --unit=recorder --quiet python3 -c %s", RECORDER)
        wait_status(appliance, host, lambda found: found["large"]["bytes"] > 2 * MIB, "a part of the model")
        appliance.vm.set_link(False)
        wait_unplugged(appliance)
        world.mirror.pace(None)
        ready = lambda found: {model["state"] for model in found.values()} == {"ready"}  # noqa: E731
        found = wait_status(appliance, host, ready, "all models", 60)
        appliance.wait_ready(30)

        record = [json.loads(line) for line in host.check_output("cat /tmp/record").splitlines()]
        away = [row for row in record if states(row)["large"] == "waiting"]
        assert away, "while the cable was out it waited"
        large = next(model for model in away[-1]["provision"]["models"] if model["name"] == "large")
        assert large["reason"] == "there is no network"
        shown = {model["name"]: model for model in away[-1]["gateway"]["models"]}
        print("shown without a network:", json.dumps(shown["large"]))
        assert shown["large"]["state"] == "waiting" and "large" in shown["large"]["reason"]
        fetched = found["large"]["fetched"]  # what the mirror has sent lies in buffers on the way, too
        print(f"{fetched} bytes fetched of a model of {world.large.size}")
        assert fetched < world.large.size * 1.01, "it went on where it was"

        listing = (
            'import urllib.request as u; print(u.urlopen("http://127.0.0.1:11434/api/tags").read().decode())'
        )

        def listed() -> bool:
            names = {
                model["name"] for model in json.loads(host.check_output("python3 -c %s", listing))["models"]
            }
            return names == {"tiny:latest", "own:latest", "large:latest"}

        appliance.vm.wait(listed, appliance.deadline(60), "Ollama's list")
        blobs = host.check_output("ls -l /var/lib/hal/ollama/models/blobs")
        assert "-> /srv/models/own/blobs/sha256-" in blobs, "no copy of what is in Ollama's own form"
        for unit, pid in pids.items():
            assert host.check_output(f"systemctl show -P MainPID {unit}") == pid, f"{unit} was restarted"
            assert host.check_output(f"systemctl show -P NRestarts {unit}") == "0"
        for name in ("tiny", "own"):
            answer = appliance.openai().completions.create(model=name, prompt="Hi", max_tokens=4)
            assert answer.choices[0].text
