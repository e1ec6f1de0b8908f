"""Running the image's checks: pytest over `tests/appliance`, on the appliance of a spec."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hal.errors import HalError
from hal.inputs import GivenBuildroot
from hal.run import spawn

PROJECT = Path(__file__).resolve().parent.parent
CHECKS = PROJECT / "tests" / "appliance"


def run_checks(
    spec: str,
    out: Path,
    expression: str | None,
    artifacts: Sequence[str] = (),
    buildroot: GivenBuildroot | None = None,
) -> int:
    """Boot the built appliance of `spec` and run the checks in it; gives pytest's exit status.

    `buildroot` is what a Buildroot base was built with.

    Raises:
        HalError: the checks or pytest are not installed (they come with a checkout, not with the wheel).
    """
    if not CHECKS.is_dir():
        raise HalError(f"{CHECKS}: the checks are not here", "run it in a checkout of hal")
    argv = [
        sys.executable,
        "-m",
        "pytest",
        str(CHECKS),
        "-m",
        "appliance",
        f"--spec={spec}",
        f"--out={out.absolute()}",
    ]
    argv += [f"--artifact={value}" for value in artifacts]
    if expression:
        argv += ["-k", expression]
    kept = {name: os.environ[name] for name in ("HAL_CACHE", "TERM") if name in os.environ}
    if buildroot is not None:
        kept |= buildroot.variables()
    process = spawn(argv, env=kept, cwd=PROJECT, stdin=subprocess.DEVNULL)
    return process.wait()
