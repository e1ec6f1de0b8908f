"""The appliance's own description of itself, `/usr/lib/hal/manifest.json`.

It lies in the root, so the root hash covers it. Evidence carries it and binds its digest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hal.packs.reference import PackRef
from hal.render.files import RenderedFile, origin
from hal.spec.loading import LoadedSpec

PATH = "/usr/lib/hal/manifest.json"
SCHEMA = 1


def files(loaded: LoadedSpec, packs: Sequence[PackRef]) -> dict[str, RenderedFile]:
    """The manifest: what the appliance is, its engines, and the digests of its packs and models."""
    spec = loaded.spec
    manifest = {
        "generated": origin(loaded),
        "schema": SCHEMA,
        "name": spec.appliance.name,
        "version": spec.appliance.version,
        "variant": spec.variant,
        "engines": [engine.name for engine in loaded.engines],
        "remote_engines": [engine.name for engine in loaded.remote_engines],
        "packs": [{"kind": pack.kind, "name": pack.name, "root_hash": pack.root_hash} for pack in packs],
        "models": [
            {
                "name": model.name,
                "delivery": model.delivery,
                "files": [
                    {"name": file.name, "size": file.size, "sha256": file.sha256} for file in model.files
                ],
            }
            for model in loaded.models
        ],
    }
    return {PATH: RenderedFile(json.dumps(manifest, indent=1) + "\n")}
