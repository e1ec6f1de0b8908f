"""Engines can take all memory but what the gateway and the selector need."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.render import Rendered, render
from hal.render.memory import engines_share
from hal.render.systemd import UNITS
from hal.spec.check import SYSTEM_MEMORY
from hal.spec.loading import LoadedSpec, parse_spec

MIB = 1 << 20


def appliance(memory: str, init: str = "systemd") -> LoadedSpec:
    text = (
        "appliance: {name: small, version: '1'}\nvariant: debug\nengines: [llamacpp]\n"
        "models: [smollm2-135m]\n"
        f"init: {init}\nmachine: {{memory: {memory}}}\n"
    )
    return parse_spec(text, Path("small.yaml"))


@pytest.mark.parametrize("memory", ["704M", "1G", "2G", "3001M", "64G", "2048G"])
def test_the_system_keeps_what_the_specs_check_counts_for_it(memory: str) -> None:
    loaded = appliance(memory)
    size, share = loaded.spec.machine.memory, engines_share(loaded)
    assert size - size * share // 100 >= SYSTEM_MEMORY
    assert size - size * (share + 1) // 100 < SYSTEM_MEMORY, "and no more is kept from the engines"


def test_an_engine_that_the_spec_allows_fits_into_its_share() -> None:
    """704M is the least that the spec's check takes for this engine and model."""
    loaded = appliance("704M")
    (engine,), (model,) = loaded.engines, loaded.models
    room = loaded.spec.machine.memory * engines_share(loaded) // 100
    assert room >= 0.98 * (engine.resources.memory + model.memory_needed)


def rendered(init: str) -> Rendered:
    return render(appliance("2G", init), [])


def test_systemd_has_one_limit_for_all_engines_and_none_by_name() -> None:
    files = rendered("systemd")
    assert "\nMemoryMax=87%\n" in files[f"{UNITS}/engines.slice"].content
    assert "MemoryMax" not in files[f"{UNITS}/llamacpp.service"].content
    for unit in ("hal-gateway", "hal-selector", "llamacpp"):
        assert "\nMemorySwapMax=0\n" in files[f"{UNITS}/{unit}.service"].content, "memory holds prompts"


def test_init_scripts_have_the_same_limit() -> None:
    files = rendered("sysv")
    assert (
        "echo $((kib * 1024 * 87 / 100)) >/sys/fs/cgroup/engines/memory.max"
        in files["/etc/init.d/rcS"].content
    )
    assert "\nGROUP=engines/llamacpp\n" in files["/etc/init.d/S96llamacpp"].content
    assert "\nGROUP=hal-gateway\n" in files["/etc/init.d/S60hal-gateway"].content
    for script in ("S60hal-gateway", "S70hal-selector", "S96llamacpp"):
        assert 'echo 0 >"$CGROUP/memory.swap.max"' in files[f"/etc/init.d/{script}"].content
