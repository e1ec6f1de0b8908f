"""Provenance: which files a build has made, and from what (`provenance.intoto.json`).

An in-toto Statement v1 with a SLSA Provenance v1 predicate (slsa.dev/spec/v1.0/provenance). It holds no time
of the build and no path: equal builds have equal statements. It is not signed: who signs one vouches for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hal
from hal.inputs import Inputs, engine_artifacts
from hal.lock.file import Artifact, format_lock
from hal.models import FileSource, Model, PypiSource
from hal.models.artifacts import file_artifact
from hal.sbom.engines import archives_of
from hal.spec.loading import LoadedSpec

NAME = "provenance.intoto.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:hal:build:image:1"
"""What the parameters mean: docs/sbom.md."""

BUILDER = "urn:hal:builder:unattested"
"""Who built, as SLSA asks: whoever ran hal. The statement itself proves nothing of them."""

LARGEST_DISK = 8 << 30
"""Bytes of a disk that a build still hashes (0.7 s per GB); `hal provenance` hashes any."""


@dataclass(frozen=True)
class Material:
    """Something that a build was made from: its name, where it comes from, its SHA-256."""

    name: str
    uri: str
    sha256: str

    def descriptor(self) -> dict[str, Any]:
        """As in-toto's ResourceDescriptor."""
        return {"name": self.name, "uri": self.uri, "digest": {"sha256": self.sha256}}


def materials(
    loaded: LoadedSpec, inputs: Inputs, sets: Iterable[str], downloads: Mapping[str, Mapping[str, str]]
) -> tuple[Material, ...]:
    """All that a build takes from outside: packages of `sets`, engines' artifacts, models' files.

    `downloads` are what a Buildroot base was built from: digests by package and file name.
    """
    found = [_material(package) for name in sets for package in inputs.lock.packages(name)]
    for engine in loaded.engines:
        artifacts = engine_artifacts(inputs.lock, inputs.archives, loaded, engine)
        found += [_material(artifact) for kind, artifact, _ in artifacts if kind != "archive"]
        archives = archives_of(engine, loaded, inputs)
        found += [Material(archive.name, archive.source, archive.sha256) for archive in archives]
    for model in loaded.models:
        if model.packed:
            found += _of_model(model, inputs)
    for package, files in downloads.items():
        found += [Material(file, f"buildroot:{package}/{file}", digest) for file, digest in files.items()]
    return tuple(sorted(set(found), key=lambda item: (item.uri, item.name, item.sha256)))


def _material(artifact: Artifact) -> Material:
    return Material(artifact.name, artifact.source, artifact.sha256)


def _of_model(model: Model, inputs: Inputs) -> Iterable[Material]:
    for file in model.files:
        if isinstance(file.source, PypiSource):
            yield _material(inputs.lock.wheel(file.source.project))
        elif isinstance(file.source, FileSource):
            yield Material(file.name, f"file:{file.name}", file.sha256)
        else:
            yield _material(file_artifact(file, file.source))


def spec_digest(loaded: LoadedSpec) -> str:
    """The SHA-256 of what a spec says, as canonical JSON: comments and the order of keys do not count."""
    values = json.dumps(loaded.spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(values.encode()).hexdigest()


def lock_digest(inputs: Inputs) -> str:
    """The SHA-256 of `hal.lock` as it was used, with the successors of packages that were gone."""
    return hashlib.sha256(format_lock(inputs.lock).encode()).hexdigest()


def statement(
    subjects: Mapping[str, str],
    loaded: LoadedSpec,
    inputs: Inputs,
    found: Sequence[Material],
    *,
    base: str,
    fingerprint: str,
) -> str:
    """The statement about files (their SHA-256 by name), as it is written.

    `base` is the name of the base tree, `fingerprint` that of everything the outputs follow from.
    """
    own = [
        Material("spec", "urn:hal:spec", spec_digest(loaded)),
        Material("hal.lock", "urn:hal:lock", lock_digest(inputs)),
    ]
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"spec": loaded.spec.model_dump(mode="json")},
                "internalParameters": {
                    "base": base,
                    "epoch": inputs.epoch,
                    "substitutions": [str(item) for item in inputs.substitutions],
                },
                "resolvedDependencies": [item.descriptor() for item in (*own, *found)],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"hal": hal.__version__}},
                "metadata": {"invocationId": fingerprint},
            },
        },
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def digests(directory: Path, *, whole: bool = False) -> tuple[dict[str, str], tuple[str, ...]]:
    """The SHA-256 of a build's files, and the names of those that are too large to be hashed while building.

    `whole` hashes every one.
    """
    found, left = {}, []
    for file in sorted(path for path in directory.iterdir() if path.is_file() and path.name != NAME):
        if not whole and file.stat().st_size > LARGEST_DISK:
            left.append(file.name)
            continue
        with file.open("rb") as content:
            found[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found, tuple(left)
