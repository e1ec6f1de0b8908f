"""The parts of an engine's pack: the files that it was made of, with what they say of themselves in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hal.bases.debian import package_sets
from hal.engines import Engine
from hal.errors import HalError
from hal.fetch.releases import needed
from hal.inputs import Inputs, engine_artifacts
from hal.lock.file import Wheel
from hal.packs.build import PROJECT, Pack
from hal.packs.runtime import LIB
from hal.sandbox import Sandbox
from hal.sbom import debian, wheels
from hal.sbom.component import OWN_LICENCE, Component, refs
from hal.sbom.kept import kept
from hal.sbom.licences import of_words
from hal.spec.loading import LoadedSpec
from hal.trees import file_digests

READ = """\
image=$1; shift
for path; do dump.erofs --cat --path="$path" "$image" 2>/dev/null || true; printf '\\0'; done
"""
"""Prints files of an EROFS image, a zero byte behind each; one that is not there is empty."""


def pack_of(packs: Sequence[Pack], kind: str, name: str) -> Pack:
    return next(pack for pack in packs if (pack.ref.kind, pack.ref.name) == (kind, name))


def pack_properties(pack: Pack) -> tuple[tuple[str, str], ...]:
    ref = pack.ref
    return (
        ("hal:pack:label", ref.label),
        ("hal:pack:mount-point", ref.mountpoint),
        ("hal:pack:root-hash", ref.root_hash),
    )


def engine_parts(
    engine: Engine, pack: Pack, loaded: LoadedSpec, inputs: Inputs, tools: Sandbox
) -> tuple[Component, ...]:
    """An engine's pack, and each file that it was made of; what they say of themselves is in the pack."""
    place = f"engine/{engine.name}"
    found = engine_artifacts(inputs.lock, inputs.archives, loaded, engine)
    artifacts = [item for kind, item, _ in found if kind != "archive"]
    archives = archives_of(engine, loaded, inputs)
    version = _engine_version(engine, loaded, inputs)
    launchers = [(file.path, *file_digests([PROJECT / file.source])) for file in engine.files]

    def make() -> tuple[Component, ...]:
        parts = [
            *_of_wheels([item for item in artifacts if isinstance(item, Wheel)], pack, place, tools),
            *_of_packages(engine, loaded, inputs, pack, place, tools),
            *(_archive(archive, version, place) for archive in archives),
            *(
                Component(f"{place}/{path}", "file", path, licence=OWN_LICENCE, sha256=digest)
                for path, digest in launchers
            ),
        ]
        whole = Component(
            place, "application", engine.name, version, properties=pack_properties(pack), depends=refs(parts)
        )
        return (whole, *parts)

    rows = [f"{item.name} {item.sha256} {item.source}" for item in artifacts]
    named = [pack.ref.root_hash, pack.ref.label, engine.name, version, *map(str, [*launchers, *archives])]
    return kept("engine", inputs.cache, [*named, *rows], make)


def _engine_version(engine: Engine, loaded: LoadedSpec, inputs: Inputs) -> str:
    """The version of an engine: the spec's, else that of the first artifact that has one."""
    if chosen := loaded.choice(engine).version:
        return chosen
    for artifact in engine.artifacts.get(loaded.spec.arch, ()):
        if artifact.kind == "wheel":
            return inputs.lock.wheel(artifact.project).version
        if artifact.kind in ("wheel_set", "archive"):
            return artifact.version
    return ""


def _of_wheels(found: Sequence[Wheel], pack: Pack, place: str, tools: Sandbox) -> list[Component]:
    if not found:
        return []
    listing = tools.run(
        ["dump.erofs", "--ls", f"--path=/{LIB}", str(pack.path)],
        readable=[pack.path],
        what=f"listing the pack of {pack.ref.name}",
    ).stdout
    entries = [line.split(maxsplit=2)[2] for line in listing.splitlines() if len(line.split(maxsplit=2)) == 3]
    paths = wheels.metadata_paths(found, f"/{LIB}", entries)
    texts = _read(pack, list(paths.values()), tools)
    return [wheels.component(wheel, texts.get(paths.get(wheel.name, ""), ""), place) for wheel in found]


def _of_packages(
    engine: Engine, loaded: LoadedSpec, inputs: Inputs, pack: Pack, place: str, tools: Sandbox
) -> list[Component]:
    found = []
    for artifact in engine.artifacts.get(loaded.spec.arch, ()):
        if artifact.kind == "debian_set":
            packages = inputs.lock.packages(artifact.set)
            paths = {
                package.package: f"/{artifact.path}/usr/share/doc/{package.package}/copyright"
                for package in packages
            }
            texts = _read(pack, list(paths.values()), tools)
            suite = package_sets()["sets"][artifact.set].get("suite", inputs.lock.debian.suite)
            found += [
                debian.component(
                    debian.of_pool(package), texts[paths[package.package]], package, suite, place
                )
                for package in packages
            ]
    return found


@dataclass(frozen=True)
class Archive:
    """A release archive as it is published, with the licence that the engine's file gives."""

    name: str
    source: str
    sha256: str
    licence: str


def archives_of(engine: Engine, loaded: LoadedSpec, inputs: Inputs) -> list[Archive]:
    """The release archives of an engine's pack; where a file that was given lay does not count."""
    found = []
    for artifact in engine.artifacts.get(loaded.spec.arch, ()):
        if artifact.kind == "archive" and needed(artifact, engine, loaded):
            name = artifact.name or engine.name
            sha256 = inputs.archives[name].sha256
            source = next((item.url for item in artifact.releases.values() if item.sha256 == sha256), "")
            file = source.rpartition("/")[2]
            found.append(Archive(file or name, source or f"file:{name}", sha256, artifact.license))
    return found


def _archive(archive: Archive, version: str, place: str) -> Component:
    return Component(
        f"{place}/{archive.name}",
        "file",
        archive.name,
        version,
        licence=of_words(archive.licence, "engine"),
        sha256=archive.sha256,
        url="" if archive.source.startswith("file:") else archive.source,
        properties=(("hal:source", archive.source),),
    )


def _read(pack: Pack, paths: Sequence[str], tools: Sandbox) -> Mapping[str, str]:
    """The text of files of a pack, by path; "" for one that is not there."""
    if not paths:
        return {}
    what = f"reading the pack of {pack.ref.name}"
    done = tools.run(["sh", "-c", READ, "read", str(pack.path), *paths], readable=[pack.path], what=what)
    texts = done.stdout.split("\0")[:-1]
    if len(texts) != len(paths):
        raise HalError(f"{what}: {len(texts)} files came for {len(paths)}", "remove the pack from the cache")
    return dict(zip(paths, texts, strict=True))
