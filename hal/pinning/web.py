"""Pinning files behind URLs: each is downloaded once to be hashed, and none of it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import requests

from hal.errors import HalError, UsageError
from hal.fetch.http import new_session
from hal.models import HttpsSource, Model, ModelFile
from hal.pinning import Wishes, model_name, weights_first, weights_format
from hal.pinning.entry import checked

CHUNK = 1 << 20
TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and that nothing may come."""


def pin_urls(urls: Sequence[str], wishes: Wishes) -> Model:
    """The model whose files these URLs are; each is named as the last part of its path.

    Raises:
        HalError: one cannot be had, or there are no weights among them.
    """
    if wishes.endpoint or wishes.include or wishes.exclude:
        raise UsageError("URLs say all: no --endpoint, --include or --exclude")
    session = new_session()
    names = [unquote(urlsplit(url).path).rpartition("/")[2] for url in urls]
    format = wishes.format or weights_format(names, urls[0])
    files = weights_first([_file(session, url, name) for url, name in zip(urls, names, strict=True)])
    return checked(
        name=wishes.name or model_name(files[0].name.rpartition(".")[0]),
        license=wishes.license or "NOASSERTION",
        format=format,
        files=files,
        where=urls[0],
    )


def _file(session: requests.Session, url: str, name: str) -> ModelFile:
    state, size = hashlib.sha256(), 0
    try:
        with session.get(url, stream=True, timeout=TIMEOUT) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_content(CHUNK):
                state.update(chunk)
                size += len(chunk)
            promised = answer.headers.get("Content-Length", "")
    except requests.RequestException as error:
        status = getattr(error.response, "status_code", None)
        words = f"HTTP {status}" if status else type(error).__name__
        raise HalError(f"{url} cannot be fetched: {words}", "check the address and the network") from None
    if not size or (promised.isdigit() and int(promised) != size):
        raise HalError(f"{url}: {size} bytes came, of {promised or 'some'}", "try again")
    source = HttpsSource.model_construct(kind="https", url=url)
    return ModelFile.model_construct(name=name, size=size, sha256=state.hexdigest(), source=source)
