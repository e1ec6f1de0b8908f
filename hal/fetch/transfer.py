"""Bringing one file's bytes from one URL, through whatever the network does on the way.

Bytes go into a `Part`, which hashes them as they come and survives interruption: what is there is
resumed by a range request (RFC 9110, section 14). Nothing here believes a server: lengths and ranges
are checked while they come, and the whole is checked against its sha256 by `hal.fetch.fetcher`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import requests
from urllib3.exceptions import HTTPError

log = logging.getLogger("hal.fetch")

CHUNK = 256 * 1024
"""Bytes read at a time: large enough that Python costs little, small enough for smooth progress."""

MAX_ATTEMPTS = 50
"""Attempts in all, for a server that gives a few bytes each time and would otherwise keep us for ever."""

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be gone in a moment; 404 and 410 mean gone, the others that we are not welcome."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to come back.

    A transfer that brings less than `least_rate` bytes per second over `stall` seconds counts as broken,
    even when its connection lives. `attempts` are those in a row that bring nothing.
    """

    connect: float = 15.0
    stall: float = 30.0
    least_rate: float = 100.0
    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 10.0


class NotThereError(Exception):
    """The server says that it has no such file (404, 410)."""


class FailedError(Exception):
    """The file could not be had from this URL; the message says why, in words for the user."""


class WrongLengthError(Exception):
    """The server has a file of another length; the message says which."""


class StoppedError(Exception):
    """We were told to stop."""


class _TransientError(Exception):
    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class Part:
    """An unfinished file: its bytes so far, and their sha256.

    `file` may hold bytes of an earlier run; they count until `restart`. `heard` is told of every
    change of the number of bytes.
    """

    def __init__(self, file: IO[bytes], size: int, heard: Callable[[int], None]) -> None:
        self.file = file
        self._expected = size
        self._heard = heard
        self._hash = hashlib.sha256()
        self.size = 0
        file.seek(0)
        while chunk := file.read(CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)
        heard(self.size)
        if self.size > size:
            self.restart()

    @property
    def missing(self) -> int:
        """The bytes still to come."""
        return self._expected - self.size

    def hexdigest(self) -> str:
        """The sha256 of the bytes so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append bytes; OSError when the disk cannot take them (what it took is then still counted)."""
        view = memoryview(chunk)
        while view:
            count = self.file.write(view)  # unbuffered, so it may take less than all
            self._hash.update(view[:count])
            self.size += count
            self._heard(count)
            view = view[count:]

    def restart(self) -> None:
        """Throw all bytes away."""
        self.file.seek(0)
        self.file.truncate()
        self._heard(-self.size)
        self._hash = hashlib.sha256()
        self.size = 0


