"""From a spec to Buildroot's configuration and the kernel's: lines, each with where it comes from.

What is in the OS is said once, in the defconfigs of `buildroot-external/`, which a user of Buildroot
without hal takes as they are. hal leaves out what it makes itself (services, engines, images), adds how it
builds (a toolchain, caches, fixed paths, checked hashes), what a debug image has besides, and the spec's
own lines, which come last and win.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.bases.buildroot.make import CCACHE, CONFIG, DOWNLOADS, EXTERNAL, TOOLCHAIN
from hal.bases.buildroot.prove import Line, read_lines
from hal.errors import HalError
from hal.spec.model import Spec

HERE = "hal"
"""The origin of lines that hal adds."""

KERNEL_FILE = "BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE"
FRAGMENTS = "BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES"

OWN_PACKAGES = re.compile(r"BR2_PACKAGE_(HAL_|VLLM|OLLAMA|LLAMACPP_SERVER)")
OS_PACKAGES = re.compile(r"BR2_PACKAGE_HAL_(OS(?!_DEBUG)|HAPROXY)(_|$)")
"""Of the external tree's packages those of the OS; services and engines hal lays over the tree itself."""

LEFT_OUT = re.compile(
    r"BR2_(ROOTFS_(POST_(BUILD|IMAGE)|OVERLAY|USERS|DEVICE_TABLE)|TARGET_ROOTFS_|PACKAGE_HOST_|TOOLCHAIN_"
    r"|GCC_|KERNEL_HEADERS_|DL_DIR|CCACHE|GLOBAL_PATCH_DIR|PACKAGE_OVERRIDE_FILE|PRIMARY_SITE)"
)
"""What hal does in its own way: images, the toolchain, caches, and where sources come from."""

BUILDING = f"""
BR2_CCACHE=y
BR2_CCACHE_DIR="{CCACHE}"
BR2_DL_DIR="{DOWNLOADS}"
BR2_DOWNLOAD_FORCE_CHECK_HASHES=y
BR2_PER_PACKAGE_DIRECTORIES=y
BR2_REPRODUCIBLE=y
BR2_TARGET_ROOTFS_TAR=y
"""

COMPILER = f"""
BR2_TOOLCHAIN_EXTERNAL=y
BR2_TOOLCHAIN_EXTERNAL_CUSTOM=y
BR2_TOOLCHAIN_EXTERNAL_PREINSTALLED=y
BR2_TOOLCHAIN_EXTERNAL_PATH="{TOOLCHAIN}"
BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX="x86_64-linux"
BR2_TOOLCHAIN_EXTERNAL_GCC_14=y
BR2_TOOLCHAIN_EXTERNAL_HEADERS_6_12=y
BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC=y
BR2_TOOLCHAIN_EXTERNAL_CXX=y
BR2_TOOLCHAIN_EXTERNAL_OPENMP=y
# BR2_TOOLCHAIN_EXTERNAL_INET_RPC is not set
"""
"""What Buildroot is told of the toolchain that `hal.bases.buildroot.toolchain` assembles."""

DEBUG = "BR2_PACKAGE_HAL_OS_DEBUG=y"
"""What `variant: debug` has besides, as on Debian: ssh, and programs to look around with."""

DEBUG_FRAGMENTS = {
    "x86_64": ("board/hal/linux-console.fragment", "board/hal/linux-debug.fragment"),
    "aarch64": ("board/hal/linux-console-aarch64.fragment", "board/hal/linux-debug.fragment"),
}
"""What the kernel of a debug image has and that of a production image has not, whatever the defconfig."""


@dataclass(frozen=True)
class KernelFile:
    """A part of the kernel's configuration: its name below `/hal/config`, and its text."""

    name: str
    text: str

    def lines(self) -> tuple[Line, ...]:
        """What it asks for."""
        return read_lines(self.text, self.name)


