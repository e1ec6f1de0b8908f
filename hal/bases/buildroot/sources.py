"""Other sources for Buildroot's packages than their authors' sites (docs/buildroot-sources.md).

A site whose mirror is not complete, or that has no network at all, names for each package what it has:
version, file, where it lies, its sha256. hal fetches and checks those files and renders what Buildroot reads
in place of its own words: a makefile of `override` lines (`BR2_PACKAGE_OVERRIDE_FILE`), one hash file per
package, patches.

    override.mk         read before Buildroot's packages; `override` makes its values stand
    files/              the archives, named PACKAGE-VERSION.EXTENSION: a site that Buildroot downloads from
    hashes/PACKAGE.hash what those must be
    patches/PACKAGE/    patches in place of Buildroot's
    installed/PACKAGE/  what stands in for host programs that are not built
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from hal.documents.datafile import read_data
from hal.errors import HalError
from hal.lock.pins import Artifact
from hal.trees import file_digests, inputs_digest

KEEP: Literal["keep"] = "keep"
DROP: Literal["drop"] = "drop"
OWN = "buildroot:"

RECIPE = "1"
"""Changes when all packages have to be built anew."""

HEAD = """\
# Sources of packages, as a sources file says. Without `override` the packages' own values would come last.
hal-sources := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
hal-buildroots-patches := $(value pkg-patches-dirs)
$(eval hal-patches-by-buildroot = $(value hal-buildroots-patches))
override pkg-patches-dirs = $(strip $(if $(HAL_PATCHES_$($(1)_RAWNAME)),\\
	$(HAL_PATCHES_$($(1)_RAWNAME)) \\
	$(filter-out $(patsubst %/,%,$($(1)_PKGDIR))%,$(call hal-patches-by-buildroot,$(1))),\\
	$(call hal-patches-by-buildroot,$(1))))
"""
"""The last definition takes patches from elsewhere where a package's source is of another version."""

PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+_.-]*$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]


class PackageSource(BaseModel):
    """One package's source.

    `patches` is `keep` (Buildroot's own), `drop`, `buildroot:VERSION` (those that Buildroot has for that
    version) or a directory beside the sources file. `also` names packages that are built from the same
    archive. `variables` are make variables of the package that follow from its version.

    `installed` stands for a host package that is not built at all: files of the host tools' tree, by where
    they go in Buildroot's host directory; programs (in `bin`, `sbin`) become scripts that set `environment`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: str | None = None
    file: str | None = None
    location: str | None = None
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    size: int | None = None
    subdirectory: str | None = None
    autoreconf: bool = False
    patches: str = KEEP
    also: list[PackageName] = Field(default_factory=list)
    variables: dict[VariableName, str] = Field(default_factory=dict)
    installed: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> PackageSource:
        archive = (self.version, self.file, self.location, self.sha256, self.size)
        if self.installed and any(archive):
            raise ValueError("a package is either `installed` or has an archive")
        if not self.installed and None in archive:
            raise ValueError("version, file, location, sha256 and size belong together")
        return self


class SourcesFile(BaseModel):
    """The content of a sources file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    packages: dict[PackageName, PackageSource]


@dataclass(frozen=True)
class Sources:
    """A sources file that was read.

    `directory` is where it lies; patches are looked for there and in `patch_directories`.
    """

    packages: Mapping[str, PackageSource]
    directory: Path
    patch_directories: tuple[Path, ...] = ()

    def artifacts(self) -> list[Artifact]:
        """What is to be fetched."""
        return [self._artifact(package) for package in self.packages.values() if package.file]

    def digests(self) -> dict[str, str]:
        """What of each package follows from the file: another digest, and it is to be built anew."""
        return {
            name: inputs_digest(
                RECIPE, package.model_dump_json(), *file_digests(self._patches(name, package))
            )
            for name, package in self.packages.items()
        }

    def lines(self, place: str) -> list[str]:
        """The lines of a defconfig that make Buildroot read what `lay_out` makes, when it lies at `place`."""
        return [
            f'BR2_PACKAGE_OVERRIDE_FILE="{place}/override.mk"',
            f'BR2_PRIMARY_SITE="file://{place}/files"',
        ]

    def lay_out(self, blobs: Mapping[str, Path], tree: Path) -> None:
        """Fill `tree`; `blobs` maps sha256 to fetched files."""
        for name in ("files", "hashes", "patches", "no-patches", "installed"):
            (tree / name).mkdir()
        (tree / "override.mk").write_text(self.override())
        for name, package in sorted(self.packages.items()):
            if package.sha256 is not None:
                _link(blobs[package.sha256], tree / "files" / archive_name(name, package))
                digest = f"sha256  {package.sha256}  {archive_name(name, package)}\n"
                (tree / "hashes" / f"{name}.hash").write_text(digest)
            patches = self._patches(name, package)
            if patches:
                (tree / "patches" / name).mkdir()
            for patch in patches:
                shutil.copyfile(patch, tree / "patches" / name / patch.name)
            for target, source in package.installed.items():
                _stand_in(tree / "installed" / name / "tree" / target, source, package.environment)

    def override(self) -> str:
        """The makefile that has the packages' new values."""
        parts = [HEAD]
        parts += ["\n".join(_lines(name, package)) for name, package in sorted(self.packages.items())]
        return "\n\n".join(parts) + "\n"

    def _artifact(self, package: PackageSource) -> Artifact:
        assert package.file and package.location and package.sha256 and package.size is not None
        return Artifact(package.file, package.sha256, package.size, source(package, self.directory))

    def _patches(self, name: str, package: PackageSource) -> list[Path]:
        if package.patches in (KEEP, DROP) or package.patches.startswith(OWN):
            return []
        for directory in (self.directory, *self.patch_directories):
            if found := sorted((directory / package.patches).glob("*.patch")):
                return found
        raise HalError(
            f"{name}: there are no patches in {self.directory / package.patches}",
            "name a directory beside the sources file, or `drop`, or `keep`",
        )


