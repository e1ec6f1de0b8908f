"""How an attempt ends that brings no file, and the network's many exceptions in words."""

from __future__ import annotations

import ssl
from collections.abc import Iterator


class TransientError(Exception):
    """An attempt failed as it may not the next time; the message says why, in words for the user.

    `retry_after`: seconds that the server asks for. `wrong_bytes`: this place alone gave a whole file, and it
    is not the pinned one (its length or its SHA-256); twice from the same place is permanent.
    """

    def __init__(self, words: str, retry_after: float | None = None, wrong_bytes: bool = False) -> None:
        super().__init__(words)
        self.retry_after = retry_after
        self.wrong_bytes = wrong_bytes


class PermanentError(Exception):
    """This place will never give the file; the message says why and how to mend it."""


class StoppedError(Exception):
    """We were told to stop."""


_WORDS = {
    "Tunnel connection failed: 407": "the proxy wants a user and a password (provision.proxy)",
    "Tunnel connection failed: 403": "the proxy does not let us through to it",
    "Tunnel connection failed": "the proxy cannot reach it",
    "Unable to connect to proxy": "the proxy cannot be reached (provision.proxy)",
    "Name or service not known": "the host name is unknown",
    "No address associated": "the host name has no address",
    "name resolution": "the host name cannot be resolved",
    "NameResolutionError": "the host name cannot be resolved",
    "Connection refused": "connection refused",
    "Network is unreachable": "the network is unreachable",
    "No route to host": "no route to the host",
    "timed out": "no answer in time",
    "IncompleteRead": "the connection broke",
    "Connection reset": "the connection was reset",
    "Broken pipe": "the connection was reset",
    "RemoteDisconnected": "the connection was closed without an answer",
    "UNEXPECTED_EOF": "the connection was closed",
    "EOF occurred": "the connection was closed",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "BadStatusLine": "what answers does not speak HTTP",
    "InvalidChunkLength": "its answer is no HTTP",
}


def words(error: BaseException) -> str:
    """What an exception of the network means. Never its own text, which may hold a signed URL.

    Sign by sign, so that the more telling one wins: a proxy's refusal before a connection that broke.
    """
    chain = list(causes(error))
    texts = [f"{type(cause).__name__} {cause}" for cause in chain]
    for sign, plain in _WORDS.items():
        if any(sign in text for text in texts):
            return plain
    return f"the connection failed ({type(chain[-1]).__name__})"


def certificate(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """Why a certificate was refused; None where another thing went wrong."""
    found = (cause for cause in causes(error) if isinstance(cause, ssl.SSLCertVerificationError))
    return next(found, None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it came of, however it was wrapped (urllib3 has three ways)."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
