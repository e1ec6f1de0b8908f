"""Resolving Debian packages: from the few asked for by name to every exact file, from the signed index.

apt does the work, with a private root in the cache: no packages installed, no configuration of the host
but its way to the network, and Debian's keyring as the only trust. What comes out names archive and pool
path, so any mirror can serve it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict

from hal.cache import Cache
from hal.documents.datafile import read_data
from hal.errors import HalError
from hal.fetch.debian_mirror import DebianMirror
from hal.lock.file import ARCHIVES, Archive, DebianLock, DebianPackage
from hal.run import run

SETS_PATH = Path(__file__).resolve().parents[1] / "bases" / "debian.yaml"
"""The sets of packages that hal asks for."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""From the package debian-archive-keyring: the keys that sign Debian's archives."""

ESSENTIAL = "?essential ?not(?name(^apt$))"
"""An apt pattern (apt-patterns(7)); `packages` may still name apt."""

_URI = re.compile(r"'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})")
_DIRECTORIES = (
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
    "var/lib/dpkg",
)
"""What apt wants to find in its root."""

_WAY_OUT = ("Acquire::Check-", "Acquire::http", "Acquire::https", "Acquire::ForceIPv")
"""The host's apt settings that hold for its network and its clock: proxies, certificates, date checks."""


