"""What an engine cannot run without, looked at before it is started: each thing has its own message."""

from __future__ import annotations

import os
import stat

from .config import AwaitedError, Config, LaunchError, Model, missing

BOOT_REPORT = "/run/hal/boot.json"
LOOPBACK = ("127.0.0.1", "::1")


def check(config: Config) -> None:
    """Return when the engine can be started.

    Raises:
        LaunchError: a device node is missing, or a model that the engine cannot start without.
    """
    if config.host not in LOOPBACK:
        raise LaunchError(f"{config.host}: engines listen on loopback only")
    absent = [path for path in config.devices if not _is_device(path)]
    if absent:
        listed = ", ".join(absent)
        noun = "device node" if len(absent) == 1 else "device nodes"
        raise LaunchError(f"no GPU: the {noun} {listed} missing ({config.device_reason}); not run without it")
    for model in config.models:
        if model.arrived or not config.binds_late:
            check_model(model)
    program = config.command[0]
    if not program.startswith("/"):
        raise LaunchError(f"{program}: not an absolute path")
    if missing(program):
        raise LaunchError(f"{program} is missing: the engine's pack is not mounted ({BOOT_REPORT} says why)")


def check_model(model: Model) -> None:
    """Return when an engine can open the model.

    Raises:
        LaunchError: it has not arrived, or is not where it should be.
    """
    if not model.arrived:
        raise AwaitedError(
            f"the model {model.name} has not arrived; `hal-provision status` says how far it is"
        )
    if missing(model.path):
        why = "`hal-provision status`" if model.marker else BOOT_REPORT
        what = "it was taken away again" if model.marker else "its pack is not mounted"
        raise LaunchError(f"the model {model.name} is not at {model.path}: {what} ({why} says why)")


def _is_device(path: str) -> bool:
    """Whether `path` is a device node, or a directory of them (drivers may number theirs)."""
    try:
        found = os.stat(path)  # noqa: PTH116
        if stat.S_ISDIR(found.st_mode):
            return bool(os.listdir(path))  # noqa: PTH208
        return stat.S_ISCHR(found.st_mode)
    except OSError:
        return False
