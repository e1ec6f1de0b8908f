"""The lock: every outside input pinned by version, source, size and sha256 (`hal.lock`, committed).

A lock names no host. Where the bytes come from (which mirror, which index) is decided when they are
fetched, see `hal.sources`; that they are the right bytes is decided here, by their sha256.

An artifact's source is one of

    debian:ARCHIVE/POOL_PATH   a file of Debian's `main` or `security` archive
    pypi:PROJECT==VERSION      a file of a PyPI project; the artifact's name says which
    index:PROJECT==VERSION     the same, on an index or in a directory that pip is told of besides PyPI
                               (`extra-index-url`, `find-links`): builds such as torch 2.13.0+cpu
    https://… or http://…      that URL
    file:/ABSOLUTE/PATH        a file on this machine
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from hal.errors import HalError

SCHEMA = 1
"""Raised whenever an older hal could misread the file."""

LOCK_PATH = Path(__file__).with_name("hal.lock")
"""The lock that hal ships with."""

Archive = Literal["main", "security"]
ARCHIVES: tuple[Archive, ...] = get_args(Archive)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REFRESH = "`hal lock` writes a good one"


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


Source = DebianSource | PypiSource | IndexSource | UrlSource | FileSource


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
        if not equals or not version or not _PROJECT.fullmatch(project):
            raise ValueError(f"{text!r} is not of the form {kind}:PROJECT==VERSION")
        return PypiSource(project, version) if kind == "pypi" else IndexSource(project, version)
    if kind in ("https", "http") and rest.startswith("//"):
        return UrlSource(text)
    if kind == "file":
        path = rest.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{text!r} is not an absolute path")
        return FileSource(Path(path))
    raise ValueError(f"{text!r} is of no known kind: debian:, pypi:, index:, https: or file:")


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
            raise HalError(message, _REFRESH) from None

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


def load_lock(path: Path = LOCK_PATH) -> Lock:
    """Read a lock, checking every value of it.

    Raises:
        HalError: the file is missing, is no JSON, or a value is wrong; the message names file and key.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise HalError(f"{path}: there is no lock here", _REFRESH) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise HalError(f"{path}: cannot be read as a lock: {error}", _REFRESH) from None
    try:
        return _lock(document)
    except ValueError as error:
        raise HalError(f"{path}: {error}", _REFRESH) from None


def _lock(document: object) -> Lock:
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise ValueError(f"schema: this hal reads schema {SCHEMA}, the file has {schema}")
    top = _object(document, "", {"schema": int, "debian": dict, "wheels": dict, "wheel_sets": dict})
    kinds = {"suite": str, "architecture": str, "created": str, "sets": dict}
    debian = _object(top["debian"], "debian", kinds)
    sets = {name: _packages(rows, f"debian.sets.{name}") for name, rows in debian["sets"].items()}
    wheels = {project: _wheel(row, f"wheels.{project}", project) for project, row in top["wheels"].items()}
    wheel_sets = {name: _wheel_set(rows, f"wheel_sets.{name}") for name, rows in top["wheel_sets"].items()}
    return Lock(
        DebianLock(
            debian["suite"], debian["architecture"], _moment(debian["created"]), MappingProxyType(sets)
        ),
        MappingProxyType(wheels),
        MappingProxyType(wheel_sets),
    )


