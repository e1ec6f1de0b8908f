"""Which GPU an engine of an appliance computes on, and the device nodes that this takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hal.engines import Engine

if TYPE_CHECKING:
    from hal.spec.model import EngineChoice


@dataclass(frozen=True)
class Gpu:
    """A make of GPU: nodes that must be there (a directory: not empty), and what systemd lets through.

    `allowed` are values of `DeviceAllow=` (systemd.resource-control(5)); names after `char-` are those of
    /proc/devices.
    """

    kind: str
    nodes: tuple[str, ...]
    allowed: tuple[str, ...]


NVIDIA = Gpu("nvidia", ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm"), ("char-nvidia* rw",))
AMD = Gpu("amd", ("/dev/kfd", "/dev/dri"), ("/dev/kfd rw", "char-drm rw"))
INTEL = Gpu("intel", ("/dev/dri",), ("char-drm rw",))

BY_NAME: dict[str, Gpu | None] = {
    "nvidia": NVIDIA,
    "cuda": NVIDIA,
    "amd": AMD,
    "rocm": AMD,
    "intel": INTEL,
    "xpu": INTEL,
    "none": None,
    "cpu": None,
}
"""What the value of an engine's GPU setting means."""


def gpu_of(engine: Engine, choice: EngineChoice) -> Gpu | None:
    """The GPU that an engine is asked to compute on; None where it is to use none."""
    resources = engine.resources
    if resources.gpu_setting is not None:
        setting = engine.settings[resources.gpu_setting]
        return BY_NAME.get(str(choice.settings.get(resources.gpu_setting, setting.default)), NVIDIA)
    return NVIDIA if resources.gpu == "required" else None
