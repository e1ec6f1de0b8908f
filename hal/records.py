"""What a build says about itself besides the measurements: its bill of materials and its provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal import provenance
from hal.bases import Base
from hal.inputs import Inputs
from hal.packs.build import Pack
from hal.progress import Reporter
from hal.provenance import Material
from hal.sandbox import Sandbox
from hal.sbom import document
from hal.sbom.collect import contents, downloads
from hal.sbom.component import Contents
from hal.spec.loading import LoadedSpec
from hal.trees import inputs_digest

NAMES = (document.NAME, provenance.NAME)
"""The files; the second speaks of all others of a build, so it is written last."""


@dataclass(frozen=True)
class Records:
    """What both files follow from, as far as it is known before anything is built."""

    loaded: LoadedSpec
    inputs: Inputs
    contents: Contents
    materials: tuple[Material, ...]
    base: str

    @classmethod
    def of(
        cls,
        loaded: LoadedSpec,
        inputs: Inputs,
        tools: Sandbox,
        base: Base,
        services: Path,
        packs: Sequence[Pack],
        sets: Sequence[str],
    ) -> Records:
        """What can be said of a build that reads `sets` of the lock; `services` is hal's own tree."""
        found = contents(loaded, inputs, tools, base=base, services=services, packs=packs, sets=sets)
        materials = provenance.materials(loaded, inputs, sets, downloads(base))
        return cls(loaded, inputs, found, materials, base.name)

    @property
    def digest(self) -> str:
        """What names exactly this."""
        materials = [f"{item.name} {item.uri} {item.sha256}" for item in self.materials]
        return inputs_digest(self.contents.digest, provenance.lock_digest(self.inputs), *materials)

    def bill(self, seed: str) -> str:
        """The text of the bill of materials; `seed` is the image's."""
        return document.text(self.contents, seed, self.inputs.epoch)

    def statement(
        self, directory: Path, fingerprint: str, reporter: Reporter | None = None, *, whole: bool = False
    ) -> str:
        """The text of the provenance of all that lies in a build's directory.

        Without `whole` a disk of many GB is left out, and `reporter` says so.
        """
        subjects, left = provenance.digests(directory, whole=whole)
        if reporter is not None:
            for name in left:
                reporter.note(f"{name} is too large to be hashed in every build: `hal provenance` does it")
        return provenance.statement(
            subjects, self.loaded, self.inputs, self.materials, base=self.base, fingerprint=fingerprint
        )
