"""A model's files as what a build fetches."""

from __future__ import annotations

from hal.lock.file import Artifact
from hal.models import HuggingFaceSource, ModelFile, NetworkSource, OllamaSource


def file_artifact(file: ModelFile, source: NetworkSource) -> Artifact:
    """A file that is published somewhere, as the fetcher knows it."""
    match source:
        case HuggingFaceSource():
            text = f"huggingface:{source.repository}@{source.revision}/{source.path}"
        case OllamaSource():
            text = f"ollama:{source.model}:{source.tag}"
        case _:
            text = source.url
    return Artifact(file.name.rpartition("/")[2], file.sha256, file.size, text)
