"""Making a lock anew: on purpose (`hal lock`), or in memory when a pinned package exists nowhere any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from hal.cache import Cache
from hal.documents.datafile import read_data
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher, GoneError
from hal.fetch.sources import Mirrors
from hal.lock.debian import KEYRING, PackageSets, load_sets, resolve_debian
from hal.lock.file import LOCK_PATH, Artifact, DebianPackage, Lock, format_lock, load_lock, write_lock
from hal.lock.wheelsets import WheelSetWanted

INPUTS_PATH = Path(__file__).resolve().parents[1] / "inputs.yaml"
"""The wheels that hal asks for."""


class WheelWanted(BaseModel):
    """A wheel that is asked for; without `version`, the newest final release."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    project: str
    version: str | None = None


class Inputs(BaseModel):
    """The content of `inputs.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    wheels: list[WheelWanted]
    wheel_sets: list[WheelSetWanted] = []


@dataclass(frozen=True)
class Substitution:
    """A package or wheel that differs from the locked one.

    `locked` and `used` are versions; None where it was not locked before, or is not used now.
    """

    package: str
    locked: str | None
    used: str | None

    def __str__(self) -> str:
        return f"{self.package} {self.locked or '(absent)'} → {self.used or '(absent)'}"


@dataclass(frozen=True)
class Supply:
    """The lock that a build goes by, its files by sha256, and where it departs from the committed lock."""

    lock: Lock
    files: dict[str, Path]
    substitutions: tuple[Substitution, ...]


def load_inputs(path: Path = INPUTS_PATH) -> Inputs:
    """Read which wheels are asked for.

    Raises:
        HalError: the file cannot be read, or a value in it is wrong.
    """
    return read_data(path, Inputs)


def differences(old: Lock, new: Lock) -> tuple[Substitution, ...]:
    """What differs between two locks, in the order of the names."""
    before, after = _versions(old), _versions(new)
    return tuple(
        Substitution(name, ", ".join(sorted(locked)) or None, ", ".join(sorted(used)) or None)
        for name in sorted(before.keys() | after.keys())
        if (locked := before.get(name, frozenset())) != (used := after.get(name, frozenset()))
    )


def _versions(lock: Lock) -> dict[str, frozenset[str]]:
    """The versions of each name: sets may hold different ones after only some were resolved anew."""
    found: dict[str, set[str]] = {}
    for packages in lock.debian.sets.values():
        for package in packages:
            found.setdefault(package.package, set()).add(package.version)
    for project, wheel in lock.wheels.items():
        found.setdefault(project, set()).add(wheel.version)
    for name in lock.wheel_sets:
        project, _, version = name.partition("==")
        found.setdefault(f"{project} (set)", set()).add(version)
    return {name: frozenset(versions) for name, versions in found.items()}


def refresh(
    path: Path = LOCK_PATH,
    mirrors: Mirrors | None = None,
    *,
    cache: Cache | None = None,
    sets: PackageSets | None = None,
    inputs: Inputs | None = None,
    architecture: str = "amd64",
    keyring: Path = KEYRING,
) -> tuple[Substitution, ...]:
    """Resolve everything anew and write the lock; what changed comes back.

    A lock in which nothing changed is left as it is, its time of resolution too. One that cannot be read
    is replaced.

    Raises:
        HalError: the mirror or the package index cannot be used, or something asked for does not exist.
    """
    from hal.fetch.pypi import resolve_wheel
    from hal.lock.wheelsets import resolve_wheel_set

    sets, inputs = sets or load_sets(), inputs or load_inputs()
    mirror = (mirrors or Mirrors()).debian_mirror
    debian = resolve_debian(sets, architecture, mirror, cache or Cache(), keyring)
    wheels = {wanted.project: resolve_wheel(wanted.project, wanted.version) for wanted in inputs.wheels}
    try:
        old = load_lock(path)
    except HalError:
        old = Lock(replace(debian, sets={}), {})
    # A version's set stays as it was resolved and tried, until its entry is taken out of the lock.
    wheel_sets = {
        wanted.key: old.wheel_sets.get(wanted.key) or resolve_wheel_set(wanted)
        for wanted in inputs.wheel_sets
    }
    new = Lock(debian, MappingProxyType(wheels), MappingProxyType(wheel_sets))
    if not _same(old, new):
        write_lock(new, path)
    return differences(old, new)


def refresh_sets(
    names: Sequence[str],
    path: Path = LOCK_PATH,
    mirrors: Mirrors | None = None,
    *,
    cache: Cache | None = None,
    sets: PackageSets | None = None,
    keyring: Path = KEYRING,
) -> tuple[Substitution, ...]:
    """Resolve some sets of Debian packages alone and write the lock; what changed comes back.

    All else stays as it is, the lock's time too: outputs carry it, so that a new one would rename every pack.

    Raises:
        HalError: there is no such set, another one is on top of it, or the mirror cannot be used.
    """
    sets, old = sets or load_sets(), load_lock(path)
    for name in names:
        if name not in sets.sets:
            raise HalError(f"there is no package set {name!r}", f"there are: {', '.join(sets.sets)}")
        above = [top for top, wanted in sets.sets.items() if wanted.on_top_of == name and top not in names]
        if above:
            raise HalError(f"the set {above[0]} is on top of {name}", f"name it too: `--only {above[0]}`")
    kept = {name: packages for name, packages in old.debian.sets.items() if name not in names}
    chosen = {name: wanted for name, wanted in sets.sets.items() if name in names or name in kept}
    mirror = (mirrors or Mirrors()).debian_mirror
    found = resolve_debian(
        PackageSets(suite=sets.suite, sets=chosen),
        old.debian.architecture,
        mirror,
        cache or Cache(),
        keyring,
        kept,
    )
    merged = {**old.debian.sets, **found.sets}
    new = replace(old, debian=replace(old.debian, sets=MappingProxyType(merged)))
    if new != old:
        write_lock(new, path)
    return differences(old, new)


def _same(old: Lock, new: Lock) -> bool:
    """Whether two locks pin the same, whenever they were resolved."""
    return replace(old, debian=replace(old.debian, created=new.debian.created)) == new


def with_successors(
    lock: Lock,
    gone: Iterable[Artifact],
    fetcher: Fetcher,
    *,
    sets: PackageSets | None = None,
    keyring: Path = KEYRING,
) -> tuple[Lock, tuple[Substitution, ...]]:
    """A lock for when some of its Debian packages are gone: with their signed successors and what goes along.

    Only the sets that hold a gone package are resolved anew, with the sets they share a stack with.

    Raises:
        GoneError: what is gone is no Debian package, or the index still lists it.
        HalError: the mirror cannot be used.
    """
    gone = tuple(gone)
    if orphans := [artifact for artifact in gone if not isinstance(artifact, DebianPackage)]:
        raise GoneError(orphans)
    sets = sets or load_sets()
    digests = {artifact.sha256 for artifact in gone}
    touched = [name for name, rows in lock.debian.sets.items() if any(row.sha256 in digests for row in rows)]
    architecture, mirror = lock.debian.architecture, fetcher.mirrors.debian_mirror
    fresh = resolve_debian(sets.connected(touched), architecture, mirror, fetcher.cache, keyring)
    merged = {**lock.debian.sets, **fresh.sets}
    new = replace(lock, debian=replace(lock.debian, created=fresh.created, sets=MappingProxyType(merged)))
    if still := [row for rows in merged.values() for row in rows if row.sha256 in digests]:
        raise GoneError(list(dict.fromkeys(still)))
    return new, differences(lock, new)


def supply(
    fetcher: Fetcher,
    lock: Lock,
    wanted: Callable[[Lock], Iterable[Artifact]],
    *,
    locked: bool = False,
    sets: PackageSets | None = None,
    keyring: Path = KEYRING,
) -> Supply:
    """Fetch what `wanted` picks from a lock, taking successors for what is gone unless `locked`.

    Successors are remembered in the cache, so that later builds from the same lock use the same ones
    and need no network.

    Raises:
        GoneError: something is gone and has no successor, or `locked` forbids one.
        HalError: as `Fetcher.fetch`.
    """
    cache = fetcher.cache
    memory = cache.root / "successors" / f"{_identity(lock)}.lock"
    current = lock
    if not locked and memory.exists() and not _cached(cache, wanted(lock)):
        current = _remembered(memory) or lock
    for _ in range(2):  # the remembered successors may be gone, too
        try:
            return Supply(current, fetcher.fetch(wanted(current)), differences(lock, current))
        except GoneError as error:
            if locked or fetcher.offline:
                raise
            current, _ = with_successors(current, error.artifacts, fetcher, sets=sets, keyring=keyring)
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_lock(current, memory)
        fetcher = fetcher.at(current.debian.created)
    return Supply(current, fetcher.fetch(wanted(current)), differences(lock, current))


def _identity(lock: Lock) -> str:
    return sha256(format_lock(lock).encode()).hexdigest()[:32]


def _cached(cache: Cache, artifacts: Iterable[Artifact]) -> bool:
    return all(cache.find(artifact.sha256, artifact.size) for artifact in artifacts)


def _remembered(path: Path) -> Lock | None:
    try:
        return load_lock(path)
    except HalError:  # written by another version of hal
        return None
