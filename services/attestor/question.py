"""A request, read: `GET /attestation?nonce=HEX`, or `POST /attestation` with {"nonce": HEX}. Pure.

It is strict. Whoever asks for more than a nonce expects something that is not served here.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import parse_qsl

PATH = "/attestation"
METHODS = ("GET", "POST")

LARGEST_BODY = 1024
"""Bytes of a body; {"nonce": "…"} has 78."""

_NONCE = re.compile(r"[0-9a-fA-F]{64}")
_LENGTH = re.compile(r"[0-9]{1,9}")

WANTED = "`nonce` must be 64 hexadecimal digits: 32 random bytes, new for each question"


class RefusedError(Exception):
    """The request is answered with an error: `status` is HTTP's, the message is for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """The first line of a request, and how many bytes follow its head."""

    method: str
    target: str
    length: int


def read_head(data: bytes) -> Head:
    """The head of a request, without its empty line.

    Raises:
        RefusedError: it is none, or not one that is answered here.
    """
    first, *fields = data.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise RefusedError(400, "not an HTTP/1 request")
    method, target, _ = words
    if target.partition("?")[0] != PATH:
        raise RefusedError(404, "no such path")
    if method not in METHODS:
        raise RefusedError(405, "only GET and POST are answered here")
    return Head(method, target, _length(fields) if method == "POST" else 0)


def _length(fields: list[str]) -> int:
    named = [field.partition(":") for field in fields]
    values = {value.strip() for name, _, value in named if name.lower() == "content-length"}
    if any(name.lower() == "transfer-encoding" for name, _, _ in named) or len(values) != 1:
        raise RefusedError(411, "a POST needs one Content-Length")
    value = values.pop()
    if not _LENGTH.fullmatch(value):
        raise RefusedError(400, "the Content-Length is no number")
    if int(value) > LARGEST_BODY:
        raise RefusedError(413, f"a body has {LARGEST_BODY} bytes at most")
    return int(value)


def read_nonce(head: Head, body: bytes) -> bytes:
    """The nonce that a request brings.

    Raises:
        RefusedError: it brings none, not a whole one, several, or something else besides.
    """
    query = head.target.partition("?")[2]
    if head.method == "GET":
        return _nonce(dict(pairs := _pairs(query)), len(pairs))
    if query:
        raise RefusedError(400, "a POST has its nonce in the body, and no query")
    try:
        pairs = json.loads(body, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise RefusedError(400, 'the body must be a JSON object, {"nonce": "…"}') from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise RefusedError(400, 'the body must be a JSON object, {"nonce": "…"}')
    return _nonce(dict(pairs), len(pairs))


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=8)
    except ValueError:
        raise RefusedError(400, "the query is none") from None


def _nonce(values: dict[str, object], count: int) -> bytes:
    for name in values:
        if name != "nonce":
            raise RefusedError(
                400, "only `nonce` is taken: what is signed beside it, the appliance composes itself"
            )
    value = values.get("nonce")
    if count != 1 or not isinstance(value, str) or not _NONCE.fullmatch(value):
        raise RefusedError(400, WANTED)
    return bytes.fromhex(value)
