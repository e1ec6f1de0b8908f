"""The pure parts of the Buildroot base: configuration, proof, what is stale, what make says, the release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kconfiglib
import pytest

from hal.bases.buildroot import explain, packages, release
from hal.bases.buildroot.config import Configuration, configuration
from hal.bases.buildroot.progress import Course, Failure, Output, Timed, begun, read_timed, step_seconds
from hal.bases.buildroot.prove import Dropped, Line, dropped, read_lines, refusal
from hal.cache import Cache
from hal.errors import UsageError
from hal.spec.loading import parse_spec

EXTERNAL = {
    "configs/hal_x86_64_defconfig": """\
BR2_x86_64=y
BR2_INIT_SYSTEMD=y
BR2_TOOLCHAIN_EXTERNAL_BOOTLIN=y
BR2_ROOTFS_POST_IMAGE_SCRIPT="post-image.sh"
BR2_ROOTFS_POST_FAKEROOT_SCRIPT="$(BR2_EXTERNAL_HAL_PATH)/board/hal/finish.sh"
BR2_PACKAGE_HAL_OS=y
BR2_PACKAGE_HAL_OS_DEBUG=y
BR2_PACKAGE_HAL_SELECTOR=y
BR2_PACKAGE_OLLAMA=y
BR2_LINUX_KERNEL=y
BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE="$(BR2_EXTERNAL_HAL_PATH)/board/hal/linux.config"
BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES="$(BR2_EXTERNAL_HAL_PATH)/board/hal/linux-console.fragment"
""",
    "configs/hal_x86_64_sysv_defconfig": "BR2_x86_64=y\nBR2_INIT_BUSYBOX=y\n",
    "configs/hal_x86_64_snp_defconfig": """\
