"""docs/exposure.md is what the units say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hal.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_not_stale(tools: Sandbox) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/exposure_table"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
