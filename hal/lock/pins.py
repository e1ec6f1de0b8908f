"""What a lock pins: artifacts, each with its content's digest and its source, and the lock as a value.

An artifact's source is one of

    debian:ARCHIVE/POOL_PATH   a file of Debian's `main` or `security` archive
    pypi:PROJECT==VERSION      a file of a PyPI project; the artifact's name says which
    index:PROJECT==VERSION     the same, on an index or in a directory that pip is told of besides PyPI
                               (`extra-index-url`, `find-links`): builds such as torch 2.13.0+cpu
    huggingface:REPOSITORY@COMMIT/PATH   a file of a repository on the Hugging Face hub
    ollama:MODEL:TAG           a file of a tag in Ollama's registry: its manifest, or a blob by its sha256
    https://… or http://…      that URL
    file:/ABSOLUTE/PATH        a file on this machine
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from hal.errors import HalError

SCHEMA = 1
"""Raised whenever an older hal could misread the file."""

Archive = Literal["main", "security"]
ARCHIVES: tuple[Archive, ...] = get_args(Archive)

_SHA256 = re.compile(r"[0-9a-f]{64}")
PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
REFRESH = "`hal lock` writes a good one"
"""What mends a lock."""


@dataclass(frozen=True)
class DebianSource:
    """A file of a Debian archive: `path` is relative to the archive's root, as in a Packages index."""

    archive: Archive
    path: str


@dataclass(frozen=True)
class PypiSource:
    """A file of one release of a PyPI project."""

    project: str
    version: str


@dataclass(frozen=True)
class IndexSource:
    """A file of one release of a project that PyPI does not have."""

    project: str
    version: str


@dataclass(frozen=True)
class UrlSource:
    """A file at a URL."""

    url: str


@dataclass(frozen=True)
class FileSource:
    """A file on this machine."""

    path: Path


@dataclass(frozen=True)
class HubSource:
    """A file of a repository on the Hugging Face hub, at a commit."""

    repository: str
    revision: str
    path: str


@dataclass(frozen=True)
class RegistrySource:
    """A file of a model's tag in Ollama's registry."""

    model: str
    tag: str


Source = DebianSource | PypiSource | IndexSource | HubSource | RegistrySource | UrlSource | FileSource


def parse_source(text: str) -> Source:
    """What an artifact's source says (the forms are in this module's docstring).

    Raises:
        ValueError: it is in none of the known forms; the message says what is wrong.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is no source: it has no kind before a colon")
    if kind == "debian":
        archive, _, path = rest.partition("/")
        if archive not in ARCHIVES:
            raise ValueError(f"{archive!r} is no Debian archive, use {' or '.join(ARCHIVES)}")
        if not path or any(step in ("", ".", "..") for step in path.split("/")):
            raise ValueError(f"{path!r} is no path in a Debian archive")
        return DebianSource(archive, path)
    if kind in ("pypi", "index"):
        project, equals, version = rest.partition("==")
        if not equals or not version or not PROJECT.fullmatch(project):
            raise ValueError(f"{text!r} is not of the form {kind}:PROJECT==VERSION")
        return PypiSource(project, version) if kind == "pypi" else IndexSource(project, version)
    if kind == "huggingface":
        found = re.fullmatch(r"([^/@]+/[^/@]+)@([0-9a-f]{40})/(.+)", rest)
        if found is None:
            raise ValueError(f"{text!r} is not of the form huggingface:REPOSITORY@COMMIT/PATH")
        return HubSource(*found.groups())
    if kind == "ollama":
        model, colon, tag = rest.rpartition(":")
        if not colon or model.count("/") != 1 or "/" in tag:
            raise ValueError(f"{text!r} is not of the form ollama:NAMESPACE/NAME:TAG")
        return RegistrySource(model, tag)
    if kind in ("https", "http") and rest.startswith("//"):
        return UrlSource(text)
    if kind == "file":
        path = rest.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{text!r} is not an absolute path")
        return FileSource(Path(path))
    raise ValueError(
        f"{text!r} is of no known kind: debian:, pypi:, index:, huggingface:, ollama:, https: or file:"
    )


@dataclass(frozen=True)
class Artifact:
    """A file from outside: its name, its content (sha256 in lower-case hex, size in bytes), its source."""

    name: str
    sha256: str
    size: int
    source: str

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name in (".", ".."):
            raise ValueError(f"name: {self.name!r} is no file name")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256: {self.sha256!r} is not 64 lower-case hexadecimal digits")
        if self.size < 0:
            raise ValueError(f"size: {self.size} is negative")
        try:
            parse_source(self.source)
        except ValueError as error:
            raise ValueError(f"source: {error}") from None


@dataclass(frozen=True)
class DebianPackage(Artifact):
    """A Debian binary package at one version; `architecture` is Debian's word (`amd64`, `all`)."""

    package: str
    version: str
    architecture: str


@dataclass(frozen=True)
class Wheel(Artifact):
    """A Python wheel; its source is always of the kind `pypi` or `index`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source.startswith(("pypi:", "index:")):
            raise ValueError(f"source: {self.source!r} does not begin with pypi: or index:")
        if not self.name.endswith(".whl"):
            raise ValueError(f"name: {self.name!r} is no wheel")

    @property
    def project(self) -> str:
        """The project's name."""
        return self.source.partition(":")[2].partition("==")[0]

    @property
    def version(self) -> str:
        """The project's version."""
        return self.source.partition("==")[2]


@dataclass(frozen=True)
class DebianLock:
    """Named sets of Debian packages, resolved together at one moment (`created`, UTC)."""

    suite: str
    architecture: str
    created: datetime
    sets: Mapping[str, tuple[DebianPackage, ...]]


@dataclass(frozen=True)
class Lock:
    """The content of `hal.lock`; `wheels` are keyed by PyPI project.

    `wheel_sets` are keyed `NAME==VERSION`: a package of that version with all that it needs.
    """

    debian: DebianLock
    wheels: Mapping[str, Wheel]
    wheel_sets: Mapping[str, tuple[Wheel, ...]] = field(default_factory=dict)
    schema: int = SCHEMA

    def packages(self, name: str) -> tuple[DebianPackage, ...]:
        """The Debian packages of one set.

        Raises:
            HalError: the lock has no such set.
        """
        try:
            return self.debian.sets[name]
        except KeyError:
            known = ", ".join(self.debian.sets) or "none"
            message = f"the lock has no set of Debian packages {name!r} (it has: {known})"
            raise HalError(message, REFRESH) from None

    def wheel(self, project: str) -> Wheel:
        """The pinned wheel of a PyPI project.

        Raises:
            HalError: the lock pins none.
        """
        try:
            return self.wheels[project]
        except KeyError:
            raise HalError(
                f"the lock pins no wheel of {project!r}", "name it in hal/inputs.yaml and run `hal lock`"
            ) from None

    def wheel_set(self, name: str, version: str) -> tuple[Wheel, ...]:
        """The wheels of one version of a set.

        Raises:
            HalError: the lock does not have this version.
        """
        try:
            return self.wheel_sets[f"{name}=={version}"]
        except KeyError:
            there = ", ".join(self.wheel_set_versions(name)) or "no version of it"
            raise HalError(
                f"the lock has no wheels of {name} {version} (it has {there})",
                f"add {name} {version} to `wheel_sets` in hal/inputs.yaml and run `hal lock`",
            ) from None

    def wheel_set_versions(self, name: str) -> tuple[str, ...]:
        """The versions of a set that the lock has."""
        keys = (key.partition("==") for key in self.wheel_sets)
        return tuple(version for found, _, version in keys if found == name)
