"""What the head of a server's answer says: which bytes follow, or why none do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from ..failures import PermanentError, TransientError
from ..pins import HuggingfaceSource, PinnedFile
from . import huggingface
from .places import Place
from .session import Opened, host

PASSING = frozenset({407, 408, 425, 429})
"""Refusals that may be gone in a moment, as may all from 500; others say that we are not welcome."""


class Body(NamedTuple):
    """The body of an answer: where it begins in the file, where it ends (exclusive; None: unknown).

    `whole` is the file's length by the server (None: unknown), `validator` what If-Range sends to get more.
    """

    start: int
    end: int | None
    whole: int | None
    validator: str


def body(opened: Opened) -> Body | None:
    """What follows; None where the answer is no file, or no range that can be understood."""
    headers = opened.response.headers
    if opened.response.status_code == 200:
        length = headers.get("Content-Length", "")
        whole = int(length) if length.isdecimal() else None
        return Body(0, whole, whole, validator(headers))
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
    if opened.response.status_code == 206 and found:
        whole = None if found[3] == "*" else int(found[3])
        return Body(int(found[1]), int(found[2]) + 1, whole, validator(headers))
    return None


def validator(headers: Mapping[str, str]) -> str:
    """What names the state of a file, for If-Range: a strong ETag, else its date (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a server wants us to wait; None where it does not say.

    A date is compared with the server's own, which is right where this machine's clock is not.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    at, sent = date(value), date(headers.get("Date", ""))
    return None if at is None else max(0.0, at - (now if sent is None else sent))


def date(value: str) -> float | None:
    """A date in a header as Unix time; None where it is none."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def refusal(opened: Opened, place: Place, file: PinnedFile, now: float) -> TransientError | PermanentError:
    """Why the answer is no file, and how to mend it."""
    response = opened.response
    status, name = response.status_code, host(opened.url)
    said = f"{name}: HTTP {status} {_plain(response.reason or '')}".rstrip()
    if status in PASSING or status >= 500:
        return TransientError(said, retry_after(response.headers, now))
    if opened.withheld and status in (401, 403):
        return TransientError(f"{said}: the token is not sent while this machine's clock is wrong: set it")
    if isinstance(file.source, HuggingfaceSource) and not place.mirror:
        why = huggingface.refusal(file.source, status, response.headers, opened.credential)
        if why:
            return PermanentError(f"{name}: {why}")
    if status in (404, 410):
        return PermanentError(f"{said}: there is no such file under {place.shown}")
    if status in (401, 403):
        return PermanentError(f"{said}: it wants to know who asks, or lets nobody have {place.shown}")
    if 200 <= status < 300:
        return TransientError(said)
    return PermanentError(said)


def _plain(text: str) -> str:
    return "".join(letter for letter in text[:60] if letter.isprintable())