def _object(value: object, key: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """`value` as a JSON object that has exactly `fields`, each of its type."""
    where = f"{key}: " if key else ""
    if not isinstance(value, dict):
        raise ValueError(f"{where}expected an object, found {type(value).__name__}")
    if value.keys() != fields.keys():
        odd = sorted(value.keys() - fields.keys())
        missing = sorted(fields.keys() - value.keys())
        raise ValueError(
            f"{where}unknown key {odd[0]!r}" if odd else f"{where}the key {missing[0]!r} is missing"
        )
    for name, kind in fields.items():
        if type(value[name]) is not kind:  # `type`, since isinstance takes true for an int
            found = type(value[name]).__name__
            raise ValueError(f"{f'{key}.{name}'.lstrip('.')}: expected {kind.__name__}, found {found}")
    return value


_PACKAGE_FIELDS = {
    "package": str,
    "version": str,
    "architecture": str,
    "size": int,
    "sha256": str,
    "source": str,
}
_WHEEL_FIELDS = {"name": str, "size": int, "sha256": str, "source": str}


def _packages(rows: object, key: str) -> tuple[DebianPackage, ...]:
    if not isinstance(rows, list):
        raise ValueError(f"{key}: expected a list, found {type(rows).__name__}")
    packages = tuple(_package(row, f"{key}[{number}]") for number, row in enumerate(rows))
    seen: set[str] = set()
    for package in packages:
        if package.package in seen:
            raise ValueError(f"{key}: {package.package} is listed twice")
        seen.add(package.package)
    return packages


def _package(row: object, key: str) -> DebianPackage:
    fields = _object(row, key, _PACKAGE_FIELDS)
    if not fields["source"].startswith("debian:"):
        raise ValueError(f"{key}.source: {fields['source']!r} does not begin with debian:")
    try:
        return DebianPackage(name=fields["source"].rpartition("/")[2], **fields)
    except ValueError as error:
        raise ValueError(f"{key}.{error}") from None


def _wheel(row: object, key: str, project: str) -> Wheel:
    fields = _object(row, key, _WHEEL_FIELDS)
    if not fields["source"].startswith(f"pypi:{project}=="):
        raise ValueError(f"{key}.source: {fields['source']!r} does not begin with pypi:{project}==")
    return _built(fields, key)


def _wheel_set(rows: object, key: str) -> tuple[Wheel, ...]:
    name, equals, version = key.removeprefix("wheel_sets.").partition("==")
    if not (_PROJECT.fullmatch(name) and equals and version):
        raise ValueError(f"{key}: the key is not of the form NAME==VERSION")
    if not isinstance(rows, list):
        raise ValueError(f"{key}: expected a list, found {type(rows).__name__}")
    wheels = [
        _built(_object(row, f"{key}[{number}]", _WHEEL_FIELDS), f"{key}[{number}]")
        for number, row in enumerate(rows)
    ]
    projects = [wheel.project for wheel in wheels]
    twice = next((project for project in projects if projects.count(project) > 1), None)
    if twice:
        raise ValueError(f"{key}: {twice} is listed twice")
    return tuple(wheels)


def _built(fields: Mapping[str, Any], key: str) -> Wheel:
    try:
        return Wheel(**fields)
    except ValueError as error:
        raise ValueError(f"{key}.{error}") from None


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"debian.created: {text!r} is no UTC time like 2026-01-31T12:00:00Z") from None


def format_lock(lock: Lock) -> str:
    """The text of a lock: JSON, sorted, one artifact to a line, so that a change reads well in a diff."""
    debian = lock.debian
    sets = [
        f"  {json.dumps(name)}: [\n{_rows(_package_row(p) for p in _sorted(debian.sets[name]))}\n  ]"
        for name in sorted(debian.sets)
    ]
    wheels = _rows(
        f"{json.dumps(project)}: {json.dumps(_row(lock.wheels[project], _WHEEL_FIELDS))}"
        for project in sorted(lock.wheels)
    )
    wheel_sets = ",\n".join(
        f" {json.dumps(name)}: [\n"
        + _rows(json.dumps(_row(w, _WHEEL_FIELDS)) for w in sorted(lock.wheel_sets[name], key=_project))
        + "\n ]"
        for name in sorted(lock.wheel_sets)
    )
    head = {"suite": debian.suite, "architecture": debian.architecture}
    created = debian.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return "\n".join(
        [
            "{",
            f'"schema": {lock.schema},',
            '"debian": {',
            *(f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()),
            f' "created": "{created}",',
            ' "sets": {',
            ",\n".join(sets),
            " }",
            "},",
            '"wheels": {',
            wheels,
            "},",
            '"wheel_sets": {',
            wheel_sets,
            "}",
            "}",
            "",
        ]
    )


def _sorted(packages: Iterable[DebianPackage]) -> list[DebianPackage]:
    return sorted(packages, key=lambda package: package.package)


def _project(wheel: Wheel) -> str:
    return wheel.project


def _row(artifact: Artifact, fields: Iterable[str]) -> dict[str, object]:
    return {name: getattr(artifact, name) for name in fields}


def _package_row(package: DebianPackage) -> str:
    return json.dumps(_row(package, _PACKAGE_FIELDS))


def _rows(rows: Iterable[str]) -> str:
    return ",\n".join(f"   {row}" for row in rows)


def write_lock(lock: Lock, path: Path = LOCK_PATH) -> None:
    """Write a lock so that at every instant the file is either the old one or the new one.

    Raises:
        HalError: it cannot be written (the old file is then untouched).
    """
    text = format_lock(lock)
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise HalError(f"{path}: cannot be written: {error.strerror}") from None
