"""One attempt to bring a pinned file from one place, through whatever the network does on the way.

Nothing here believes a server: ranges and lengths are checked as they come, no byte beyond the pin is
kept, and the whole is compared with its SHA-256. When to try again, and where, is the policy's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import NamedTuple

from ..disk.part import Part as Part
from ..failures import PermanentError as PermanentError
from ..failures import StoppedError as StoppedError
from ..failures import TransientError as TransientError
from ..pins import PinnedFile
from . import ollama
from .answers import Body, body, refusal
from .bandwidth import Bucket
from .exchange import Exchange
from .places import Place
from .session import Network, Opened, host

CHUNK = 256 * 1024
"""Bytes read at a time: large enough that Python costs little, small enough for smooth progress."""

CONNECT = 15.0
"""Seconds for each address of a host; a network that drops packets must not cost the time of a stall each."""

LARGEST_MANIFEST = 4 * 1024 * 1024
"""As in other clients of registries."""


class Limits(NamedTuple):
    """What an attempt may take: no byte for `stall` seconds ends it; so does `until` (`time.monotonic()`)."""

    stall: float = 60.0
    until: float | None = None
    bandwidth: Bucket = Bucket(None)


def fetch(
    file: PinnedFile,
    place: Place,
    part: Part,
    *,
    network: Network,
    limits: Limits,
    stop: threading.Event,
    progress: Callable[[int], None],
) -> None:
    """Bring what `part` lacks from `place`; on return it is whole, as pinned, and synced to the disk.

    `progress` is told of all bytes that come over the network, those fetched again too, as they come; what it
    raises ends the attempt. It is called on the caller's thread, as everything that changes the disk is.

    Raises:
        TransientError, PermanentError, StoppedError: see there. What `part` holds stays and is resumed.
        OSError: the disk cannot take the bytes (only the disk's errors come as such).
    """
    if part.missing == 0 and part.hexdigest() != file.sha256:
        part.wrong()  # of another time; nobody is to blame now
    attempt = _Attempt(file, place, part, network, limits, stop, progress)
    if place.tag and part.hexdigest() != file.sha256:
        attempt.fetch_manifest()
    while part.missing:  # a server may answer a range with less than is left
        attempt.fetch_more()
    digest = part.hexdigest()
    if digest != file.sha256:
        theirs = part.origin == place.url
        part.wrong()
        raise TransientError(
            f"{host(place.url)}: wrong bytes: sha256 {digest}, pinned {file.sha256}"
            + ("" if theirs else " (they came from several places)"),
            wrong_bytes=theirs,
        )
    part.sync()


class _Attempt(NamedTuple):
    file: PinnedFile
    place: Place
    part: Part
    network: Network
    limits: Limits
    stop: threading.Event
    progress: Callable[[int], None]

    def fetch_more(self) -> None:
        """Ask once, for what is missing, and take what comes."""
        part, url = self.part, self.place.url
        alone = part.alone and part.origin not in ("", url)
        resumes = part.size > 0 and not alone and url not in part.unranged
        headers = {"Range": f"bytes={part.size}-"} if resumes else {}
        if resumes and part.validator and part.origin == url:
            headers["If-Range"] = part.validator
        with self._exchange(headers) as exchange:
            opened = exchange.answer()
            coming = self._checked(opened, resumes)
            if alone:
                part.cut(0)
            self._take(exchange, coming, opened)

    def fetch_manifest(self) -> None:
        """Ask for a tag's manifest; one that is another now is told from bytes that are merely wrong."""
        with self._exchange({}) as exchange:
            opened = exchange.answer()
            coming = body(opened)
            if coming is None or coming.start:
                raise refusal(opened, self.place, self.file, self.network.clock())
            content = b""
            while data := self._next(exchange):
                content += data
                self._pay(data)
                if len(content) > LARGEST_MANIFEST:
                    raise TransientError(f"{host(opened.url)}: no manifest is that long", wrong_bytes=True)
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.file.sha256:
            name, pinned = host(self.place.url), self.file.sha256
            if ollama.is_manifest(content):
                raise PermanentError(
                    f"{name}: the tag {self.place.tag} has moved: it is sha256:{digest} now, pinned is "
                    f"sha256:{pinned}: pin the model anew (`hal models pin`)"
                )
            raise TransientError(f"{name}: wrong bytes: sha256 {digest}, pinned {pinned}", wrong_bytes=True)
        self.part.cut(0)
        self.part.begin(self.place.url, "", whole=True)
        self.part.put(0, content)

    def _checked(self, opened: Opened, resumes: bool) -> Body:
        """The body that follows, if it can continue the part."""
        part, name = self.part, host(opened.url)
        status = opened.response.status_code
        coming = body(opened)
        if coming is None and status in (206, 416):
            whole = opened.response.headers.get("Content-Range", "").rpartition("/")[2]
            if status == 416 and whole.isdecimal() and int(whole) != self.file.size:
                raise self._other_length(opened, int(whole))
            part.unranged.add(self.place.url)
            raise TransientError(f"{name}: HTTP {status}: it cannot continue; the next time all is asked for")
        if coming is None:
            raise refusal(opened, self.place, self.file, self.network.clock())
        if coming.whole is not None and coming.whole != self.file.size:
            raise self._other_length(opened, coming.whole)
        if coming.start > (part.size if resumes else 0):
            part.unranged.add(self.place.url)
            raise TransientError(f"{name}: another range than asked for; the next time all is asked for")
        encoded = opened.response.headers.get("Content-Encoding", "identity")
        if encoded != "identity" and coming.whole is None:
            raise TransientError(f"{name}: it sends the file compressed, against our wish", wrong_bytes=True)
        return coming

    def _take(self, exchange: Exchange, coming: Body, opened: Opened) -> None:
        part, url, name = self.part, self.place.url, host(opened.url)
        position, begun = coming.start, False
        while True:
            if not begun and position >= part.size:  # what was there before is compared until here
                part.begin(url, coming.validator, whole=coming.start == 0)
                begun = True
            data = self._next(exchange)
            if not data:
                break
            data = data[: self.file.size - position]
            part.put(position, data)
            position += len(data)
            self._pay(data)
            if coming.end is None and not part.missing:
                break  # whatever else it has to say: no byte beyond the pin
        if position == coming.start or (part.missing and position != coming.end):
            raise TransientError(f"{name}: the answer ended {self.file.size - position:,} bytes early")

    def _next(self, exchange: Exchange) -> bytes:
        data = exchange.data()
        if data:
            self.progress(len(data))
        return data

    def _pay(self, data: bytes) -> None:
        if not self.limits.bandwidth.take(len(data), self.stop):
            raise StoppedError

    def _exchange(self, headers: dict[str, str]) -> Exchange:
        stall = self.limits.stall
        timeouts = (min(CONNECT, stall), stall)
        return Exchange(
            lambda: self.network.open(self.place, headers, timeouts),
            chunk=self.limits.bandwidth.chunk(CHUNK),
            name=host(self.place.url),
            stall=stall,
            until=self.limits.until,
            stop=self.stop,
        )

    def _other_length(self, opened: Opened, length: int) -> TransientError:
        name, headers = host(opened.url), opened.response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            return TransientError(f"{name}: it sends the file compressed, against our wish", wrong_bytes=True)
        words = f"{name}: its file has {length:,} bytes, pinned are {self.file.size:,}"
        return TransientError(words, wrong_bytes=True)
