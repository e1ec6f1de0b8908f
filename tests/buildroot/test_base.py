"""hal's Buildroot base against a real tree: what Kconfig does not take is refused, nothing is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

SPEC = """\
appliance: {name: proven, version: 1.0.0}
base: buildroot
engines: [llamacpp]
models: [smollm2-135m]
buildroot: {config: [LINES]}
"""


def build(buildroot: Path, directory: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """`hal build` of a spec with further lines of configuration."""
    spec = directory / "proven.yaml"
    spec.write_text(SPEC.replace("LINES", ", ".join(f"'{line}'" for line in lines)))
    command = [sys.executable, "-m", "hal.cli", "build", str(spec), "--out", str(directory / "out")]
    done = subprocess.run(
        [*command, "--offline", "--buildroot", str(buildroot)], cwd=PROJECT, capture_output=True, text=True
    )
    if "neither cached nor in a local mirror" in done.stderr:
        pytest.skip(
            "the host tools of Buildroot are not in the cache: build one with `base: buildroot` first"
        )
    return done


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        ("BR2_PACKAGE_OPENSSHD=y", ["there is no such symbol: did you mean BR2_PACKAGE_OPENSSH?"]),
        ("BR2_PACKAGE_XSERVER_XORG_SERVER=y", ["needs BR2_PACKAGE_XORG7, which is not so"]),
        ("# BR2_PACKAGE_PYTHON3 is not set", ["it is selected by BR2_PACKAGE_HAL_OS"]),
    ],
)
def test_a_line_that_kconfig_does_not_take_is_refused_with_the_reason(
    line: str, reasons: list[str], buildroot: Path, tmp_path: Path
) -> None:
    done = build(buildroot, tmp_path, line)
    assert done.returncode == 2, done.stderr
    told = [text.strip() for text in done.stderr.splitlines()]
    at = next(number for number, text in enumerate(told) if text.startswith(line))
    assert told[at].endswith(", from buildroot.config[0]:")
    assert [reason for reason in reasons if reason not in told[at + 1 :]] == []
    assert not (tmp_path / "out" / "proven").exists()


def test_another_release_is_refused(buildroot: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text("export BR2_VERSION := 2025.02\n")
    done = build(tree, tmp_path)
    assert done.returncode == 2
    assert "this is Buildroot 2025.02, hal goes by 2026.02.3" in done.stderr
