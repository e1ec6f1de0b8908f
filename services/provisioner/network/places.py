"""Where a pinned file can be had: its mirrors in their order, then its source. Values only."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from ..config import Config
from ..pins import HttpsSource, HuggingfaceSource, PinnedFile
from . import huggingface, ollama


class Place(NamedTuple):
    """One URL under which a file can be had.

    `kind` is that of the source (https, huggingface, ollama). `headers` go along with each request.
    `credential` is the file of a token that goes to this URL's own origin over https and nowhere else.
    `tag`: what lies there may change without anybody's fault (an Ollama tag), so other bytes are final.
    """

    url: str
    kind: str
    mirror: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    credential: str | None = None
    tag: str = ""

    @property
    def shown(self) -> str:
        """The URL for logs and status: without a user, a password and a query."""
        return shown(self.url)


def places(config: Config, file: PinnedFile) -> list[Place]:
    """The places of a file in the order in which they are asked; none for one without a source."""
    source = file.source
    if source is None:
        return []
    if isinstance(source, HttpsSource):
        mirrors = [Place(f"{_base(url)}/{file.sha256}", source.kind, True) for url in config.mirrors.https]
        own = Place(source.url, source.kind)
    elif isinstance(source, HuggingfaceSource):
        mirrors = [
            Place(huggingface.url(_base(url), source), source.kind, True)
            for url in config.mirrors.huggingface
        ]
        token = config.huggingface_credential
        own = Place(huggingface.url(huggingface.ENDPOINT, source), source.kind, credential=token)
    else:
        headers = ollama.headers(file)
        tag = ollama.tag(file, source)
        mirrors = [
            Place(ollama.url(_base(url), source, file), source.kind, True, headers, tag=tag)
            for url in config.mirrors.ollama
        ]
        own = Place(ollama.url(ollama.REGISTRY, source, file), source.kind, headers=headers, tag=tag)
    return mirrors if config.mirrors_only else [*mirrors, own]


def shown(url: str) -> str:
    """A URL without what may be secret: user, password, query (signed links), fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _base(url: str) -> str:
    return url.rstrip("/")
