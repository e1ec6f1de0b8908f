"""The linters are tests: `make lint` runs this file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PLACES = (".ci", "hal", "services", "scripts", "tests", "buildroot-external")
BESIDE_PYTHON = Path(sys.executable).parent
"""Where the linters of this virtual environment are."""

_SHELL = re.compile(rb"#!\s*/\S*?(?:env\s+)?\b(?:ba|da)?sh\b")


def linter(name: str) -> str:
    """The path of a linter, or a skip with the reason."""
    found = shutil.which(name, path=f"{BESIDE_PYTHON}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: `scripts/bootstrap --dev` brings it")
    return found


def run(*argv: str) -> None:
    """Run a linter in the project; what it prints is the failure."""
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{Path(argv[0]).name} {' '.join(argv[1:])}\n{done.stdout}{done.stderr}", pytrace=False)


def shell_files() -> list[str]:
    """Every file of the project whose first line names a POSIX shell or bash."""
    found = []
    for place in PLACES:
        for path in sorted((PROJECT / place).rglob("*")):
            # A template is no shell yet: what is rendered from it is checked in tests/render.
            if path.is_file() and not path.is_symlink() and path.suffix != ".j2":
                with path.open("rb") as file:
                    if _SHELL.match(file.readline(100)):
                        found.append(str(path.relative_to(PROJECT)))
    return found


def test_shell_files_are_found() -> None:
    assert {".ci/run", "scripts/bootstrap", "hal/bases/debian-finish.sh"} <= set(shell_files())


def test_ruff_check() -> None:
    run(linter("ruff"), "check", "--quiet", ".")


def test_ruff_format() -> None:
    run(linter("ruff"), "format", "--quiet", "--diff", ".")


def test_mypy() -> None:
    run(linter("mypy"), "--no-error-summary")


def test_shellcheck() -> None:
    run(linter("shellcheck"), *shell_files())
