"""Buildroot's own linter has nothing to say of the external tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.buildroot.conftest import EXTERNAL

NEEDED = ("magic", "flake8")
"""Without these it checks less than it should; shellcheck is there with the other linters."""


def files() -> list[str]:
    """All files of the tree but hal's services, which are linted where they are."""
    found = [Path(directory) / name for directory, _, names in os.walk(EXTERNAL) for name in names]
    return sorted(str(path) for path in found if not path.is_symlink())


def test_no_warnings(buildroot: Path) -> None:
    for module in NEEDED:
        pytest.importorskip(module, reason=f"check-package needs {module}: scripts/bootstrap --dev")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "utils/check-package", "-v", "-b", *files()],
        cwd=buildroot,  # its settings of flake8 are there
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 warnings generated" in done.stdout + done.stderr