class Transfer:
    """Brings a part to its full length from `url`, coming back after every passing trouble."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        part: Part,
        *,
        patience: Patience,
        stop: threading.Event,
        note: Callable[[str], None],
    ) -> None:
        self._session = session
        self._url = url
        self._part = part
        self._patience = patience
        self._stop = stop
        self._note = note
        self._validator = ""  # what If-Range sends: a strong ETag of this very URL

    def complete(self) -> None:
        """Fetch what is missing.

        Raises:
            NotThereError, FailedError, WrongLengthError, StoppedError: see there.
            OSError: the disk cannot take the bytes.
        """
        patience = self._patience
        fruitless = 0
        pause = patience.first_pause
        for _ in range(MAX_ATTEMPTS):
            # A connection may break after the last byte; whether they are the right ones their digest tells.
            if not self._part.missing:
                return None
            before = self._part.size
            try:
                return self._attempt()
            except _TransientError as trouble:
                if self._part.size > before:
                    fruitless, pause = 0, patience.first_pause
                fruitless += 1
                if fruitless >= patience.attempts:
                    raise FailedError(f"{trouble} ({fruitless} attempts)") from trouble
                wait = max(min(trouble.pause, patience.longest_pause), pause * random.uniform(0.75, 1.25))
                (log.info if fruitless < 2 else self._note)(f"{self._url}: {trouble}; again in {wait:.1f} s")
                if self._stop.wait(wait):
                    raise StoppedError from None
                pause = min(2 * pause, patience.longest_pause)
        raise FailedError(f"the connection broke {MAX_ATTEMPTS} times")

    def _attempt(self) -> None:
        part = self._part
        headers = {"Range": f"bytes={part.size}-"} if part.size else {}
        if part.size and self._validator:
            headers["If-Range"] = self._validator
        timeouts = (self._patience.connect, self._patience.stall)
        with _explained():
            answer = self._session.get(self._url, headers=headers, stream=True, timeout=timeouts)
        with answer:
            self._check(answer)
            for chunk in self._chunks(answer):
                if len(chunk) > part.missing:
                    raise WrongLengthError("more bytes than pinned")
                part.write(chunk)
        if part.missing:
            raise _TransientError(f"the answer ended {part.missing:,} bytes early")

    def _check(self, answer: requests.Response) -> None:
        """Make sure that the answer's body continues the part (or, after a restart, is all of it)."""
        part = self._part
        status = answer.status_code
        if status in (404, 410):
            raise NotThereError(f"HTTP {status}")
        if status in TRANSIENT:
            pause = answer.headers.get("Retry-After", "")
            raise _TransientError(f"HTTP {status} {answer.reason}", float(pause) if pause.isdigit() else 0.0)
        if status == 416:  # what we have is longer than what they have
            part.restart()
            raise _TransientError("HTTP 416, starting anew")
        etag = answer.headers.get("ETag", "")
        self._validator = etag if etag.startswith('"') else ""
        if status == 206:
            said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if not said or int(said[1]) != part.size:
                part.restart()
                raise _TransientError("the answer is another range than asked for, starting anew")
            whole = said[2]
        elif status == 200:
            if part.size:
                part.restart()
            whole = answer.headers.get("Content-Length", "*")
        else:
            raise FailedError(f"HTTP {status} {answer.reason}")
        length = part.size + part.missing
        encoded = "Content-Encoding" in answer.headers
        if whole.isdigit() and int(whole) != length and not encoded:
            raise WrongLengthError(f"{int(whole)} bytes")

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        """The body as it comes; broken off when it comes too slowly."""
        patience = self._patience
        since, got = time.monotonic(), 0
        while True:
            if self._stop.is_set():
                raise StoppedError
            with _explained():
                # Returns what is there: `read` would wait for a full chunk and not notice a trickle.
                chunk = answer.raw.read1(CHUNK, decode_content=True)
            if not chunk:
                return
            yield chunk
            got += len(chunk)
            now = time.monotonic()
            if now - since >= patience.stall:
                if got < patience.least_rate * (now - since):
                    raise _TransientError(f"stalled: {got} bytes in {now - since:.0f} s")
                since, got = now, 0


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """The network's many exceptions as one of ours, with a few words instead of a chain of class names."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise FailedError(f"no trusted connection: {_reason(error)}") from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
        raise FailedError(f"not a URL that can be fetched: {error}") from error
    except requests.exceptions.TooManyRedirects as error:
        raise FailedError("it redirects in a circle") from error
    except (requests.Timeout, TimeoutError) as error:
        raise _TransientError("no answer in time") from error
    except (requests.RequestException, HTTPError, OSError) as error:
        raise _TransientError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    text = str(error)
    words = {
        "Name or service not known": "the host name is unknown",
        "name resolution": "the host name cannot be resolved",
        "NameResolutionError": "the host name cannot be resolved",
        "Connection refused": "connection refused",
        "Network is unreachable": "the network is unreachable",
        "No route to host": "no route to the host",
        "timed out": "no answer in time",
        "IncompleteRead": "the connection broke",
        "Connection reset": "the connection was reset",
        "RemoteDisconnected": "the connection was closed without an answer",
        "CERTIFICATE_VERIFY_FAILED": "its certificate cannot be verified",
    }
    return next((plain for sign, plain in words.items() if sign in text), text or type(error).__name__)
