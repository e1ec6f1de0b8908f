"""The Ollama registry's protocol: a tag is a manifest, which names its blobs by their SHA-256.

Source: OCI distribution specification, https://github.com/opencontainers/distribution-spec (pulling).
"""

from __future__ import annotations

import json
from urllib.parse import quote

from ..pins import OllamaSource, PinnedFile

REGISTRY = "https://registry.ollama.ai"
MANIFEST = "manifest.json"
"""The name, in a pinned model, of the tag's manifest; all other files are blobs."""
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def url(base: str, source: OllamaSource, file: PinnedFile) -> str:
    """Where a registry has a file of a model."""
    model = quote(source.model)
    if file.name == MANIFEST:
        return f"{base}/v2/{model}/manifests/{quote(source.tag)}"
    return f"{base}/v2/{model}/blobs/sha256:{file.sha256}"


def headers(file: PinnedFile) -> tuple[tuple[str, str], ...]:
    """What a request for a file says besides."""
    return (("Accept", MANIFEST_TYPE),) if file.name == MANIFEST else ()


def tag(file: PinnedFile, source: OllamaSource) -> str:
    """The tag whose present meaning a file is: of the manifest; "" for a blob, which never changes."""
    return f"{source.model}:{source.tag}" if file.name == MANIFEST else ""


def is_manifest(content: bytes) -> bool:
    """Whether bytes are a whole manifest of a registry (and not an error page, or half of one)."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "schemaVersion" in data and isinstance(data.get("layers"), list)
