"""What is wanted, to the byte: models and their files, each pinned by size and SHA-256. Values only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

IDENTIFIER_LENGTH = 32
"""Hex digits of a model's id: 128 bits, which nobody finds twice."""

IMAGE, DISK, NETWORK, IMPORT = "image", "disk", "network", "import"
DELIVERIES = (IMAGE, DISK, NETWORK, IMPORT)
"""How a model comes: a pack on the appliance's disk, or on another one; fetched; given by an operator."""


class HttpsSource(NamedTuple):
    """A file behind a URL (`https://`; tests and mirrors may use `http://`)."""

    url: str
    kind: str = "https"


class HuggingfaceSource(NamedTuple):
    """A file of a Hugging Face repository (`ORG/NAME`) at a commit (`revision`, 40 hex digits)."""

    repository: str
    revision: str
    path: str
    kind: str = "huggingface"


class OllamaSource(NamedTuple):
    """A file of an Ollama registry's model (`library/smollm2`) and tag: its manifest, or one of its blobs."""

    model: str
    tag: str
    kind: str = "ollama"


Source = HttpsSource | HuggingfaceSource | OllamaSource


class PinnedFile(NamedTuple):
    """A file of a model: its name in the model's folder, bytes, SHA-256 (hex), and where it comes from."""

    name: str
    size: int
    sha256: str
    source: Source | None = None


class Pack(NamedTuple):
    """The pack that a model comes in: its partition's label, its root hash, where the initrd mounts it."""

    label: str
    root_hash: str
    mountpoint: str


class PinnedModel(NamedTuple):
    """A model of the spec. `size` is of all files together; `id` names its content (see `identifier`)."""

    name: str
    delivery: str
    id: str
    size: int
    files: tuple[PinnedFile, ...]
    license: str = "NOASSERTION"
    format: str = ""
    pack: Pack | None = None

    @property
    def stored(self) -> bool:
        """Whether it lies in the provisioner's own store, and not in a pack that the initrd mounts."""
        return self.delivery in (NETWORK, IMPORT)


def identifier(files: Iterable[PinnedFile]) -> str:
    """The name of a model's content: of the sorted lines `SHA256 SIZE NAME`, the SHA-256's first half."""
    lines = sorted(f"{file.sha256} {file.size} {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:IDENTIFIER_LENGTH]
