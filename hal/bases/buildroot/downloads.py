"""Where Buildroot's packages come from: their authors, or what a spec's sources file says instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hal.bases.buildroot.make import SOURCES
from hal.cache import Cache
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher, GoneError, WrongContentError
from hal.spec.loading import LoadedSpec
from hal.trees import cached_tree, inputs_digest

if TYPE_CHECKING:
    from hal.bases.buildroot.sources import Sources


@dataclass(frozen=True)
class Downloads:
    """The sources file of a spec, if it has one: lines for the defconfig, digests by package."""

    sources: Sources | None
    fetcher: Fetcher
    path: Path | None = None
    lines: tuple[str, ...] = ()
    by_package: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> tuple[str, ...]:
        """What the file says, as inputs of a digest."""
        return tuple(f"{package} {digest}" for package, digest in sorted(self.by_package.items()))

    @classmethod
    def of(cls, loaded: LoadedSpec, fetcher: Fetcher, given: Path | None = None) -> Downloads:
        """What a spec says, or the sources file that is `given` in place of its own.

        Raises:
            UsageError: its sources file is not valid.
        """
        name = loaded.spec.buildroot.sources
        if given is None and name is None:
            return cls(None, fetcher)
        from hal.bases.buildroot.sources import load_sources

        path = given or loaded.path.parent / str(name)
        sources = load_sources(path)
        return cls(sources, fetcher, path, tuple(sources.lines(SOURCES)), sources.digests())

    def lay_out(self, cache: Cache) -> Path | None:
        """The directory of verified files that Buildroot takes sources from; None without any.

        Raises:
            HalError: a file cannot be had, or is not the one that the sources file names.
        """
        if self.sources is None:
            return None
        sources = self.sources
        try:
            blobs: Mapping[str, Path] = self.fetcher.fetch(sources.artifacts())
        except (GoneError, WrongContentError) as error:
            # What is pinned here is pinned by a person, not by `hal lock`.
            hint = (
                f"mend {self.path} once you trust what is there now, or give --mirror DIR with the old file"
            )
            raise HalError(error.message, hint, details=error.details) from None
        digest = inputs_digest("buildroot-sources", sources.override(), *self.digests, *self.lines)
        return cached_tree(cache, "buildroot-sources", digest, lambda tree: sources.lay_out(blobs, tree))
