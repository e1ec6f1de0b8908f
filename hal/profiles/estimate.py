"""How large an appliance's disk will be, told from the lock and the spec before anything is built."""

from __future__ import annotations

from hal.cache import Cache
from hal.fetch.releases import archives
from hal.inputs import engine_artifacts
from hal.lock.file import Lock
from hal.spec.loading import LoadedSpec

MIB = 1 << 20

SYSTEM = 135 * MIB
"""EFI system partition, root and its hash tree: 134.5 MiB with systemd, 127 with init scripts, measured."""

PACKED = 1.3
"""A pack's size by what its artifacts have: 1.23 for vLLM's CUDA wheels, 1.33 for those for CPUs and 1.5 for
llama.cpp's wheel, measured. LZ4 packs less than what wheels and release archives are packed with."""

HASHES = 1 + 1 / 127
"""A hash tree's share on top of what it covers: a hash of 32 bytes for each block of 4,096, and so on."""


def disk_size(loaded: LoadedSpec, lock: Lock) -> int | None:
    """Bytes of the disk image, about; None where the size of an engine's archive is not known."""
    released = archives(loaded, {}, Cache(), offline=True)
    total = SYSTEM + loaded.spec.disk.state
    for engine in loaded.engines:
        for _, artifact, _ in engine_artifacts(lock, released, loaded, engine):
            if not artifact.size:
                return None
            total += int(artifact.size * PACKED)
    weights = sum(model.size for model in loaded.models if model.delivery == "image")
    return total + int(weights * HASHES)
