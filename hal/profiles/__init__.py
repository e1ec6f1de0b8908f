"""Profiles: appliance files that hal ships, ready to build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hal import plugins

DIRECTORY = Path(__file__).parent


@dataclass(frozen=True)
class Profile:
    """A profile: its name, and in one line what it is (the first line of its file, a comment)."""

    name: str
    summary: str


def profile_names() -> tuple[str, ...]:
    """Names of the profiles, sorted."""
    return plugins.available(DIRECTORY)


def profile_path(name: str) -> Path:
    """The appliance file of a profile."""
    return DIRECTORY / f"{name}.yaml"


def list_profiles() -> tuple[Profile, ...]:
    """The profiles, sorted by name."""
    return tuple(Profile(name, _summary(profile_path(name))) for name in profile_names())


def _summary(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    return first.removeprefix("#").strip() if first.startswith("#") else ""
