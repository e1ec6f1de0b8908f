"""An Ollama registry, as tables of a misbehaving server: a tag's manifest and its blobs.

Blobs lie behind a redirect, as in the real one, where another host has them.
Source: https://github.com/opencontainers/distribution-spec (pulling); Ollama's docs/api.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.misbehaving.server import MisbehavingServer

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPES = ("model", "template", "license", "params", "system")


@dataclass(frozen=True)
class Tag:
    """A tag that a server has: its manifest's bytes, and all blobs by SHA-256."""

    server: MisbehavingServer
    model: str
    tag: str
    manifest: bytes
    blobs: dict[str, bytes]

    @property
    def manifest_path(self) -> str:
        return f"/v2/{self.model}/manifests/{self.tag}"

    def stored(self, sha256: str) -> str:
        """The path where a blob's bytes come from in the end."""
        return f"/storage/sha256/{sha256}"


def add_tag(
    server: MisbehavingServer,
    model: str,
    tag: str,
    layers: Mapping[str, bytes],
    *,
    storage: MisbehavingServer | None = None,
) -> Tag:
    """Give a registry a tag; `layers` by kind: model, template, license, params, system."""
    kinds = {f"application/vnd.ollama.image.{kind}": content for kind, content in layers.items()}
    config = json.dumps({"model_format": "gguf", "model_family": "llama", "file_type": "Q4_1"}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _described(CONFIG_TYPE, config),
            "layers": [_described(kind, content) for kind, content in kinds.items()],
        }
    ).encode()
    blobs = {hashlib.sha256(content).hexdigest(): content for content in (config, *kinds.values())}
    made = Tag(server, model, tag, manifest, blobs)
    server.files[made.manifest_path] = manifest
    server.headers[made.manifest_path] = {"Content-Type": MANIFEST_TYPE}
    behind = storage or server
    for sha256, content in blobs.items():
        behind.files[made.stored(sha256)] = content
        behind.etags[made.stored(sha256)] = f'"{sha256[:32]}"'
        server.redirects[f"/v2/{model}/blobs/sha256:{sha256}"] = (
            f"{behind.url}{made.stored(sha256)}?signature=secret"
        )
    return made


def _described(kind: str, content: bytes) -> dict[str, object]:
    return {
        "mediaType": kind,
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "size": len(content),
    }
