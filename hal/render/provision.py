"""What the provisioner is told: the models of the appliance, each file pinned, and how to bring them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hal.models import MARKERS, Model, ModelFile, NetworkSource
from hal.packs.reference import PackRef
from hal.render.arriving import MODELS, RUNTIME, STATE, credentials
from hal.render.files import RenderedFile, origin
from hal.spec.check_provision import RESERVE
from hal.spec.loading import LoadedSpec

CONFIG = "/etc/hal/provision.json"
CERTIFICATES = "/etc/hal/provision/ca.pem"
"""The certificates that a spec trusts besides Debian's (`provision.ca`)."""

BOOT_REPORT = "/run/hal/boot.json"

CREDENTIALS = {"systemd": "/run/credentials/hal-provision.service", "sysv": "/run/hal/provision-credentials"}
"""Where the provisioner finds its credential, by the init system."""


def files(loaded: LoadedSpec, packs: Sequence[PackRef], built: int) -> dict[str, RenderedFile]:
    """The provisioner's configuration, for every image that has models; `built` in seconds since 1970."""
    if not loaded.models:
        return {}
    found = {CONFIG: RenderedFile(json.dumps(provision_data(loaded, packs, built), indent=2) + "\n")}
    if loaded.spec.provision.ca is not None:
        found[CERTIFICATES] = RenderedFile(certificates(loaded.path.parent / loaded.spec.provision.ca))
    return found


def certificates(file: Path) -> str:
    """The certificates of a file on the build host, as they stand there."""
    return file.read_text(encoding="ascii")


def provision_data(loaded: LoadedSpec, packs: Sequence[PackRef], built: int) -> dict[str, Any]:
    """The provisioner's configuration; its keys are those of services/provisioner/config.py."""
    asked, wanted = loaded.spec.provision, credentials(loaded)
    refs = {pack.name: pack for pack in packs if pack.kind == "model"}
    return {
        "generated": origin(loaded),
        "built": built,
        "directory": MODELS,
        "state_directory": STATE,
        "runtime_directory": RUNTIME,
        "markers": MARKERS,
        "boot_report": BOOT_REPORT,
        "quota": asked.quota,
        "reserve": RESERVE,
        "concurrency": asked.concurrency,
        "bandwidth": asked.bandwidth,
        "policy": {
            "attempts": asked.attempts,
            "first": asked.first_backoff,
            "factor": asked.factor,
            "jitter": asked.jitter,
            "cap": asked.cap,
            "stall": asked.stall,
            "deadline": asked.deadline,
            "rest": asked.rest,
        },
        "proxy": asked.proxy,
        "no_proxy": list(asked.no_proxy),
        "ca": CERTIFICATES if asked.ca is not None else None,
        "mirrors": {kind: list(getattr(asked.mirrors, kind)) for kind in ("https", "huggingface", "ollama")},
        "mirrors_only": asked.mirrors.only,
        "huggingface_credential": f"{CREDENTIALS[loaded.spec.init]}/{wanted[0]}" if wanted else None,
        "models": [_model(model, refs.get(model.name)) for model in loaded.models],
    }


def _model(model: Model, pack: PackRef | None) -> dict[str, Any]:
    return {
        "name": model.name,
        "delivery": model.delivery,
        "license": model.license,
        "format": model.format,
        "size": model.size,
        "id": model.identity,
        "pack": None
        if pack is None
        else {"label": pack.label, "root_hash": pack.root_hash, "mountpoint": pack.mountpoint},
        "files": [_file(file, fetched=model.delivery == "network") for file in model.files],
    }


def _file(file: ModelFile, *, fetched: bool) -> dict[str, Any]:
    """A file as it is pinned; where it comes from only where the appliance may ask there."""
    source = (
        file.source.model_dump(mode="json") if fetched and isinstance(file.source, NetworkSource) else None
    )
    return {"name": file.name, "size": file.size, "sha256": file.sha256, "source": source}
