"""Pinning a tag of Ollama's registry: its manifest, and the blobs that the manifest names by digest."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import requests

from hal.errors import HalError, UsageError
from hal.fetch.http import new_session
from hal.fetch.hubs import blob_url, manifest_url, ollama_endpoint
from hal.models import BLOB, MANIFEST, Model, ModelFile, OllamaSource
from hal.pinning import Wishes, model_name
from hal.pinning.entry import checked
from hal.pinning.licences import UNKNOWN, of_text

TYPES = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
LICENCE = "application/vnd.ollama.image.license"
TIMEOUT = (15.0, 30.0)
"""Seconds to connect and to answer."""

MOST_MANIFEST = 1 << 20
MOST_TEXT = 4 << 20
"""Bytes of what is read whole: a manifest; a configuration or a licence."""


def pin_tag(name: str, tag: str, wishes: Wishes) -> Model:
    """The model that a tag means now.

    Raises:
        HalError: the registry has no such tag, cannot be asked, or answers with something else.
    """
    if re.fullmatch(r"([A-Za-z0-9][\w-]*/)?[A-Za-z0-9][\w.-]*", name, re.ASCII) is None:
        raise UsageError(
            f"ollama:{name} is no model", "give ollama:NAME[:TAG] or ollama:NAMESPACE/NAME[:TAG]"
        )
    if wishes.include or wishes.exclude:
        raise UsageError(f"ollama:{name}: a model is all of its blobs: no --include, no --exclude")
    model = name if "/" in name else f"library/{name}"
    endpoint = (wishes.endpoint or ollama_endpoint()).rstrip("/")
    session = new_session()
    said = f"{name}:{tag}"
    raw = _read(session, manifest_url(endpoint, model, tag), MOST_MANIFEST, said)
    blobs = _blobs(raw, said)
    source = OllamaSource.model_construct(kind="ollama", model=model, tag=tag)
    files = [_pinned(MANIFEST, len(raw), hashlib.sha256(raw).hexdigest(), source)]
    files += [_pinned(f"{BLOB}{digest}", size, digest, source) for digest, size in blobs.items()]

    def text(digest: str) -> str:
        if blobs[digest] > MOST_TEXT:
            return ""
        content = _read(session, blob_url(endpoint, model, digest), MOST_TEXT, said)
        if hashlib.sha256(content).hexdigest() != digest:
            raise HalError(f"{endpoint}: a blob of {said} has another content than its name says")
        return content.decode(errors="replace")

    manifest = json.loads(raw)
    licences = [_digest(layer) for layer in manifest["layers"] if layer.get("mediaType") == LICENCE]
    return checked(
        name=wishes.name or model_name(f"{name.rpartition('/')[2]}-{tag}" if tag != "latest" else name),
        summary=f"{said} of Ollama's registry",
        license=wishes.license or (of_text(text(licences[0])) if licences else UNKNOWN),
        format="ollama",
        parameters=_parameters(text(_digest(manifest["config"]))),
        files=files,
        where=said,
    )


def _blobs(raw: bytes, said: str) -> dict[str, int]:
    """The blobs that a manifest names: sizes by digest, the configuration first."""
    try:
        manifest = json.loads(raw)
        found = {_digest(layer): int(layer["size"]) for layer in (manifest["config"], *manifest["layers"])}
    except (ValueError, KeyError, TypeError) as error:
        raise HalError(f"{said}: the registry's answer is no manifest: {error}") from None
    return found


def _digest(layer: dict[str, Any]) -> str:
    kind, _, digest = str(layer["digest"]).partition(":")
    if kind != "sha256" or re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise ValueError(f"{layer['digest']} is no sha256")
    return digest


def _pinned(name: str, size: int, digest: str, source: OllamaSource) -> ModelFile:
    return ModelFile.model_construct(name=name, size=size, sha256=digest, source=source)


def _parameters(configuration: str) -> str | None:
    """How many parameters the model has, as its configuration says it: `134.52M`."""
    try:
        said = json.loads(configuration).get("model_type")
    except (ValueError, AttributeError):
        return None
    return said if isinstance(said, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMBT]", said) else None


def _read(session: requests.Session, url: str, most: int, said: str) -> bytes:
    """What a URL of a registry holds, no more than `most` bytes of it."""
    hint = "check the network; --endpoint URL or HAL_OLLAMA_REGISTRY names another registry"
    host = url.partition("/v2/")[0]
    try:
        with session.get(url, headers={"Accept": TYPES}, timeout=TIMEOUT, stream=True) as answer:
            if answer.status_code == 404:
                raise HalError(f"{host} has no model {said}", "names and tags are in Ollama's library")
            if answer.status_code in (401, 403):
                raise HalError(f"{host} does not give {said} to everyone: HTTP {answer.status_code}")
            answer.raise_for_status()
            content = bytearray()
            for chunk in answer.iter_content(1 << 16):
                content += chunk
                if len(content) > most:
                    break
    except requests.RequestException as error:
        raise HalError(f"{host} cannot be asked for {said}: {type(error).__name__}", hint) from None
    if not content or len(content) > most:
        raise HalError(f"{host}: what it answers for {said} is empty, or no manifest", hint)
    return bytes(content)