BR2_x86_64=y
BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE="$(BR2_EXTERNAL_HAL_PATH)/board/hal/linux.config"
BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES="$(BR2_EXTERNAL_HAL_PATH)/board/hal/linux-snp.fragment"
""",
    "board/hal/linux.config": "CONFIG_EROFS_FS=y\n",
    "board/hal/linux-console.fragment": "CONFIG_SERIAL_8250=y\n",
    "board/hal/linux-debug.fragment": "CONFIG_MAGIC_SYSRQ=y\n",
    "board/hal/linux-snp.fragment": "CONFIG_SEV_GUEST=y\n",
}

SPEC = """\
appliance: {name: a, version: 1.0.0}
base: buildroot
engines: [llamacpp]
models: [smollm2-135m]
"""


@pytest.fixture
def external(tmp_path: Path) -> Path:
    for name, text in EXTERNAL.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def configured(external: Path, more: str = "") -> Configuration:
    return configuration(parse_spec(SPEC + more, Path("a.yaml")).spec, external)


PRODUCTION = f"variant: production\ngateway: {{tokens: [{{name: t, sha256: {'a' * 64}}}]}}\n"


def test_the_os_is_the_external_trees_and_all_else_is_hals(external: Path) -> None:
    lines = configured(external).text().splitlines()
    assert {"BR2_x86_64=y", "BR2_INIT_SYSTEMD=y", "BR2_PACKAGE_HAL_OS=y"} <= set(lines)
    for absent in ("BOOTLIN", "POST_IMAGE", "SELECTOR", "OLLAMA"):
        assert not any(absent in line for line in lines)
    assert {"BR2_REPRODUCIBLE=y", "BR2_DOWNLOAD_FORCE_CHECK_HASHES=y", "BR2_TARGET_ROOTFS_TAR=y"} <= set(
        lines
    )
    assert any(line.startswith("BR2_ROOTFS_POST_FAKEROOT_SCRIPT=") for line in lines)


def test_only_a_debug_image_has_what_helps_to_look_for_faults(external: Path) -> None:
    debug, production = configured(external), configured(external, PRODUCTION)
    assert "BR2_PACKAGE_HAL_OS_DEBUG=y" in debug.text()
    assert "HAL_OS_DEBUG" not in production.text()
    fragments = ["linux-console.fragment", "linux-debug.fragment"]
    assert [file.name for file in debug.kernel] == ["linux.config", *fragments]
    assert [file.name for file in production.kernel] == ["linux.config"]


def test_a_tee_has_its_kernel_and_init_its_system(external: Path) -> None:
    found = configured(external, "tee: sev-snp\ninit: sysv\n")
    assert "BR2_INIT_BUSYBOX=y" in found.text() and "SYSTEMD" not in found.text()
    assert "linux-snp.fragment" in [file.name for file in found.kernel]


def test_the_specs_lines_come_last_and_win(external: Path) -> None:
    lines = "config: ['# BR2_INIT_SYSTEMD is not set', BR2_INIT_NONE=y], kernel: [CONFIG_NUMA=y]"
    found = configured(external, f"buildroot: {{{lines}}}\n")
    assert "BR2_INIT_SYSTEMD=y" not in found.text() and "# BR2_INIT_SYSTEMD is not set" in found.text()
    assert found.lines[-1] == Line("BR2_INIT_NONE", "y", "buildroot.config[1]")
    assert found.kernel[-1].name == "spec.fragment" and found.kernel[-1].text == "CONFIG_NUMA=y\n"
    assert '/hal/config/spec.fragment"' in found.text()


CONFIG = 'A=y\nB="text"\n# C is not set\nD=7\n'


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("A=y", ()),
        ("# C is not set", ()),
        ("# NEVER is not set", ()),
        ("C=n", ()),
        ("A=n", ("y",)),
        ("C=y", (None,)),
        ("E=y", (None,)),
        ('B="other"', ('"text"',)),
        ("D=8\nD=7", ()),
    ],
)
def test_a_line_is_dropped_when_the_config_says_otherwise(asked: str, got: tuple[str | None, ...]) -> None:
    assert tuple(item.got for item in dropped(read_lines(asked, "here"), CONFIG)) == got


def test_what_is_no_line_is_refused() -> None:
    with pytest.raises(UsageError, match="here, line 2: 'A: y' is no line of a configuration"):
        read_lines("# a comment\nA: y\n", "here")


def test_the_refusal_names_each_line_its_origin_and_the_reasons() -> None:
    line = Line("BR2_X", "y", "buildroot.config[0]")
    error = refusal("the configuration", [Dropped(line, None)], {"BR2_X": ["needs BR2_Y, which is not so"]})
    assert error.exit_code == 2
    assert error.details == (
        "  BR2_X=y, from buildroot.config[0]:",
        "    needs BR2_Y, which is not so",
    )


KCONFIG = """\
config A
	bool "a"

config B
	bool "b"
	depends on A && LATER

config LATER
	bool "later"
	depends on MISSING

config HIDDEN
	bool

config CHOOSER
	bool "chooser"
	default y
	select CHOSEN

config CHOSEN
	bool "chosen"

choice
	prompt "one"

config ONE
	bool "1"

config TWO
	bool "2"
endchoice

config BIG
	bool "big"

config NUMBER
	int "number"
	range 1 5
	default 1
