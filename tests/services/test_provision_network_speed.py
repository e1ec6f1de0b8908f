"""What a transfer costs, as `scripts/bench_provision` measures it: its rate beside curl's, and its memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl to compare with")
def test_a_gigabyte_comes_at_four_fifths_of_curls_rate_in_80_megabytes() -> None:
    argv = [sys.executable, str(ROOT / "tests/bench/bench_provision.py"), "--runs", "3", "--json"]
    runs = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)["runs"]
    curl = [run["seconds"] for run in runs["curl | sha256sum"]]
    for name in ("the provisioner's transfer", "hal-provision run --once"):
        ours = [run["seconds"] for run in runs[name]]
        assert max(theirs / mine for theirs, mine in zip(curl, ours, strict=True)) >= 0.8, runs
        assert all(run["memory"] < 80e6 for run in runs[name]), runs
