"""Each defconfig of the external tree is taken whole, and packages can be chosen only where they work."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hal.bases.buildroot.prove import dropped, read_lines
from tests.buildroot.conftest import DEFCONFIGS, EXTERNAL, PACKAGES, Output

Configured = Callable[[str], Output]

MUSL = """\
BR2_x86_64=y
BR2_TOOLCHAIN_BUILDROOT_MUSL=y
BR2_TOOLCHAIN_BUILDROOT_CXX=y
BR2_GCC_ENABLE_OPENMP=y
BR2_INIT_SYSTEMD=y
"""
"""A system that lacks what engines need: their libraries are built for glibc."""


def symbol(package: str) -> str:
    return f"BR2_PACKAGE_{package.upper().replace('-', '_')}"


def test_there_are_all_the_configurations() -> None:
    assert DEFCONFIGS == [
        "hal_aarch64_defconfig",
        "hal_x86_64_defconfig",
        "hal_x86_64_snp_defconfig",
        "hal_x86_64_sysv_defconfig",
        "hal_x86_64_tdx_defconfig",
    ]


@pytest.mark.parametrize("defconfig", DEFCONFIGS)
def test_every_line_survives(defconfig: str, configured: Configured) -> None:
    asked = read_lines((EXTERNAL / "configs" / defconfig).read_text(), defconfig)
    assert dropped(asked, configured(defconfig).config) == []


@pytest.mark.parametrize("defconfig", DEFCONFIGS)
def test_the_files_that_a_defconfig_names_are_there(defconfig: str) -> None:
    for line in read_lines((EXTERNAL / "configs" / defconfig).read_text(), defconfig):
        for word in (line.value or "").strip('"').split():
            if word.startswith("$(BR2_EXTERNAL_HAL_PATH)/"):
                assert (EXTERNAL / word.partition("/")[2]).is_file(), f"{line.symbol}: {word}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_can_be_chosen_where_it_would_not_work(package: str, configured: Configured) -> None:
    """Kconfig takes the line only where every dependency holds, those of what it selects too."""
    everything = MUSL + "".join(f"{symbol(name)}=y\n" for name in PACKAGES)
    assert f"{symbol(package)}=y" not in configured(everything).config


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_can_be_chosen_with_systemd(package: str, configured: Configured) -> None:
    """All at once, on top of the defconfig, and what each depends on is chosen with it."""
    lines = (EXTERNAL / "configs/hal_x86_64_defconfig").read_text()
    everything = lines + "".join(f"{symbol(name)}=y\n" for name in PACKAGES)
    everything += 'BR2_PACKAGE_VLLM_PACK="file:///nowhere"\n'
    output = configured(everything)
    assert f"{symbol(package)}=y" in output.config
    info = json.loads(output.make("show-info"))
    known = info.keys() | {"toolchain", "skeleton"}
    missing = {name for name in info[package]["dependencies"] if name not in known}
    assert not missing, f"{package} is built after {missing}, which its Config.in does not select"


def test_what_is_downloaded_has_a_hash(configured: Configured) -> None:
    for defconfig in DEFCONFIGS:
        info = json.loads(configured(defconfig).make("show-info"))
        for name in set(PACKAGES) & info.keys():
            for download in info[name]["downloads"]:
                if any(uri.startswith("local") for uri in download["uris"]):
                    continue
                hashes = (EXTERNAL / "package" / name / f"{name}.hash").read_text()
                assert f"  {download['source']}\n" in hashes, f"{defconfig}: {name}"


def test_every_licence_has_a_hash_where_something_is_downloaded() -> None:
    for package in PACKAGES:
        recipe = (EXTERNAL / f"package/{package}/{package}.mk").read_text()
        named = [line for line in recipe.splitlines() if "_LICENSE_FILES = " in line]
        assert "_LICENSE = " in recipe, package
        if named and "_SITE_METHOD = local" not in recipe:
            hashes = (EXTERNAL / f"package/{package}/{package}.hash").read_text()
            assert hashes.count("sha256") > len(named), package


def test_services_run_as_users_of_their_own() -> None:
    """The tables agree with the accounts that hal makes by sysusers.d, number by number."""
    sysusers = "".join(path.read_text() for path in (EXTERNAL / "rendered").rglob("sysusers.d/hal.conf"))
    for package in PACKAGES:
        recipe = (EXTERNAL / f"package/{package}/{package}.mk").read_text()
        for line in recipe.splitlines():
            words = line.split()
            if len(words) > 7 and words[4] == "*":
                name, number = words[0], words[1]
                assert f" {name} {number}" in sysusers or name == "hal-provision", line
                assert words[6] == "/usr/sbin/nologin", line


def test_a_copy_without_services_says_what_is_wrong(buildroot: Path, tmp_path: Path) -> None:
    copy = tmp_path / "external"
    shutil.copytree(EXTERNAL, copy, symlinks=True)
    done = subprocess.run(
        ["make", "-s", "-C", buildroot, f"O={tmp_path / 'o'}", f"BR2_EXTERNAL={copy}", DEFCONFIGS[1]],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0  # Kconfig does not look at external.mk
    shown = subprocess.run(
        ["make", "-s", "-C", tmp_path / "o", "show-targets"], capture_output=True, text=True
    )
    assert shown.returncode != 0
    assert "cp -rL" in shown.stderr