@dataclass(frozen=True)
class Configuration:
    """All that is asked of Buildroot: the lines of its defconfig, and the kernel's files in merging order."""

    lines: tuple[Line, ...]
    kernel: tuple[KernelFile, ...]

    def text(self) -> str:
        """The defconfig. Of two lines for one symbol only the later one stays."""
        return "".join(f"{line}\n" for line in {line.symbol: line for line in self.lines}.values())

    def kernel_lines(self) -> tuple[Line, ...]:
        """What is asked of the kernel's configuration."""
        return tuple(line for file in self.kernel for line in file.lines())


def configuration(spec: Spec, external: Path, sources: Sequence[str] = ()) -> Configuration:
    """The configuration of a spec; `sources` are the lines that a sources file adds.

    Raises:
        HalError: the external tree lacks a file.
    """
    system = read_lines(*_defconfig(external, system_defconfig(spec)))
    kernel = read_lines(*_defconfig(external, kernel_defconfig(spec)))
    files = _kernel_files(spec, external, kernel)
    own = [line for line in kernel if line.symbol.startswith("BR2_LINUX_KERNEL")]
    lines = [
        *(line for line in system if _kept(line)),
        *own,
        *read_lines(BUILDING, HERE),
        *read_lines(COMPILER, HERE),
        *read_lines("\n".join(sources), "the sources file"),
        *(read_lines(DEBUG, HERE) if spec.variant == "debug" else ()),
        Line(KERNEL_FILE, f'"{CONFIG}/{files[0].name}"', HERE),
        Line(FRAGMENTS, '"' + " ".join(f"{CONFIG}/{file.name}" for file in files[1:]) + '"', HERE),
        *_of_spec(spec.buildroot.config, "buildroot.config"),
    ]
    return Configuration(tuple(lines), files)


def system_defconfig(spec: Spec) -> str:
    """The defconfig of the external tree that says what the OS is."""
    return f"hal_{spec.arch}{'_sysv' if spec.init == 'sysv' else ''}_defconfig"


def kernel_defconfig(spec: Spec) -> str:
    """The one that says what the kernel is: images for a TEE have a kernel for it."""
    tee = {"sev-snp": "_snp", "tdx": "_tdx"}.get(spec.tee, "")
    return f"hal_{spec.arch}{tee}_defconfig" if tee else system_defconfig(spec)


def _defconfig(external: Path, name: str) -> tuple[str, str]:
    return _read(external / "configs" / name), f"buildroot-external/configs/{name}"


def _kept(line: Line) -> bool:
    if line.symbol.startswith("BR2_LINUX_KERNEL") or LEFT_OUT.match(line.symbol):
        return False
    return not OWN_PACKAGES.match(line.symbol) or bool(OS_PACKAGES.match(line.symbol))


def _kernel_files(spec: Spec, external: Path, lines: Sequence[Line]) -> tuple[KernelFile, ...]:
    """The kernel's configuration and fragments, as a defconfig names them, and the spec's own."""
    values = {line.symbol: (line.value or "").strip('"') for line in lines}
    named = [*values.get(KERNEL_FILE, "").split(), *values.get(FRAGMENTS, "").split()]
    paths = [re.sub(r"^\$[({]BR2_EXTERNAL_HAL_PATH[)}]/", "", name) for name in named]
    debug = DEBUG_FRAGMENTS[spec.arch]
    paths = [path for path in paths if path not in debug]
    if spec.variant == "debug":
        paths += debug
    files = [KernelFile(Path(path).name, _read(external / path.removeprefix(EXTERNAL))) for path in paths]
    if spec.buildroot.kernel:
        files.append(KernelFile("spec.fragment", "".join(f"{line}\n" for line in spec.buildroot.kernel)))
    return tuple(files)


def _of_spec(lines: Sequence[str], key: str) -> list[Line]:
    return [line for index, text in enumerate(lines) for line in read_lines(text, f"{key}[{index}]")]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise HalError(
            f"{path}: {error.strerror}", "the external tree comes with a checkout of hal"
        ) from error
