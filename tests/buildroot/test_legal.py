"""show-info and legal-info work.

legal-info downloads every source. It needs a configured output directory whose downloads are there, as a
build leaves it (HAL_BUILDROOT_OUTPUT=DIR).
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.buildroot.conftest import DEFCONFIGS, PACKAGES, Output


@pytest.mark.parametrize("defconfig", DEFCONFIGS)
def test_show_info(defconfig: str, configured: Callable[[str], Output]) -> None:
    info = json.loads(configured(defconfig).make("show-info"))
    assert {"hal-appliance", "hal-haproxy", "llamacpp-server", "linux", "python3"} <= info.keys()
    for name in set(PACKAGES) & info.keys():
        assert info[name]["licenses"] or info[name].get("virtual"), f"{name} has no licence"


def test_legal_info() -> None:
    given = os.environ.get("HAL_BUILDROOT_OUTPUT", "")
    if not given:
        pytest.skip("no built output directory with its downloads: HAL_BUILDROOT_OUTPUT=DIR")
    output = Path(given).resolve()
    done = subprocess.run(["make", "-C", output, "legal-info"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (output / "legal-info/manifest.csv").open() as file:
        listed = {row["PACKAGE"]: row for row in csv.DictReader(file)}
    ours = set(PACKAGES) & listed.keys()
    assert "hal-haproxy" in ours
    assert all(listed[name]["LICENSE"] not in ("", "unknown") for name in ours)