class PackageSet(BaseModel):
    """Packages that are resolved together.

    `essential` adds Debian's essential packages (but not apt, which counts itself among them); without
    `dependencies` only the named packages count; `on_top_of` names a set whose packages, at their versions,
    are there already and do not count; `keep` is a regular expression: of what was resolved, only packages
    with such names count. `suite` is another suite than the sets' own; what is taken from it is
    unpacked beside the root, never installed into it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    packages: list[str]
    essential: bool = False
    dependencies: bool = True
    on_top_of: str | None = None
    keep: str = ""
    suite: str | None = None


class PackageSets(BaseModel):
    """The content of `bases/debian.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    suite: str
    sets: Mapping[str, PackageSet]

    def ordered(self) -> tuple[str, ...]:
        """The sets' names, each after the one that it is on top of.

        Raises:
            ValueError: one is on top of a set that is not there, or of itself.
        """
        done: list[str] = []
        while len(done) < len(self.sets):
            ready = [
                name
                for name, wanted in self.sets.items()
                if name not in done and (wanted.on_top_of is None or wanted.on_top_of in done)
            ]
            if not ready:
                stuck = next(name for name in self.sets if name not in done)
                raise ValueError(f"sets.{stuck}.on_top_of: {self.sets[stuck].on_top_of!r} cannot be below it")
            done += ready
        return tuple(done)

    def connected(self, names: Iterable[str]) -> PackageSets:
        """The sets that share a stack with one of `names`, and so must be resolved again with it."""
        bottoms = {self._bottom(name) for name in names if name in self.sets}
        chosen = {name: wanted for name, wanted in self.sets.items() if self._bottom(name) in bottoms}
        return PackageSets(suite=self.suite, sets=chosen)

    def _bottom(self, name: str) -> str:
        while (below := self.sets[name].on_top_of) is not None:
            name = below
        return name


def load_sets(path: Path = SETS_PATH) -> PackageSets:
    """Read the sets of packages that are asked for.

    Raises:
        HalError: the file cannot be read, or a value in it is wrong.
    """
    sets = read_data(path, PackageSets)
    try:
        sets.ordered()
    except ValueError as error:
        raise HalError(f"{path}: {error}") from None
    return sets


def resolve_debian(
    sets: PackageSets,
    architecture: str,
    mirror: DebianMirror,
    cache: Cache,
    keyring: Path = KEYRING,
    kept: Mapping[str, tuple[DebianPackage, ...]] = MappingProxyType({}),
) -> DebianLock:
    """Find every package of every set as the mirror's signed index has it now.

    `architecture` is Debian's word (`amd64`). Sets of `kept` stay as they are; others may be on top of them.

    Raises:
        HalError: apt or the keyring is missing, the mirror cannot be used, or a set cannot be satisfied.
    """
    if not keyring.exists():
        raise HalError(
            f"{keyring}: Debian's keyring is not installed",
            "`apt-get install debian-archive-keyring` brings it",
        )
    identity = sha256(
        "\n".join([mirror.main, mirror.security, sets.suite, architecture, str(keyring)]).encode()
    )
    name = f"apt-{identity.hexdigest()[:16]}"
    with cache.lock(name):
        suites: dict[str, _Apt] = {}
        fresh = [wanted for set_name, wanted in sets.sets.items() if set_name not in kept]
        for suite in dict.fromkeys([sets.suite, *(wanted.suite or sets.suite for wanted in fresh)]):
            root = cache.root / name if suite == sets.suite else cache.root / name / suite
            suites[suite] = _Apt(root, suite, architecture, mirror, keyring)
            suites[suite].update()
        created = datetime.now(UTC).replace(microsecond=0)
        found: dict[str, tuple[DebianPackage, ...]] = {}
        whole: dict[str | None, tuple[DebianPackage, ...]] = {None: ()}
        for name in sets.ordered():
            wanted = sets.sets[name]
            below = whole[wanted.on_top_of]
            found[name] = kept.get(name) or suites[wanted.suite or sets.suite].resolve(name, wanted, below)
            whole[name] = (*below, *found[name])
    return DebianLock(sets.suite, architecture, created, MappingProxyType(found))


@dataclass(frozen=True)
class _Apt:
    """apt with a root of its own in `root`."""

    root: Path
    suite: str
    architecture: str
    mirror: DebianMirror
    keyring: Path

    def update(self) -> None:
        """Fetch the indexes and check their signatures."""
        for directory in _DIRECTORIES:
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        (self.root / "var/lib/dpkg/status").write_text("")
        (self.root / "etc/apt/sources.list").write_text(self._sources())
        (self.root / "apt.conf").write_text(self._settings())
        done = run(["apt-get", "update", "-qq"], env=self._env, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
            raise HalError(
                f"the Debian mirror {self.mirror.main} ({self.mirror.chosen_by}) cannot be used",
                "check the network, or name another: --mirror URL",
                details=tuple(f"  | {line}" for line in lines[:2]),
            )

    def resolve(
        self, name: str, wanted: PackageSet, below: Sequence[DebianPackage]
    ) -> tuple[DebianPackage, ...]:
        """The packages of one set, without those of `below`, in the order of their names."""
        named = sorted(wanted.packages)
        if wanted.dependencies:
            essential = [ESSENTIAL] if wanted.essential else []
            given = [f"{p.package}={p.version}" for p in below]
            command = ["apt-get", "install", "--yes", "-q", "--print-uris", *essential, *given, *named]
        else:
            command = ["apt-get", "download", "-qq", "--print-uris", *named]
        done = run(command, env=self._env, check=False)
        if done.returncode != 0:
            said = [line for line in done.stdout.splitlines() if "Depends:" in line]
            said += [line for line in done.stderr.splitlines() if line.startswith("E:")]
            raise HalError(
                f"{self.suite}: the Debian packages of the set {name!r} cannot be resolved",
                details=tuple(f"  | {line.strip()}" for line in said[:6]),
            )
        there = {package.package for package in below}
        lines = (line for line in done.stdout.splitlines() if line.startswith("'"))
        found = {package.package: package for package in map(self._package, lines)}
        if lost := set(named) - found.keys() - there:
            raise HalError(f"apt resolved the set {name!r} without {', '.join(sorted(lost))}")
        kept = re.compile(wanted.keep)
        return tuple(found[package] for package in sorted(found.keys() - there) if kept.search(package))

    def _package(self, line: str) -> DebianPackage:
        """From a line of `--print-uris`: 'URI' PACKAGE_VERSION_ARCHITECTURE.deb SIZE SHA256:HEX"""
        found = _URI.fullmatch(line.strip())
        if not found:
            raise HalError(f"apt printed what is not understood: {line!r}")
        uri, name, size, digest = found.groups()
        package, version, architecture = unquote(name).removesuffix(".deb").split("_")
        archive, path = self._place(uri)
        return DebianPackage(
            name=path.rpartition("/")[2],
            sha256=digest,
            size=int(size),
            source=f"debian:{archive}/{path}",
            package=package,
            version=version,
            architecture=architecture,
        )

    def _place(self, uri: str) -> tuple[Archive, str]:
        for archive in ARCHIVES:
            base = _plain(self.mirror.base(archive)) + "/"
            if _plain(uri).startswith(base):
                return archive, unquote(_plain(uri).removeprefix(base))
        raise HalError(f"apt found a package at {uri}, which is on neither archive of the mirror")

    @property
    def _env(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.root / "apt.conf")}

    def _sources(self) -> str:
        places = [
            (self.mirror.main, self.suite),
            (self.mirror.main, f"{self.suite}-updates"),
            (self.mirror.security, f"{self.suite}-security"),
        ]
        return "".join(f"deb [signed-by={self.keyring}] {uri} {suite} main\n" for uri, suite in places)

    def _settings(self) -> str:
        host = run(["apt-config", "dump"], check=False).stdout.splitlines()
        settings = {
            "Dir": str(self.root),
            "Dir::State::status": str(self.root / "var/lib/dpkg/status"),
            "Dir::Etc::trusted": "/dev/null",  # no keys but those of `signed-by`
            "APT::Architecture": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # root's cache need not be readable by the user `_apt`
            "APT::Update::Error-Mode": "any",  # an index that cannot be had is an error, not a warning
            "Acquire::Retries": "2",  # apt's three take seven seconds when there is no network
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",  # a whole index comes faster
            "Acquire::ForceHash": "SHA256",  # what --print-uris prints
        }
        return "\n".join(
            [
                *(line for line in host if line.startswith(_WAY_OUT)),
                *(f'{name} "{value}";' for name, value in settings.items()),
                f'APT::Architectures {{ "{self.architecture}"; }};',
                "",
            ]
        )


def _plain(uri: str) -> str:
    """A file URI in the one of its two forms that apt prints."""
    return f"file:{uri.removeprefix('file://')}" if uri.startswith("file://") else uri
