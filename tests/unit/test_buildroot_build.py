"""Building the Buildroot base: what a change builds again, and what is told when something goes wrong.

Make's place is taken by a stand-in (`stand_in_make.py`); Kconfig itself and real builds are in
tests/buildroot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from hal.bases.buildroot.build import finished
from hal.errors import HalError, UsageError
from hal.progress import Silent
from tests.unit.buildroot_stand_in import CONFIG, KERNEL, World, in_a_process

T = TypeVar("T")


def three() -> dict[str, dict[str, object]]:
    return {
        "zlib": {"version": "1.3"},
        "openssl": {"version": "3.5", "needs": ["zlib"]},
        "busybox": {"version": "1.37"},
    }


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "world", three())
    made.scenario()
    return made


def rebuilt(world: World) -> set[str]:
    """The packages that were built since this was last asked."""
    return {line.split()[0] for line in world.done() if line.endswith(" build")}


def test_a_base_has_its_tree_its_kernel_and_what_is_in_it(world: World) -> None:
    base = finished(world.build())
    assert (base.tree / "etc/packages").read_text().splitlines()[0] == "linux 6.12"
    assert base.kernel.image.read_bytes() == b"a kernel"
    assert (base.kernel.release, base.kernel.modules) == ("6.12-hal", None)
    assert base.packages == {"linux": "6.12", "zlib": "1.3", "openssl": "3.5", "busybox": "1.37"}
    assert rebuilt(world) == {"linux", "zlib", "openssl", "busybox"}


def test_sources_come_before_anything_is_built(world: World) -> None:
    world.build()
    targets = [words[-1].rpartition("/")[2] for words in world.asked()]
    assert targets == ["defconfig", "show-info", "source", ".stamp_kconfig_fixup_done", "all"]


def test_what_a_service_is_made_of_is_no_input(world: World) -> None:
    before = world.plan().digest
    package = world.home / "external" / "package"
    for name in ("hal-selector", "hal-os"):
        (package / name).mkdir(parents=True)
    (package / "hal-selector" / "hal-selector.service").write_text("[Service]\n")
    assert world.plan().digest == before
    (package / "hal-os" / "hal-os.mk").write_text("HAL_OS_VERSION = 2\n")
    assert world.plan().digest != before


def test_a_kernel_option_configures_the_kernel_anew_and_builds_nothing_else(world: World) -> None:
    world.build()
    world.done()
    replace(world, kernel=KERNEL + "CONFIG_NUMA=y\n").build()
    assert world.done() == ["linux configure", "linux build"]


def test_another_version_rebuilds_the_package_and_what_is_built_on_it(world: World) -> None:
    world.build()
    world.done()
    world.packages["zlib"]["version"] = "1.4"
    world.scenario()
    changed = replace(world, config=CONFIG + "BR2_PACKAGE_ZLIB_SOMETHING=y\n")
    assert (changed.build() / "root/etc/packages").read_text().count("zlib 1.4") == 1
    assert rebuilt(world) == {"zlib", "openssl"}
    assert not (world.output / "build/zlib-1.3").exists()


def test_a_package_that_is_no_more_is_gone_with_all_it_had(world: World) -> None:
    world.build()
    del world.packages["busybox"]
    world.scenario()
    replace(world, config=CONFIG + "# BR2_PACKAGE_BUSYBOX is not set\n").build()
    assert not (world.output / "per-package/busybox").exists()
    assert not list((world.output / "build").glob("busybox-*"))


def test_what_all_packages_follow_from_has_an_output_directory_of_its_own(world: World) -> None:
    world.build()
    replace(world, config=CONFIG + "BR2_OPTIMIZE_3=y\n").build()
    outputs = [path for path in (world.home / "cache/buildroot").glob("output-*") if path.suffix == ""]
    assert len(outputs) == 2


def test_a_failing_package_shows_its_name_its_last_lines_and_its_log(world: World) -> None:
    world.packages["openssl"]["fails"] = "build"
    world.scenario()
    with pytest.raises(HalError) as failure:
        world.build()
    error = failure.value
    log = world.output / "logs/openssl.log"
    assert error.exit_code == 1
    assert error.message == "base tree (Buildroot): building openssl failed"
    assert error.details[-1] == "  | openssl.c:1: error: this cannot be"
    assert not any("zlib" in line for line in error.details)
    assert error.hint == f"all of what it said is in {log}" and log.exists()


def test_after_a_failure_only_the_rest_is_built(world: World) -> None:
    world.packages["openssl"]["fails"] = "configure"
    world.scenario()
    with pytest.raises(HalError, match="configuring openssl failed"):
        world.build()
    world.done()
    del world.packages["openssl"]["fails"]
    world.scenario()
    world.build()
    assert rebuilt(world) == {"openssl", "busybox"}


def test_a_wrong_download_stops_before_anything_is_built(world: World) -> None:
    world.packages["zlib"]["wrong_hash"] = True
    world.scenario()
    with pytest.raises(HalError) as failure:
        world.build()
    assert failure.value.message == "downloading sources: downloading zlib failed"
    assert any("wrong sha256" in line for line in failure.value.details)
    assert not list((world.home / "cache/buildroot").glob("output-*"))


def test_offline_takes_only_what_is_at_hand(world: World) -> None:
    replace(world, offline=True).build()
    (source,) = (words for words in world.asked() if words[-1] == "source")
    assert "BR2_PRIMARY_SITE_ONLY=y" in source


def test_a_line_that_kconfig_drops_is_named_with_where_it_came_from(world: World) -> None:
    world.scenario(unknown=["BR2_PACKAGE_OPENSSHD"])
    with pytest.raises(UsageError) as failure:
        replace(world, config=CONFIG + "BR2_PACKAGE_OPENSSHD=y\n").build()
    assert failure.value.exit_code == 2
    assert failure.value.details[0] == "  BR2_PACKAGE_OPENSSHD=y, from the spec:"


def test_a_kernel_line_that_is_dropped_stops_before_anything_is_built(world: World) -> None:
    world.scenario(kernel=["CONFIG_NO_SUCH"])
    with pytest.raises(UsageError, match="the configuration of the kernel: 1 line is not taken"):
        replace(world, kernel=KERNEL + "CONFIG_NO_SUCH=y\n").build()
    assert rebuilt(world) == set()


def test_progress_tells_which_package_of_how_many(world: World) -> None:
    told = []

    class Listening(Silent):
        def status(self, step: str, text: str) -> None:
            told.append(text)

    world.packages["openssl"]["seconds"] = 1.5
    world.scenario()
    world.build(Listening())
    assert any(text.startswith("package 3 of 4: openssl (building)") for text in told)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_was_ended_goes_on_where_it_was(world: World, how: signal.Signals) -> None:
    world.packages["openssl"]["seconds"] = 60
    world.scenario()
    process = in_a_process(world)
    half = until(lambda: next(world.home.glob("cache/buildroot/output-*/build/openssl-*/half.o"), None))
    make = until(lambda: next(iter(makes(world)), None))
    process.send_signal(how)
    process.wait(30)
    until(lambda: None if Path(f"/proc/{make}").exists() else True)
    world.done()
    world.packages["openssl"]["seconds"] = 0
    world.scenario()
    world.build()
    # A kill may leave half an object file: the package begins anew. After Ctrl-C make has tidied up.
    steps = ["extract", "patch", "configure", "build"] if how == signal.SIGKILL else ["build"]
    done = [line for line in world.done() if line.startswith("openssl")]
    assert done == [f"openssl {step}" for step in steps]
    assert half.exists()


def test_two_builds_wait_for_each_other(world: World) -> None:
    world.packages["openssl"]["seconds"] = 2
    world.scenario()
    processes = [in_a_process(world) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sorted(line for line in world.done() if line.endswith("build")) == [
        f"{name} build" for name in ("busybox", "linux", "openssl", "zlib")
    ]


def makes(world: World) -> list[int]:
    """The stand-ins that are running for this world."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(world.home).encode() in environment and b"HAL_BINDS" in environment:
                found.append(int(entry.name))
    return found


def until(look: Callable[[], T | None], seconds: float = 30) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds} s")
