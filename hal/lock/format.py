"""A lock as JSON: read strictly, written one artifact to a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from hal.lock.pins import PROJECT, SCHEMA, Artifact, DebianLock, DebianPackage, Lock, Wheel


def parse_lock(document: object) -> Lock:
    """A lock from its JSON, every value checked.

    Raises:
        ValueError: a value is wrong; the message begins with its key.
    """
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
    if not (PROJECT.fullmatch(name) and equals and version):
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
