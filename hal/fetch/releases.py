"""Release archives of engines: which one a spec asks for, and where it comes from.

A release that an engine's file pins comes from the cache, from `--artifact ENGINE=FILE` or from its URL;
its digest decides whether it is the right one. Any other version needs `--artifact
ENGINE=FILE#sha256=DIGEST`: then the user answers for the digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.cache import Cache
from hal.engines import ArchiveArtifact, Engine, Release
from hal.errors import HalError, UsageError
from hal.lock.file import Artifact
from hal.spec.loading import LoadedSpec

OPTION = "--artifact ENGINE=FILE[#sha256=DIGEST]"
_GIVEN = re.compile(r"(?P<engine>[a-z][a-z0-9-]*)=(?P<path>[^#]+)(#sha256=(?P<sha256>[0-9a-fA-F]{64}))?")


@dataclass(frozen=True)
class GivenFile:
    """An archive on this machine that the user named, and the digest where one was given."""

    path: Path
    sha256: str | None


def parse_given(values: Sequence[str]) -> dict[str, GivenFile]:
    """The files of `--artifact`, by engine.

    Raises:
        UsageError: a value has another form, or there is no such file.
    """
    found = {}
    for value in values:
        parts = _GIVEN.fullmatch(value)
        if parts is None:
            raise UsageError(f"--artifact {value}: not of the form {OPTION.partition(' ')[2]}")
        path = Path(parts["path"]).absolute()
        if not path.is_file():
            raise UsageError(f"--artifact {value}: there is no file {path}")
        found[parts["engine"]] = GivenFile(path, (parts["sha256"] or "").lower() or None)
    return found


def archives(
    loaded: LoadedSpec, given: Mapping[str, GivenFile], cache: Cache, *, offline: bool
) -> dict[str, Artifact]:
    """The release archives of the engines of a spec, by the names that `--artifact` knows them by.

    Raises:
        HalError: a version is not pinned and no digest was given for it, or its size cannot be found out.
        UsageError: a file was given for an engine that takes none.
    """
    found = {}
    for engine in loaded.engines:
        for artifact in engine.artifacts.get(loaded.spec.arch, ()):
            if isinstance(artifact, ArchiveArtifact) and needed(artifact, engine, loaded):
                name = artifact.name or engine.name
                version = loaded.choice(engine).version or artifact.version
                found[name] = _archive(name, artifact, version, given.get(name), cache, offline=offline)
    if unused := sorted(given.keys() - found.keys()):
        raise UsageError(
            f"--artifact {unused[0]}=…: the spec takes no archive of this name",
            f"it has {', '.join(sorted(found)) or 'none'}",
        )
    return found


def needed(archive: ArchiveArtifact, engine: Engine, loaded: LoadedSpec) -> bool:
    """Whether the settings of an engine ask for an archive."""
    values = {name: setting.default for name, setting in engine.settings.items()}
    values |= loaded.choice(engine).settings
    return all(values.get(name) in wanted for name, wanted in archive.when.items())


def _archive(
    name: str,
    archive: ArchiveArtifact,
    version: str,
    given: GivenFile | None,
    cache: Cache,
    *,
    offline: bool,
) -> Artifact:
    release = archive.releases.get(version)
    if given is not None:
        sha256 = release.sha256 if release is not None else given.sha256
        if sha256 is None:
            raise HalError(
                f"{name} {version}: hal does not know this version's digest",
                f"give it with the file: --artifact {name}={given.path}#sha256=DIGEST",
            )
        if given.sha256 not in (None, sha256):
            raise UsageError(f"--artifact {name}: {version} has the digest {sha256}, not {given.sha256}")
        return Artifact(given.path.name, sha256, given.path.stat().st_size, f"file:{given.path}")
    if release is None:
        known = f"the versions {', '.join(archive.releases)}" if archive.releases else "no version's digest"
        which = "another one" if archive.releases else "this one"
        raise HalError(
            f"{name} {version}: hal knows {known}",
            f"for {which}, give its archive: {OPTION.replace('ENGINE', name)}",
        )
    return Artifact(
        release.url.rpartition("/")[2], release.sha256, _size(release, cache, offline=offline), release.url
    )


def _size(release: Release, cache: Cache, *, offline: bool) -> int:
    """Bytes of a release: as pinned, as cached, or as its server says."""
    if release.size is not None:
        return release.size
    cached = cache.find(release.sha256)
    if cached is not None:
        return cached.stat().st_size
    if offline:
        return 0  # it will be missed when it is fetched, unless the pack that it makes is there already
    return asked_size(release.url, f"check the network, or give the file: {OPTION}")


def asked_size(url: str, hint: str) -> int:
    """Bytes of the file at a URL, as its server says; `hint` says what else a user can do.

    Raises:
        HalError: the server does not say.
    """
    import requests

    from hal.fetch.http import new_session

    try:
        answer = new_session(1).head(url, allow_redirects=True, timeout=30)
        answer.raise_for_status()
        return int(answer.headers["Content-Length"])
    except (requests.RequestException, KeyError, ValueError) as error:
        raise HalError(f"{url}: its size cannot be found out: {error}", hint) from error
