"""What an engine cannot run without, looked at before it is started: each thing has its own message."""

from __future__ import annotations

import os
import stat

from .config import Config, LaunchError, missing

BOOT_REPORT = "/run/hal/boot.json"
LOOPBACK = ("127.0.0.1", "::1")


def check(config: Config) -> None:
    """Return when the engine can be started.

    Raises:
        LaunchError: a device node or a model is missing.
    """
    if config.host not in LOOPBACK:
        raise LaunchError(f"{config.host}: engines listen on loopback only")
    absent = [path for path in config.devices if not _is_device(path)]
    if absent:
        listed = ", ".join(absent)
        noun = "device node" if len(absent) == 1 else "device nodes"
        raise LaunchError(f"no GPU: the {noun} {listed} missing ({config.device_reason}); not run without it")
    for model in config.models:
        if missing(model.path):
            raise LaunchError(
                f"the model {model.name} is not at {model.path}: "
                f"its pack is not mounted ({BOOT_REPORT} says why)"
            )
    program = config.command[0]
    if not program.startswith("/"):
        raise LaunchError(f"{program}: not an absolute path")
    if missing(program):
        raise LaunchError(f"{program} is missing: the engine's pack is not mounted ({BOOT_REPORT} says why)")


def _is_device(path: str) -> bool:
    """Whether `path` is a device node, or a directory of them (drivers may number theirs)."""
    try:
        found = os.stat(path)  # noqa: PTH116
        if stat.S_ISDIR(found.st_mode):
            return bool(os.listdir(path))  # noqa: PTH208
        return stat.S_ISCHR(found.st_mode)
    except OSError:
        return False
