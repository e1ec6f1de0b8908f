"""How much of a machine's memory its engines may take together, whatever the init system."""

from __future__ import annotations

from hal.spec.check import SYSTEM_MEMORY
from hal.spec.loading import LoadedSpec

SLICE = "engines"
"""The control group that all engines are in: `engines.slice` with systemd, `/engines` with init scripts."""


def engines_share(loaded: LoadedSpec) -> int:
    """Per cent of the machine's memory: all but what the system itself needs (`SYSTEM_MEMORY`).

    A share and no number of bytes, so that an appliance that is started with more memory can use it. It is
    rounded down: the gateway and the selector get at least what the spec's check counts for them.
    """
    memory = loaded.spec.machine.memory
    return (memory - SYSTEM_MEMORY) * 100 // memory
