"""Power cuts while models come in: QEMU is killed at random instants, and the disk is looked at each time.

The disk has the model of an older image, of other weights: after each cut engines would see the old model or
the new one, whole, and the last boot ends with the new one, served.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hal.errors import HalError
from hal.machine.qemu import http_probe
from services.provisioner.disk.part import SYNC_SECONDS
from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build, Image
from tests.appliance.provisioning import MIB, Mirror, Model, StatePartition, padded, pins
from tests.misbehaving.server import misbehaving_server

SEED = 20261122
PACE = 2_000_000
LONGEST = 14.0
"""Seconds from a boot's first request up to which the power may be cut: some come after the end."""


@dataclass(frozen=True)
class World:
    """Two images that differ in the weights of their one model, and a state partition with the old ones."""

    image: Image
    mirror: Mirror
    old: Model
    new: Model
    state: Path


@pytest.fixture(scope="module")
def world(build_image: Build, boot_image: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("power")
    weights = tiny_model.write(directory / "tiny.gguf").read_bytes()
    old, new = (
        Model("weights", {"weights.gguf": weights, "more.gguf": padded(weights, size * MIB, which)})
        for which, size in (("old", 8), ("new", 16))
    )
    with misbehaving_server() as server:
        mirror = Mirror(server)
        mirror.add(old, new)
        images = {}
        for name, model in (("cuts-old", old), ("cuts-new", new)):
            spec = directory / f"{name}.yaml"
            spec.write_text(mirror.spec(name, model))
            images[name] = build_image(spec)
        with boot_image(images["cuts-old"], directory=directory / "run") as appliance:
            appliance.wait_ready(40)
        state = StatePartition(appliance.plan.files.disk, images["cuts-old"].tools)
        assert state.visible("weights", directory) == pins(old)
        yield World(images["cuts-new"], mirror, old, new, state.copy(directory / "old-state.img"))


class Series:
    """One disk through many power cuts."""

    def __init__(self, world: World, boot_image: Boot, directory: Path, seed: int) -> None:
        self.world, self.boot_image, self.directory = world, boot_image, directory
        self.random = random.Random(seed)
        self.cuts = self.completed = 0
        self.begin()

    def begin(self) -> None:
        """A new image on a disk with the old model."""
        with self.boot_image(self.world.image, directory=self.directory / "run") as appliance:
            appliance.vm.cut_power()
        self.disk = StatePartition(appliance.plan.files.disk, self.world.image.tools)
        self.disk.replace(self.world.state)

    def cut(self) -> None:
        """Boot, cut the power at some instant, and look."""
        asked = len(self.world.mirror.server.requests)
        with self.boot_image(self.world.image, directory=self.directory / "run") as appliance:
            if self.random.random() < 0.2:
                where = "while it boots"
                instant = self.random.uniform(1, 8)
            else:
                where = "after its first request"
                self.wait_for_request(appliance, asked)
                instant = self.random.uniform(0, LONGEST)
            time.sleep(instant)
            served = http_probe(appliance.plan.port)()
            appliance.vm.cut_power()
        self.cuts += 1
        found = self.disk.visible("weights", self.directory)
        old, new = pins(self.world.old), pins(self.world.new)
        which = "new" if found == new else "old" if found == old else "NONE"
        print(f"cut {self.cuts}: {instant:.1f} s {where}: {which} is visible, served: {served}", flush=True)
        assert found in (old, new), "the old model or the new one, whole"
        assert not served or found == new, "old weights are never served by the new image"
        if found == new:
            self.completed += 1

    def wait_for_request(self, appliance: Appliance, asked: int) -> None:
        """Return when something is asked for; where all is there already, after a while."""
        try:
            appliance.vm.wait(
                lambda: len(self.world.mirror.server.requests) > asked, appliance.deadline(3), "a request"
            )
        except HalError:
            appliance.vm.check()

    def finish(self) -> None:
        """Boot once more, undisturbed."""
        self.world.mirror.pace(None)
        with self.boot_image(self.world.image, directory=self.directory / "run") as appliance:
            appliance.wait_ready(40)
            models = {model["name"]: model["state"] for model in appliance.status()["models"]}
            assert models == {"weights": "ready"}
        assert self.disk.visible("weights", self.directory) == pins(self.world.new)


def series(world: World, boot_image: Boot, directory: Path, seed: int, cuts: int) -> Series:
    world.mirror.pace(PACE)
    found, sent, rounds = Series(world, boot_image, directory, seed), world.mirror.sent(world.new), 1
    for _ in range(cuts):
        if found.completed == rounds:
            rounds += 1
            found.begin()
        found.cut()
    found.finish()
    again = world.mirror.sent(world.new) - sent - rounds * world.new.size
    print(f"{cuts} cuts, {rounds} rounds, {again} bytes fetched again ({again / cuts / PACE:.1f} s a cut)")
    assert again <= cuts * (SYNC_SECONDS + 3) * PACE, "what was synced is not fetched again"
    return found


def test_a_few_power_cuts(world: World, boot_image: Boot, tmp_path: Path) -> None:
    found = series(world, boot_image, tmp_path, SEED, 4)
    resumed = [request for request in world.mirror.server.requests if request.range]
    assert found.cuts == 4 and resumed, "it goes on where it was"


@pytest.mark.large
def test_fifty_power_cuts(world: World, boot_image: Boot, tmp_path: Path) -> None:
    found = series(world, boot_image, tmp_path, SEED + 1, 50)
    assert found.cuts == 50
