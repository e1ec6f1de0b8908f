"""Profiles: appliance files that hal ships, ready to build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hal.documents import plugins

DIRECTORY = Path(__file__).parent


@dataclass(frozen=True)
class Profile:
    """A profile: its name, in one line what it is (the first line of its file, a comment), and what it needs.

    `memory` in bytes; `gpu` is the make that it computes on, None for none; `disk` is the size in bytes of
    what was built of it last, None where nothing was, and `estimate` what it will be, about, from the lock.
    """

    name: str
    summary: str
    memory: int
    cpus: int
    gpu: str | None
    disk: int | None
    estimate: int | None


def profile_names() -> tuple[str, ...]:
    """Names of the profiles, sorted."""
    return plugins.available(DIRECTORY)


def profile_path(name: str) -> Path:
    """The appliance file of a profile."""
    return DIRECTORY / f"{name}.yaml"


def list_profiles(out: Path) -> tuple[Profile, ...]:
    """The profiles, sorted by name; `out` is where builds go."""
    return tuple(_profile(name, out) for name in profile_names())


def _profile(name: str, out: Path) -> Profile:
    from hal.engines.gpu import gpu_of  # here, since hal.spec looks for profiles
    from hal.lock.file import load_lock
    from hal.profiles.estimate import disk_size
    from hal.spec.loading import load_spec

    loaded = load_spec(name)
    machine, disk = loaded.spec.machine, out / loaded.spec.appliance.name / "disk.img"
    gpus = (gpu_of(engine, loaded.choice(engine)) for engine in loaded.engines)
    return Profile(
        name,
        _summary(profile_path(name)),
        machine.memory,
        machine.cpus,
        next((gpu.kind for gpu in gpus if gpu is not None), None),
        disk.stat().st_size if disk.is_file() else None,
        disk_size(loaded, load_lock()),
    )


def _summary(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    return first.removeprefix("#").strip() if first.startswith("#") else ""
