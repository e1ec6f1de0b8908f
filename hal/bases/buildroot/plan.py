"""What a base is to be made of, before anything is made: all that its name follows from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.bases.buildroot import toolchain
from hal.bases.buildroot.config import Configuration, configuration
from hal.bases.buildroot.downloads import Downloads
from hal.bases.buildroot.prove import Line
from hal.bases.buildroot.release import Release, given_release, pinned_release
from hal.inputs import GivenBuildroot, Inputs
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec
from hal.tools import tools_tree
from hal.trees import file_digests, inputs_digest

PACKAGE_SETS = ("br-tools", "br-toolchain")
"""The lock's package sets that a build reads besides the image tools."""

PROGRAMS = {
    "awk": "gawk",
    "c++": "g++",
    "cc": "gcc",
    "nawk": "gawk",
    "which": "which.debianutils",
    "yacc": "bison",
}
"""Names of programs that Debian's maintainer scripts would have made."""

PROJECT = Path(__file__).resolve().parents[3]
EXTERNAL = PROJECT / "buildroot-external"
SERVICES = PROJECT / "services"

RECIPE = "1"
"""Changes when the way a base is made changes, so that cached ones are made anew."""

OF_KCONFIG = ("Config.in", "external.desc", "external.mk")
OS_DIRECTORIES = ("hal-haproxy", "hal-os")
"""What every configuration reads of the external tree, and its packages that are the OS."""


@dataclass(frozen=True)
class Plan:
    """What a base is to be made of: all that its name follows from."""

    release: Release
    configuration: Configuration
    downloads: Downloads
    toolchain: Path
    tools: Sandbox
    external: Path

    @property
    def digest(self) -> str:
        """The name of the base that comes of it."""
        return inputs_digest(
            RECIPE,
            self.release.digest,
            self.configuration.text(),
            *(f"{file.name} {file.text}" for file in self.configuration.kernel),
            *self.downloads.digests,
            self.toolchain.name,
            self.tools.tree.name,
            external_digest(self.external, self.configuration.lines),
        )


def plan_of(loaded: LoadedSpec, inputs: Inputs) -> Plan:
    """What a spec's base is to be made of; tools and toolchain are in the cache afterwards."""
    lock, cache, fetcher = inputs.lock, inputs.cache, inputs.fetcher
    assert fetcher is not None
    given = inputs.buildroot or GivenBuildroot()
    release = given_release(given.tree, cache) if given.tree is not None else pinned_release(cache)
    downloads = Downloads.of(loaded, fetcher, given.sources)
    tools = tools_tree(lock.packages("br-tools"), inputs.blobs, cache, inputs.epoch, PROGRAMS)
    compiler = toolchain.toolchain(lock.packages("br-toolchain"), inputs.blobs, cache, loaded.spec.arch)
    asked = configuration(loaded.spec, EXTERNAL, downloads.lines)
    return Plan(release, asked, downloads, compiler, tools, EXTERNAL)


def external_digest(external: Path, lines: Sequence[Line]) -> str:
    """The digest of what reaches the OS: Kconfig files, the OS's packages, files that lines name.

    Services and engines do not: hal lays its own over the tree, and a change of them builds no package.
    """
    named = {path for line in lines for path in re.findall(r"_HAL_PATH[)}]/([^\s\"]+)", line.value or "")}
    files = sorted(
        path
        for path in external.rglob("*")
        if path.is_file()
        and (
            path.name in OF_KCONFIG
            or path.parent.name in OS_DIRECTORIES
            or str(path.relative_to(external)) in named
        )
    )
    names = [str(path.relative_to(external)) for path in files]
    return inputs_digest(*names, *file_digests(files))
