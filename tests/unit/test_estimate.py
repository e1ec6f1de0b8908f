"""A disk's size, told before anything is built, is near the size of the disk that is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.lock.file import load_lock
from hal.profiles.estimate import disk_size
from hal.spec.loading import load_spec, parse_spec

MIB = 1 << 20

BUILT = {"starter": 341, "vllm-cpu": 1038, "vllm-gpu": 4958}
"""MiB of disks that were built: root and EFI partition, packs, and the state partition."""


@pytest.mark.parametrize("profile", BUILT)
def test_it_is_near_what_was_built(profile: str) -> None:
    found = disk_size(load_spec(profile), load_lock())
    assert found is not None
    assert found / MIB == pytest.approx(BUILT[profile], rel=0.1)


def test_an_archive_of_unknown_size_is_not_guessed_at() -> None:
    text = (
        "appliance: {name: old, version: '1'}\nvariant: debug\nengines: {ollama: {version: 0.12.3}}\n"
        "models: [smollm2-135m]\ndisk: {state: 1G}\n"
    )
    assert disk_size(parse_spec(text, Path("old.yaml")), load_lock()) is None
