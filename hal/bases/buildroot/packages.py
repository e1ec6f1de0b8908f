"""Which packages an output directory holds, and which of them a change makes stale.

Buildroot notices changed sources of no package: after a change of its configuration it keeps what it has
built. So hal keeps, beside each output directory, what every package was made from (by `make show-info`),
and takes away those whose inputs have changed, with all that were built on top of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from hal.bases.buildroot.make import EXTERNAL
from hal.trees import inputs_digest

LINUX = "linux"

_KERNEL = re.compile(r"BR2_LINUX_KERNEL_(CUSTOM_CONFIG_FILE|CONFIG_FRAGMENT_FILES|DEFCONFIG)=")
"""The kernel's own configuration: when that changes, it is configured anew, not unpacked anew."""

_OF_PACKAGES = re.compile(r"(# )?BR2_PACKAGE_(?!HAS_|PROVIDES_)")
_ELSEWHERE = re.compile(
    r"(# )?BR2_(LINUX_KERNEL|ROOTFS_|TARGET_ROOTFS_|PRIMARY_SITE|BACKUP_SITE|DEFCONFIG|JLEVEL|CCACHE|DL_DIR)"
)
"""Symbols that change how the build runs, or what is made of its packages in the end, but no package."""


@dataclass(frozen=True)
class Package:
    """A package of one build: its build directory's name, the digest of its inputs, what it is built on.

    `configuration` is the digest of the kernel's configuration; empty for all others.
    """

    directory: str
    version: str
    digest: str
    needs: tuple[str, ...]
    configuration: str = ""


Table = Mapping[str, Package]


def table(
    info: Mapping[str, Any],
    config: str,
    content: Callable[[str], str],
    kernel: str,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """The packages of a configuration, from `make show-info` and the text of its `.config`.

    `content` gives the digest of a path that Buildroot names (a package's directory, a patch, a file of its
    configuration); `kernel` is the digest of the kernel's configuration, `sources` are the digests of what a
    sources file says of packages.
    """
    symbols = [line for line in config.splitlines() if line.startswith("BR2_PACKAGE_")]
    kernels = [line for line in config.splitlines() if line.startswith("BR2_LINUX_KERNEL")]
    return {
        name: _package(name, entry, symbols, kernels, content, kernel, sources)
        for name, entry in info.items()
        if entry["type"] in ("target", "host")
    }


def _package(
    name: str,
    entry: Mapping[str, Any],
    symbols: Iterable[str],
    kernels: Iterable[str],
    content: Callable[[str], str],
    kernel: str,
    sources: Mapping[str, str],
) -> Package:
    own = name.removeprefix("host-").upper().replace("-", "_").replace(".", "_")
    lines = [line for line in symbols if re.match(rf"BR2_PACKAGE_(HOST_)?{own}(_|=)", line)]
    if name == LINUX:
        lines += [line for line in kernels if not _KERNEL.match(line)]
    files = [entry["package_dir"], *entry.get("patches", ()), *entry.get("hashes", ()), *_files(lines)]
    archives = [item["source"] for item in entry.get("downloads", ())]
    archives.append(sources.get(name.removeprefix("host-"), ""))
    needs = tuple(sorted(entry["dependencies"]))
    digest = inputs_digest(
        str(entry.get("version")), *archives, *lines, *needs, *(f"{file} {content(file)}" for file in files)
    )
    directory = entry["stamp_dir"].rpartition("/")[2]
    return Package(directory, entry.get("version") or "", digest, needs, kernel if name == LINUX else "")


def _files(lines: Iterable[str]) -> list[str]:
    """The files that values of symbols name, by their paths inside the sandbox."""
    absolute = (re.sub(r"\$[({]BR2_EXTERNAL_HAL_PATH[)}]", EXTERNAL, line) for line in lines)
    return [path for line in absolute for path in re.findall(r'(?<=["\s])/[^"\s]+', line)]


@dataclass(frozen=True)
class Stale:
    """What has to go before make runs: packages to build anew, and whether to configure the kernel.

    `removed` are packages that the new configuration has no more.
    """

    rebuilt: frozenset[str]
    removed: frozenset[str]
    configure_kernel: bool

    def __bool__(self) -> bool:
        return bool(self.rebuilt or self.removed or self.configure_kernel)


def stale(old: Table, new: Table) -> Stale:
    """What of an output directory with the packages `old` cannot stay when it is to hold `new`."""
    removed = frozenset(old.keys() - new.keys())
    changed = {
        name
        for name, package in old.items()
        if name in new and (package.digest, package.directory) != (new[name].digest, new[name].directory)
    }
    changed = set(with_dependents(changed, new))
    before, after = old.get(LINUX), new.get(LINUX)
    configure = bool(before and after and before.configuration != after.configuration)
    return Stale(frozenset(changed & old.keys()), removed, configure and LINUX not in changed)


def with_dependents(names: Iterable[str], packages: Table) -> frozenset[str]:
    """Some packages, and all that are built on top of them."""
    users: dict[str, list[str]] = {}
    for name, package in packages.items():
        for need in package.needs:
            users.setdefault(need, []).append(name)
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += users.get(name, ())
    return frozenset(found)


def shared(config: str) -> str:
    """The lines of a `.config` that all packages follow from: an output directory is for one set of them."""
    lines = (line for line in config.splitlines() if re.match(r"(# )?BR2_", line))
    return "\n".join(line for line in lines if not (_OF_PACKAGES.match(line) or _ELSEWHERE.match(line)))


def to_json(packages: Table) -> str:
    """A table as it is kept beside an output directory."""
    return json.dumps({name: asdict(package) for name, package in packages.items()}, indent=1)


def from_json(text: str) -> Table:
    """A table that was kept.

    Raises:
        ValueError: it is not one, or of another version of hal.
    """
    try:
        return {
            name: Package(**{**fields, "needs": tuple(fields["needs"])})
            for name, fields in json.loads(text).items()
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from error
