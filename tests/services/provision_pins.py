"""Pinned models of a few bytes, and configurations with all paths under one directory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from services.provisioner.config import Config, Policy
from services.provisioner.pins import HttpsSource, PinnedFile, PinnedModel, identifier


def content(seed: str, size: int) -> bytes:
    """The same bytes each time for the same seed."""
    digest = hashlib.sha256(seed.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def pinned_file(name: str, data: bytes, url: str = "https://models.example/file") -> PinnedFile:
    source = HttpsSource(url) if url else None
    return PinnedFile(name, len(data), hashlib.sha256(data).hexdigest(), source)


def pinned_model(name: str, *files: PinnedFile, delivery: str = "network") -> PinnedModel:
    size = sum(file.size for file in files)
    return PinnedModel(name, delivery, identifier(files), size, files)


def configuration(root: Path, *models: PinnedModel, **more: Any) -> Config:
    values: dict[str, Any] = {"policy": Policy(), "reserve": 0, **more}
    return Config(
        models=models,
        directory=f"{root}/models",
        state_directory=f"{root}/provisioner",
        runtime_directory=f"{root}/run",
        markers=f"{root}/markers",
        boot_report=f"{root}/boot.json",
        **values,
    )


def as_json(config: Config) -> dict[str, Any]:
    """What hal would render."""
    whole = config._asdict()
    whole["policy"] = config.policy._asdict()
    whole["mirrors"] = config.mirrors._asdict()
    whole["models"] = [_model(model) for model in config.models]
    return whole


def _model(model: PinnedModel) -> dict[str, Any]:
    entry = model._asdict()
    entry["pack"] = model.pack._asdict() if model.pack else None
    entry["files"] = [
        {**file._asdict(), "source": file.source._asdict() if file.source else None} for file in model.files
    ]
    return entry
