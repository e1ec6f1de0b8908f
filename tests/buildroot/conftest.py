"""Checks of buildroot-external/ with Buildroot's own tools.

They need a tree of Buildroot: HAL_BUILDROOT=DIR, or `make check-buildroot BUILDROOT=DIR`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
EXTERNAL = PROJECT / "buildroot-external"
DEFCONFIGS = sorted(path.name for path in (EXTERNAL / "configs").glob("*_defconfig"))
PACKAGES = sorted(path.name for path in (EXTERNAL / "package").iterdir() if path.is_dir())


@dataclass(frozen=True)
class Output:
    """An output directory of Buildroot with a configuration in it."""

    directory: Path

    @property
    def config(self) -> str:
        """The text of its .config."""
        return (self.directory / ".config").read_text()

    def make(self, *targets: str) -> str:
        """What making targets prints; a failure is the test's."""
        return run(["make", "-s", "-C", str(self.directory), *targets])


def run(argv: Sequence[str], **options: object) -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return str(done.stdout)


@pytest.fixture(scope="session")
def buildroot() -> Path:
    """A tree of Buildroot."""
    given = os.environ.get("HAL_BUILDROOT", "")
    if not given:
        pytest.skip("no tree of Buildroot: HAL_BUILDROOT=DIR, or make check-buildroot BUILDROOT=DIR")
    tree = Path(given).resolve()
    assert (tree / "support/kconfig").is_dir(), f"HAL_BUILDROOT={given}: no tree of Buildroot"
    return tree


@pytest.fixture(scope="session")
def configured(buildroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Output]:
    """The output directory for a defconfig of the external tree, or for lines of one's own."""
    made: dict[str, Output] = {}

    def configure(defconfig: str) -> Output:
        if defconfig not in made:
            output = Output(tmp_path_factory.mktemp("output"))
            argv = ["make", "-s", "-C", str(buildroot), f"O={output.directory}", f"BR2_EXTERNAL={EXTERNAL}"]
            if defconfig.endswith("_defconfig"):
                run([*argv, defconfig])
            else:
                lines = output.directory / "lines"
                lines.write_text(defconfig)
                run([*argv, f"BR2_DEFCONFIG={lines}", "defconfig"])
            made[defconfig] = output
        return made[defconfig]

    return configure
