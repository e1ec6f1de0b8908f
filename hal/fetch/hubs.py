"""Where models are published: the Hugging Face hub and Ollama's registry, and the URLs of their files.

Sources: huggingface.co/docs/hub/api (`resolve`), the OCI distribution specification (`/v2/`), of which
Ollama's registry speaks the part that pulling needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import requests

HUGGINGFACE = "https://huggingface.co"
OLLAMA = "https://registry.ollama.ai"

MANIFEST = "manifest.json"
"""What a tag's manifest is called among a model's files."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")

GATED_HINT = "where it is gated, accept its terms on the hub and set HF_TOKEN; `hal models pin` pins anew"


def huggingface_endpoint() -> str:
    """The hub that is asked: `$HF_ENDPOINT`, as the hub's own client has it, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or HUGGINGFACE).rstrip("/")


def ollama_endpoint() -> str:
    """The registry that is asked: `$HAL_OLLAMA_REGISTRY`, else the public one."""
    return (os.environ.get("HAL_OLLAMA_REGISTRY") or OLLAMA).rstrip("/")


def huggingface_url(endpoint: str, repository: str, revision: str, path: str) -> str:
    """Where the hub has a file of a repository at a commit."""
    return f"{endpoint}/{repository}/resolve/{revision}/{quote(path)}"


def manifest_url(endpoint: str, model: str, tag: str) -> str:
    """Where a registry has the manifest of a tag."""
    return f"{endpoint}/v2/{model}/manifests/{tag}"


def blob_url(endpoint: str, model: str, sha256: str) -> str:
    """Where a registry has a blob of a model."""
    return f"{endpoint}/v2/{model}/blobs/sha256:{sha256}"


def ollama_urls(endpoint: str, model: str, tag: str, name: str, sha256: str) -> Iterator[str]:
    """Where a registry has a file of a model; a manifest by its digest first, since tags move."""
    yield blob_url(endpoint, model, sha256)
    if name == MANIFEST:
        yield manifest_url(endpoint, model, tag)


def keeps_secrets(url: str) -> bool:
    """Whether a token may be sent to a URL: over TLS, or without leaving this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def add_token(session: requests.Session) -> None:
    """Have a session show `$HF_TOKEN` to the hub's endpoint, and along a redirect to nobody else."""
    from requests.adapters import HTTPAdapter

    endpoint, token = huggingface_endpoint(), os.environ.get("HF_TOKEN", "").strip()
    if not token or not keeps_secrets(endpoint):
        return

    class WithToken(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            request.headers["Authorization"] = f"Bearer {token}"
            return super().send(request, *args, **options)

    session.mount(f"{endpoint}/", WithToken())