def load_sources(path: Path, patch_directories: tuple[Path, ...] = ()) -> Sources:
    """Read a sources file; its patches may also lie in `patch_directories`.

    Raises:
        HalError: it cannot be read, or a value in it is wrong.
    """
    sources = Sources(read_data(path, SourcesFile).packages, path.absolute().parent, patch_directories)
    try:
        sources.artifacts()
    except ValueError as error:
        raise HalError(f"{path}: {error}") from None
    return sources


def source(package: PackageSource, directory: Path) -> str:
    """A package's source as a lock would have it; a location without a kind is a directory here."""
    assert package.location is not None
    location = package.location
    if location.startswith("pypi:"):
        return location
    if re.match(r"[a-z]+:", location):
        return f"{location.rstrip('/')}/{package.file}"
    return f"file:{(directory / location / str(package.file)).absolute()}"


def archive_name(name: str, package: PackageSource) -> str:
    """What Buildroot calls a package's archive; Debian's own names may hold what URLs do not."""
    found = re.search(r"\.(?:tar(?:\.\w+)?|tgz|zip|whl)$", str(package.file))
    return f"{name}-{package.version}{found[0] if found else ''}"


def _lines(name: str, package: PackageSource) -> Iterator[str]:
    """The makefile's lines on one package."""
    prefix = name.upper().replace("-", "_")
    yield from (f"override {variable} = {value}" for variable, value in package.variables.items())
    if package.installed:
        yield f"override HOST_{prefix}_OVERRIDE_SRCDIR = $(hal-sources)/installed/{name}"
        yield f"override HOST_{prefix}_DEPENDENCIES ="
        yield f"override HOST_{prefix}_AUTORECONF = NO"
        yield f"override HOST_{prefix}_LICENSE_FILES ="
        yield f"override HOST_{prefix}_CONFIGURE_CMDS = :"
        yield f"override HOST_{prefix}_BUILD_CMDS = :"
        yield f"override HOST_{prefix}_INSTALL_CMDS = cp -R $(@D)/tree/. $(HOST_DIR)/"
        return
    yield f"override {prefix}_VERSION = {package.version}"
    yield f"override {prefix}_SOURCE = {archive_name(name, package)}"
    yield f"override {prefix}_SITE = file://$(hal-sources)/files"
    for known in (name, *package.also):
        of = known.upper().replace("-", "_")
        yield f"override {of}_HASH_FILES = $(hal-sources)/hashes/{name}.hash"
        yield f"override HOST_{of}_HASH_FILES = $(hal-sources)/hashes/{name}.hash"
        if package.patches == DROP:
            yield f"HAL_PATCHES_{known} = $(hal-sources)/no-patches"
        elif package.patches.startswith(OWN):
            yield f"HAL_PATCHES_{known} = $({of}_PKGDIR)/{package.patches.removeprefix(OWN)}"
        elif package.patches != KEEP:
            yield f"HAL_PATCHES_{known} = $(hal-sources)/patches/{name}"
    if package.subdirectory is not None:
        yield f"override {prefix}_SUBDIR = {package.subdirectory}"
    if package.autoreconf:
        yield f"override {prefix}_AUTORECONF = YES"


def _stand_in(target: Path, source: str, environment: Mapping[str, str]) -> None:
    """A script that runs a program of the host tools' tree, or a link to a file of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if PurePosixPath(source).parent.name in ("bin", "sbin"):
        words = "".join(f'{name}="{value}" ' for name, value in environment.items())
        target.write_text(f'#!/bin/sh\n{words}exec {source} "$@"\n')
        target.chmod(0o755)
    else:
        target.symlink_to(source)


def _link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)
