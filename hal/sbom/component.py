"""One part of an appliance, as values; what CycloneDX calls a component."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from hal.trees import inputs_digest

Kind = Literal["application", "file", "library", "machine-learning-model", "operating-system"]
"""CycloneDX's words for what a component is (component.type)."""

APPLIANCE = "appliance"
"""The reference of the whole, on which every other part hangs."""

OWN_LICENCE = "Apache-2.0"
"""hal's own."""


@dataclass(frozen=True)
class Component:
    """A part: `ref` names it in the document, `depends` are the references of what it is made of or needs.

    `licence` is an SPDX expression, with `LicenseRef-…` for what SPDX does not list; empty: not known. A
    `concluded` one is hal's reading of texts that no program can read, any other is what its makers declare.
    `sha256` is the digest of the file that it came as, in lower-case hex; `purl` its package URL.
    """

    ref: str
    kind: Kind
    name: str
    version: str = ""
    purl: str = ""
    cpe: str = ""
    licence: str = ""
    concluded: bool = False
    sha256: str = ""
    url: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    depends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """All parts of an appliance; the first is the appliance itself."""

    components: tuple[Component, ...]

    @property
    def digest(self) -> str:
        """What names exactly these contents."""
        return inputs_digest(dumps(self.components))


def dumps(components: Iterable[Component]) -> str:
    """Components as JSON that `loads` reads."""
    return json.dumps([asdict(component) for component in components])


def loads(text: str) -> tuple[Component, ...]:
    """Components out of what `dumps` wrote."""
    return tuple(
        Component(
            **{
                **row,
                "properties": tuple((name, value) for name, value in row["properties"]),
                "depends": tuple(row["depends"]),
            }
        )
        for row in json.loads(text)
    )


def refs(components: Sequence[Component]) -> tuple[str, ...]:
    """The references of components, sorted."""
    return tuple(sorted(component.ref for component in components))
