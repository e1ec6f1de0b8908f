"""Every line of the kernel's configuration survives, for every defconfig.

Needs the source of a kernel: HAL_LINUX=DIR, a tree of Linux 6.12.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from hal.bases.buildroot.prove import dropped, read_lines
from tests.buildroot.conftest import DEFCONFIGS, EXTERNAL, run

FILES = re.compile(r'BR2_LINUX_KERNEL_(?:CUSTOM_CONFIG_FILE|CONFIG_FRAGMENT_FILES)="([^"]*)"')
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}
GPU = EXTERNAL / "board/hal/linux-gpu.fragment"


def kernel_files(defconfig: str) -> list[Path]:
    """The configuration and the fragments of a defconfig, in the order in which they are merged."""
    names = " ".join(FILES.findall((EXTERNAL / "configs" / defconfig).read_text())).split()
    return [EXTERNAL / name.partition("/")[2] for name in names]


@pytest.fixture(scope="session")
def linux() -> Path:
    given = os.environ.get("HAL_LINUX", "")
    if not given:
        pytest.skip("no kernel source: HAL_LINUX=DIR, a tree of Linux 6.12")
    for tool in ("flex", "bison", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"the kernel's Kconfig needs {tool}: apt install flex bison gcc")
    return Path(given).resolve()


def configured(linux: Path, files: list[Path], arch: str, output: Path) -> str:
    """What olddefconfig makes of them."""
    merged = {line.symbol: line for file in files for line in read_lines(file.read_text(), file.name)}
    output.mkdir(parents=True, exist_ok=True)
    (output / ".config").write_text("".join(f"{line}\n" for line in merged.values()))
    run(["make", "-s", "-C", str(linux), f"O={output}", f"ARCH={arch}", "olddefconfig"])
    return (output / ".config").read_text()


@pytest.mark.parametrize("defconfig", DEFCONFIGS)
def test_every_line_survives(defconfig: str, linux: Path, tmp_path: Path) -> None:
    files = kernel_files(defconfig)
    arch = next(arch for name, arch in ARCHITECTURES.items() if name in defconfig)
    config = configured(linux, files, arch, tmp_path)
    assert dropped([line for file in files for line in read_lines(file.read_text(), file.name)], config) == []
    assert "=m\n" not in config, "the kernel is monolithic"
    assert "CONFIG_MODULES=y" not in config


def test_the_fragment_for_gpus_survives(linux: Path, tmp_path: Path) -> None:
    files = [*kernel_files("hal_x86_64_defconfig"), GPU]
    config = configured(linux, files, "x86_64", tmp_path)
    assert dropped([line for file in files for line in read_lines(file.read_text(), file.name)], config) == []


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_a_production_kernel_has_no_console(tee: str, linux: Path, tmp_path: Path) -> None:
    config = configured(linux, kernel_files(f"hal_x86_64_{tee}_defconfig"), "x86_64", tmp_path)
    assert not re.search(
        r"^CONFIG_(SERIAL_\w*CONSOLE|VT|HVC_DRIVER|VIRTIO_CONSOLE|KVM|X86_SGX)=y", config, re.M
    )
    assert "CONFIG_TSM_REPORTS=y" in config
    assert "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y" in config


def test_every_fragment_says_why() -> None:
    for file in sorted((EXTERNAL / "board/hal").glob("linux*.fragment")):
        assert file.read_text().startswith("# "), file.name
