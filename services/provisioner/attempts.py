"""Attempts that run: a thread for each, which ends with an event. The first loads the network's libraries."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .config import Config
from .core.events import Event, Fetch, FetchEnded, Outcome
from .disk.calls import FULL
from .disk.part import Part
from .disk.store import Store
from .failures import PermanentError, StoppedError, TransientError
from .network.bandwidth import Bucket
from .network.places import Place
from .pins import PinnedFile

if TYPE_CHECKING:
    from .network.session import Network


class Source(NamedTuple):
    """A file to fetch and the places that have it."""

    file: PinnedFile
    places: list[Place]


class _Running:
    """One attempt. `fetched`: bytes that came over the network; `held`: bytes held of the file."""

    def __init__(self, order: Fetch) -> None:
        self.order = order
        self.stop = threading.Event()
        self.fetched = 0
        self.part: Part | None = None
        self.thread: threading.Thread | None = None


class Attempts:
    """All attempts of a provisioner; methods are called by its main thread only."""

    def __init__(
        self,
        config: Config,
        store: Store,
        sources: dict[str, Source],
        post: Callable[[Event], None],
    ) -> None:
        self.config = config
        self.store = store
        self.sources = sources
        self._post = post
        self._bucket = Bucket(config.bandwidth)
        self._running: dict[str, _Running] = {}
        self._parts: dict[str, Part] = {}
        self._network: Network | None = None
        self._lock = threading.Lock()

    def start(self, order: Fetch) -> None:
        """Begin an attempt."""
        running = self._running[order.sha256] = _Running(order)
        running.part = self._parts.pop(order.sha256, None)
        running.thread = threading.Thread(target=self._run, args=(running,), name="fetch", daemon=True)
        running.thread.start()

    def stop(self, sha256: str) -> None:
        """Stop an attempt; it ends soon, with an event."""
        if sha256 in self._running:
            self._running[sha256].stop.set()

    def ended(self, event: FetchEnded) -> None:
        """Take the open part of an attempt that has ended, for the next one."""
        running = self._running.pop(event.sha256, None)
        if running is None or running.part is None:
            return
        if event.outcome in (Outcome.FAILED, Outcome.STOPPED):
            self._parts[event.sha256] = running.part
        else:
            self._close(running.part)

    def forget(self, sha256: str) -> None:
        """Let go of a part that is being removed."""
        part = self._parts.pop(sha256, None)
        if part is not None:
            self._close(part)

    def held(self) -> tuple[tuple[str, int], ...]:
        """Bytes that are held of the files of attempts that run."""
        return tuple((sha256, one.part.size) for sha256, one in self._running.items() if one.part is not None)

    def fetched(self) -> dict[str, int]:
        """Bytes that came over the network in attempts that run."""
        return {sha256: one.fetched for sha256, one in self._running.items()}

    def shown(self, sha256: str, place: int) -> str:
        """A place of a file, for people."""
        places = self.sources[sha256].places if sha256 in self.sources else []
        return places[place].shown if place < len(places) else ""

    def stop_all(self) -> list[threading.Thread]:
        """Stop all of them; their threads."""
        for running in self._running.values():
            running.stop.set()
        return [running.thread for running in self._running.values() if running.thread is not None]

    def close(self) -> None:
        """Sync what is held, and let go; no attempt runs any more."""
        for part in [*self._parts.values(), *(one.part for one in self._running.values() if one.part)]:
            self._close(part)

    def _run(self, running: _Running) -> None:
        order = running.order
        try:
            event = self._attempt(running)
        except Exception as error:  # a mistake of ours must not leave a file waiting for ever
            words = f"internal error: {type(error).__name__}: {error}"
            event = FetchEnded(order.sha256, Outcome.FAILED, words=words)
        held = running.part.size if running.part is not None else 0
        size = self.sources[order.sha256].file.size
        event = event._replace(
            held=size if event.outcome == Outcome.WHOLE else held,
            fetched=running.fetched,
            draw=random.random(),
        )
        self._post(event)

    def _attempt(self, running: _Running) -> FetchEnded:
        sha256 = running.order.sha256
        source = self.sources[sha256]
        place = source.places[running.order.place]

        def progress(count: int) -> None:
            running.fetched += count

        try:
            self._fetch(running, source.file, place, progress)
            part = running.part
            assert part is not None
            part.close()
            self.store.keep(sha256, part.path)
            running.part = None
        except StoppedError:
            return FetchEnded(sha256, Outcome.STOPPED)
        except TransientError as error:
            return FetchEnded(
                sha256,
                Outcome.FAILED,
                words=f"{source.file.name}: {error}",
                wrong_bytes=error.wrong_bytes,
                retry_after=error.retry_after,
            )
        except PermanentError as error:
            return FetchEnded(sha256, Outcome.FAILED, words=f"{source.file.name}: {error}", permanent=True)
        except OSError as error:
            words = f"{source.file.name}: {error.strerror or error}"
            full = error.errno in FULL
            return FetchEnded(sha256, Outcome.FULL if full else Outcome.BROKEN, words=words)
        return FetchEnded(sha256, Outcome.WHOLE)

    def _fetch(
        self, running: _Running, file: PinnedFile, place: Place, progress: Callable[[int], None]
    ) -> None:
        from .network.transfer import Limits, fetch

        if running.part is None:
            running.part = Part(self.store.part(file.sha256), file.size, self.store.disk, running.stop)
        if not file.size:
            return  # nobody has to be asked for nothing
        limits = Limits(self.config.policy.stall, running.order.until, self._bucket)
        fetch(
            file,
            place,
            running.part,
            network=self._shared_network(),
            limits=limits,
            stop=running.stop,
            progress=progress,
        )

    def _shared_network(self) -> Network:
        from .network.session import Network

        with self._lock:
            if self._network is None:
                self._network = Network(self.config)
            return self._network

    def _close(self, part: Part) -> None:
        with contextlib.suppress(OSError):  # what is not on the disk is fetched again
            part.close()
