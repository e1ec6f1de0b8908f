"""Wheel sets: a package with all that it needs, for a Python of its own, resolved together.

uv resolves, for the Python of the pack and not for the one that runs hal; nothing is downloaded for that.
Source: PEP 751 (pylock.toml), which is what uv writes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from hal.errors import HalError
from hal.fetch import pypi
from hal.lock.file import Wheel
from hal.run import run

GLIBC = 40
"""The newest glibc that wheels may ask for: Debian 13 has 2.41, and uv knows platforms up to 2.40."""

_PLATFORM = f"x86_64-manylinux_2_{GLIBC}"


class WheelSetWanted(BaseModel):
    """A wheel set that is asked for.

    `require` are requirements as pip has them; `without` maps projects that are left out to the reason;
    `python` is the version of the runtime that the wheels are for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    version: str
    python: str
    require: list[str]
    without: Mapping[str, str] = {}

    @property
    def key(self) -> str:
        """What the lock calls the set."""
        return f"{self.name}=={self.version}"


def resolve_wheel_set(wanted: WheelSetWanted) -> tuple[Wheel, ...]:
    """Every wheel of a set, without those that it is to be without, in the order of their projects.

    Raises:
        HalError: uv is missing, or the set cannot be satisfied from what pip is configured with.
    """
    with tempfile.TemporaryDirectory() as directory:
        lock, requirements = Path(directory, "pylock.toml"), Path(directory, "requirements.in")
        requirements.write_text("\n".join(wanted.require) + "\n")
        command = [
            *(_uv(), "pip", "compile", "--quiet", "--no-config", "--only-binary", ":all:"),
            *("--python-version", wanted.python, "--python-platform", _PLATFORM),
            *("--default-index", pypi.index_url(), *_elsewhere(wanted)),
            *("--format", "pylock.toml", "--output-file", str(lock), str(requirements)),
        ]
        done = run(command, check=False, what="uv (resolving wheels)")
        if done.returncode != 0:
            raise HalError(
                f"the wheels of {wanted.key} cannot be resolved",
                "builds that PyPI does not have come from an index or a directory that pip is told of: "
                "`pip config set global.extra-index-url URL` or `global.find-links PLACE`",
                details=tuple(f"  | {line.strip()}" for line in done.stderr.splitlines()[:6]),
            )
        packages: Sequence[Mapping[str, Any]] = tomllib.loads(lock.read_text())["packages"]
    return tuple(_wheel(package) for package in packages if package["name"] not in wanted.without)


def _uv() -> str:
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise HalError(
            "uv is not installed; it resolves sets of wheels", f"{sys.executable} -m pip install uv"
        )
    return found


def _elsewhere(wanted: WheelSetWanted) -> Iterator[str]:
    """uv's options for the places that pip is told of besides its index.

    Only for sets that ask for a local version: others would get `2.13.0+cpu` as the newest 2.13.0.
    """
    if not any("+" in requirement for requirement in wanted.require):
        return
    for place in pypi.find_links():
        yield from ("--find-links", place)
    for url in pypi.extra_indexes():
        yield from ("--index", url)
        yield from ("--index-strategy", "unsafe-best-match")


def _wheel(package: Mapping[str, Any]) -> Wheel:
    """The wheel of one package of a pylock; uv lists only those that fit, the best of them is taken."""
    project, version = package["name"], package["version"]
    wheels = package.get("wheels", [])
    if not wheels:
        raise HalError(f"{project} {version} has no wheel that fits Python and platform")
    names = {unquote(urlsplit(wheel["url"]).path.rpartition("/")[2]): wheel for wheel in wheels}
    name = pypi.best_wheel(names)
    wheel = names[name]
    # PyPI takes no local versions (PEP 440), so what has one must come from elsewhere.
    kind = "index" if "+" in version else "pypi"
    size = wheel.get("size") or _size(wheel["url"])
    return Wheel(name, wheel["hashes"]["sha256"], size, f"{kind}:{project}=={version}")


def _size(url: str) -> int:
    parts = urlsplit(url)
    return Path(unquote(parts.path)).stat().st_size if parts.scheme == "file" else pypi.length(url)