"""


@pytest.mark.parametrize(
    ("symbol", "value", "reason"),
    [
        ("ELSEWHERE", "y", ["there is no such symbol"]),
        ("NUMBERS", "y", ["there is no such symbol: did you mean NUMBER?"]),
        (
            "B",
            "y",
            [
                "needs A, which is not so",
                "needs LATER, which is not so",
                "  LATER needs MISSING, which does not exist here",
            ],
        ),
        ("HIDDEN", "y", ["it cannot be set by hand: other symbols select it, or its default decides"]),
        ("CHOSEN", None, ["it is selected by CHOOSER"]),
        ("TWO", "y", ["of this choice ONE is taken"]),
        ("NUMBER", "9", ["its value is not one that it may have"]),
        ("BIG", "m", ["it cannot be a module: it is y or n"]),
    ],
)
def test_kconfig_itself_says_why(tmp_path: Path, symbol: str, value: str | None, reason: list[str]) -> None:
    file = tmp_path / "Kconfig"
    file.write_text(KCONFIG)
    assert explain.reasons(kconfiglib.Kconfig(str(file), warn=False), symbol, value) == reason


def entry(
    version: str = "1", needs: tuple[str, ...] = (), kind: str = "target", **more: Any
) -> dict[str, Any]:
    return {
        "type": kind,
        "virtual": False,
        "version": version,
        "package_dir": "package/x",
        "stamp_dir": f"build/x-{version}",
        "dependencies": list(needs),
        **more,
    }


def tabled(info: dict[str, Any], config: str = "", kernel: str = "k") -> packages.Table:
    return packages.table(info, config, lambda path: f"content of {path}", kernel)


INFO = {
    "zlib": entry(),
    "openssl": entry(needs=("zlib",)),
    "python3": entry(needs=("openssl", "host-zlib")),
    "host-zlib": entry(kind="host"),
    "linux": entry(),
    "rootfs-tar": {"type": "rootfs"},
}


def test_a_change_takes_its_dependents_along() -> None:
    new = tabled({**INFO, "zlib": entry("2")})
    assert packages.stale(tabled(INFO), new).rebuilt == {"zlib", "openssl", "python3"}


@pytest.mark.parametrize(
    ("line", "rebuilt"),
    [
        ("BR2_PACKAGE_OPENSSL_SOMETHING=y", {"openssl", "python3"}),
        ("BR2_PACKAGE_ZLIB=y", {"zlib", "openssl", "python3", "host-zlib"}),
        ("BR2_PACKAGE_PYTHON3_SSL=y", {"python3"}),
        ('BR2_LINUX_KERNEL_VERSION="6.13"', {"linux"}),
        ('BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES="/hal/config/other"', set()),
        ("BR2_PACKAGE_SOMETHING_ELSE=y", set()),
    ],
)
def test_a_line_makes_its_own_package_stale(line: str, rebuilt: set[str]) -> None:
    assert packages.stale(tabled(INFO), tabled(INFO, line)).rebuilt == rebuilt


def test_what_a_sources_file_says_of_a_package_makes_it_stale() -> None:
    before, after = (packages.table(INFO, "", str, "k", {"zlib": digest}) for digest in ("1", "2"))
    assert packages.stale(before, after).rebuilt == {"zlib", "host-zlib", "openssl", "python3"}


def test_the_kernels_configuration_alone_configures_it_anew() -> None:
    found = packages.stale(tabled(INFO), tabled(INFO, kernel="other"))
    assert found.configure_kernel and not found.rebuilt
    assert not packages.stale(tabled(INFO), tabled(INFO))


def test_a_file_that_a_line_names_is_part_of_its_package() -> None:
    line = 'BR2_PACKAGE_OPENSSL_FILE="$(BR2_EXTERNAL_HAL_PATH)/a b"'
    before = packages.table(INFO, line, lambda path: path, "k")
    after = packages.table(INFO, line, lambda path: path + ("!" if path == "/hal/external/a" else ""), "k")
    assert packages.stale(before, after).rebuilt == {"openssl", "python3"}


def test_a_table_is_read_back_as_it_was_written() -> None:
    assert packages.from_json(packages.to_json(tabled(INFO))) == tabled(INFO)
    with pytest.raises(ValueError):
        packages.from_json('{"zlib": {"other": 1}}')


def test_packages_share_an_output_directory_and_architectures_do_not() -> None:
    plain = packages.shared("BR2_x86_64=y\n# comment\n")
    for line in ("BR2_PACKAGE_ZLIB=y", "BR2_LINUX_KERNEL=y", 'BR2_DL_DIR="x"', "# BR2_PACKAGE_X is not set"):
        assert packages.shared(f"BR2_x86_64=y\n{line}\n") == plain
    assert packages.shared("BR2_x86_64=y\nBR2_OPTIMIZE_3=y\n") != plain


LOG = """\
1700000000.5:start:configure           : zlib
1700000002.5:end  :configure           : zlib
1700000002.5:start:build               : zlib
1700000003.0:start:extract             : host-gcc
1700000010.0:end  :build               : zlib
cut off
"""


def test_build_times_are_read() -> None:
    assert read_timed(LOG.splitlines()[0]) == Timed(1700000000.5, True, "configure", "zlib")
    assert step_seconds(LOG.splitlines()) == {"zlib configure": 2.0, "zlib build": 7.5}
    assert begun(LOG.splitlines()) == {"host-gcc": "extract"}


def test_the_estimate_follows_the_last_build_and_this_ones_pace() -> None:
    expected = {"a build": 100.0, "a install-target": 0.0, "b build": 300.0, "b install-target": 0.0}
    course = Course(frozenset({"a", "b"}), expected, 1000.0)
    assert course.words(1000.0) == "package 1 of 2, about 7 min left"
    course.hear(Timed(1000.0, True, "build", "a"))
    assert course.words(1001.0) == "package 1 of 2: a (building), about 7 min left"
    course.hear(Timed(1050.0, False, "build", "a"))
    course.hear(Timed(1050.0, False, "install-target", "a"))
    course.hear(Timed(1050.0, True, "build", "b"))
    assert course.words(1050.0) == "package 2 of 2: b (building), about 2 min left"  # twice as fast as then
    assert course.words(1150.0) == "package 2 of 2: b (building), about 2 min left"
    assert course.words(1300.0) == "package 2 of 2: b (building), about 54 s left"
    assert course.words(2000.0) == "package 2 of 2: b (building), about 4 min left"  # three times as long


def test_without_earlier_times_there_is_no_estimate() -> None:
    for known in ({}, {"a build": 1.0, "b build": 1.0}, {"a install-host": 1.0}, {"c install-host": 1.0}):
        assert Course(frozenset({"a", "b"}), known, 0.0).words(1.0) == "package 1 of 2"


PLACE = "/hal/output/build/host-openssl-3.5.7"


def test_each_line_belongs_to_the_package_whose_block_it_is_in() -> None:
    output = Output()
    lines = [
        ">>> zlib 1.3 Building",
        "cc zlib.c",
        "\x1b[7m>>> host-openssl 3.5.7 Configuring\x1b[27m",
        "no compiler",
        f"make[1]: *** [package/pkg-generic.mk:263: {PLACE}/.stamp_configured] Error 1",
        "make: *** [Makefile:23: _all] Error 2",
    ]
    owners = [output.hear(line + "\n") for line in lines]
    assert owners[:4] == ["zlib", "zlib", "host-openssl", "host-openssl"]
    assert output.failures == [Failure("host-openssl-3.5.7", "configuring")]


def tree(directory: Path, version: str = release.VERSION) -> Path:
    directory.mkdir(parents=True)
    (directory / "Makefile").write_text(f"all:\nexport BR2_VERSION := {version}\n")
    (directory / "package").mkdir()
    (directory / "package/Config.in").write_text("menu\n")
    return directory


def test_a_tree_at_hand_is_named_by_its_content(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    one, two = (release.given_release(tree(tmp_path / name), cache) for name in ("one", "two"))
    assert one.digest == two.digest
    (tmp_path / "two/output").mkdir()
    (tmp_path / "two/output/x").write_text("left by a build")
    assert release.given_release(tmp_path / "two", cache).digest == one.digest
    (tmp_path / "two/package/Config.in").write_text("patched\n")
    assert release.given_release(tmp_path / "two", cache).digest != one.digest


def test_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this is Buildroot 2025\.02, hal goes by 2026\.02\.3"):
        release.given_release(tree(tmp_path / "old", "2025.02"), Cache(tmp_path / "cache"))
    with pytest.raises(UsageError, match="there is no Buildroot tree here"):
        release.given_release(tmp_path, Cache(tmp_path / "cache"))
