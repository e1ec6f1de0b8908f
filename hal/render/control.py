"""hal-control: the small root program that starts and stops engines for the selector.

The selector runs as a user of its own, without any right over services. It writes orders into a pipe that
only its group may write; this program reads them, and accepts nothing but `start` or `stop` with the name of
one of the image's engines.
"""

from __future__ import annotations

from hal.engines.gpu import NVIDIA, gpu_of
from hal.render.files import PROGRAM, RenderedFile, text
from hal.render.sandbox import Exemption
from hal.render.selector import CONTROL
from hal.spec.loading import LoadedSpec

PROGRAM_PATH = "/usr/lib/hal/control"

ORDERS = {
    # A start takes minutes and is not waited for; a stop is done when nothing of the engine is left.
    "systemd": ('systemctl --no-block start "$2.service"', 'systemctl stop "$2.service"'),
    "sysv": ('"/etc/init.d/S96$2" start >/dev/null', '"/etc/init.d/S96$2" stop >/dev/null'),
}


def needed(loaded: LoadedSpec) -> bool:
    """Whether there is an engine that can be started and stopped."""
    return bool(loaded.engines)


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The program."""
    if not needed(loaded):
        return {}
    start, stop = ORDERS[loaded.spec.init]
    content = text(
        "control",
        loaded,
        directory=CONTROL,
        engines=[engine.name for engine in loaded.engines],
        start=start,
        stop=stop,
    ).content
    return {PROGRAM_PATH: RenderedFile(content, PROGRAM)}


def exemptions(loaded: LoadedSpec) -> dict[str, Exemption]:
    """What its unit has otherwise than all others."""
    found = {
        "PrivateDevices": Exemption(
            "no", "it looks which GPUs there are; DevicePolicy= keeps it from opening them"
        ),
        "ProcSubset": Exemption("all", "it reads how much memory there is from /proc/meminfo"),
        "RestrictAddressFamilies": Exemption("AF_UNIX", "systemd's socket is all that it talks to"),
    }
    if any(gpu_of(engine, loaded.choice(engine)) is NVIDIA for engine in loaded.engines):
        found["DeviceAllow"] = Exemption(
            "\n".join(NVIDIA.allowed), "nvidia-smi, where there is one, says how much memory GPUs have"
        )
    return found
