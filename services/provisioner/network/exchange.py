"""One request and its answer, read on a thread of its own.

A resolver, a handshake and a server that drips headers can each hold a thread for minutes, whatever its
time-outs; the caller must stop within half a second all the same. So it only waits for what this thread
brings, and leaves it behind where it takes too long. Reading and hashing also go on side by side this way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from ..failures import PermanentError, StoppedError, TransientError, words
from .session import Opened

AHEAD = 8
"""Chunks' worth of bytes that are read before they are wanted."""

TICK = 0.2
"""Seconds between looks at what may end the waiting."""


class Exchange:
    """Asks (`ask`) at once; `chunk` is how many bytes are handed on at a time, `name` whom errors are about.

    `stall` is the time without a byte after which it has failed, `until` (`time.monotonic()`) when it has
    anyway; `stop` is looked at all the time.
    """

    def __init__(
        self,
        ask: Callable[[], Opened],
        *,
        chunk: int,
        name: str,
        stall: float,
        until: float | None,
        stop: threading.Event,
    ) -> None:
        self._ask = ask
        self._chunk = chunk
        self._name = name
        self._stall = stall
        self._until = until
        self._stop = stop
        self._changed = threading.Condition()
        self._opened: Opened | None = None
        self._pieces: deque[bytes] = deque()  # a TLS record each: too little to be handed on one by one
        self._held = 0
        self._ended = self._left = False
        self._failure: Exception | None = None
        threading.Thread(target=self._read, name=f"from {name}", daemon=True).start()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
        if self._opened:
            with contextlib.suppress(Exception):  # it may have ended by itself, in any of its states
                self._opened.response.raw.shutdown()

    def answer(self) -> Opened:
        """The answer's head.

        Raises:
            TransientError, PermanentError, StoppedError: there is none.
        """
        with self._changed:
            self._wait(lambda: self._opened is not None or self._ended, "no answer")
            if self._opened is None:
                raise self._failed()
            return self._opened

    def data(self) -> bytes:
        """The next bytes of the body; none at its end.

        Raises:
            TransientError, StoppedError: they do not come.
        """
        with self._changed:
            self._wait(lambda: bool(self._pieces) or self._ended, "stalled: not a byte")
            if not self._pieces:
                if self._failure:
                    raise self._failed()
                return b""
            taken, size = [], 0
            while self._pieces and size < self._chunk:
                taken.append(self._pieces.popleft())
                size += len(taken[-1])
            self._held -= size
            self._changed.notify_all()
        return b"".join(taken)

    def _wait(self, there: Callable[[], bool], complaint: str) -> None:
        """Wait, with the lock, until there is something."""
        end = time.monotonic() + self._stall
        while True:
            if self._stop.is_set():
                raise StoppedError
            now = time.monotonic()
            if self._until is not None and now >= self._until:
                raise TransientError("the time for this model is used up (provision.deadline)")
            if there():
                return
            if now >= end:
                raise TransientError(f"{self._name}: {complaint} in {self._stall:g} s")
            self._changed.wait(min(TICK, end - now))

    def _failed(self) -> Exception:
        error = self._failure
        if isinstance(error, TransientError | PermanentError):
            return error
        return TransientError(f"{self._name}: {words(error) if error else 'no answer'}")

    def _read(self) -> None:
        """What the thread does."""
        failure: Exception | None = None
        try:
            opened = self._ask()
            try:
                with self._changed:
                    self._opened = opened
                    self._changed.notify_all()
                raw = opened.response.raw
                # Returns what is there: `read` would wait for a full chunk. Raw: what was pinned is compared.
                while not self._left and (piece := raw.read1(self._chunk, decode_content=False)):
                    self._keep(piece)
            finally:
                opened.response.close()
        except Exception as error:
            failure = error
        with self._changed:
            self._failure, self._ended = failure, True
            self._changed.notify_all()

    def _keep(self, piece: bytes) -> None:
        """Hand bytes on as soon as there is room."""
        with self._changed:
            while self._held >= AHEAD * self._chunk and not self._left:
                self._changed.wait()
            self._pieces.append(piece)
            self._held += len(piece)
            self._changed.notify_all()
