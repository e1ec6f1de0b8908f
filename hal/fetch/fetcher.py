"""Fetching what a lock pins into the cache: in parallel, resumed, verified, published whole.

A file enters the cache only when its sha256 is the pinned one. What is there already costs one `stat`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from hal.cache import Cache, disk_error
from hal.errors import HalError
from hal.fetch.hubs import GATED_HINT
from hal.fetch.sources import Mirrors
from hal.lock.file import Artifact

if TYPE_CHECKING:
    import requests

    from hal.fetch.transfer import Part, Patience

log = logging.getLogger("hal.fetch")

THREADS = 8
"""Files fetched at once: hides the latency of small files without burdening a mirror."""


class Progress(Protocol):
    """Hears about downloads, from one thread at a time; `hal.progress.Reporter` is one."""

    def expect(self, size: int) -> None:
        """`size` more bytes are to be downloaded."""

    def advance(self, size: int) -> None:
        """`size` bytes have come (negative: were thrown away)."""

    def note(self, text: str) -> None:
        """Something worth a line: a server that has to be asked again and again."""


class _Unheard:
    def expect(self, size: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


ELSEWHERE = (
    "PyPI does not have them: tell pip of the index that has (`pip config set global.extra-index-url URL`; "
    "for +cpu builds PyTorch's own), or name a directory: --mirror DIR"
)
"""For wheels from other indexes; docs/lock.md says more."""


MODELS = ("huggingface:", "ollama:")
"""What the sources of models' files begin with, which no lock pins."""


class MissingError(HalError):
    """`--offline`, and some artifacts are neither in the cache nor in a local mirror."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        count = len(artifacts)
        super().__init__(
            f"{count} file{'s are' if count > 1 else ' is'} neither cached nor in a local mirror",
            "run it once without --offline, or name a directory that has them: --mirror DIR",
            details=_listed([f"{artifact.name} ({artifact.size:,} bytes)" for artifact in artifacts]),
        )
        self.artifacts = tuple(artifacts)


class GoneError(HalError):
    """Nobody has these artifacts any more: every place answered that there is no such file."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        count = len(artifacts)
        super().__init__(
            f"{count} pinned file{'s are' if count > 1 else ' is'} gone from the pinned place",
            _gone_hint(artifacts),
            details=_listed([artifact.name for artifact in artifacts]),
        )
        self.artifacts = tuple(artifacts)


def _gone_hint(artifacts: Sequence[Artifact]) -> str:
    if all(artifact.source.startswith("index:") for artifact in artifacts):
        return ELSEWHERE
    if all(artifact.source.startswith(MODELS) for artifact in artifacts):
        return "`hal models pin` pins what is there now; --mirror DIR names a directory that has the files"
    return "`hal lock` pins what is there now; or name a snapshot archive: --snapshot URL"


def _pinned_by(artifact: Artifact) -> str:
    """The command of hal that pins such an artifact."""
    return "models pin" if artifact.source.startswith(MODELS) else "lock"


def _listed(lines: Sequence[str], most: int = 20) -> tuple[str, ...]:
    """The lines of a list, no more than a screen can hold."""
    rest = (f"  and {len(lines) - most} more",) if len(lines) > most else ()
    return (*(f"  {line}" for line in lines[:most]), *rest)


class WrongContentError(HalError):
    """A file is not the one that is pinned."""

    def __init__(self, artifact: Artifact, where: str, got: str) -> None:
        super().__init__(
            f"{artifact.name}: {where} has other content than pinned; nothing of it was kept",
            f"if the change is intended, `hal {_pinned_by(artifact)}` pins the new content; otherwise do not "
            "trust that place",
            details=(f"  expected sha256 {artifact.sha256}, {artifact.size} bytes", f"  got      {got}"),
        )


class Fetcher:
    """Brings artifacts into a cache from the places that `mirrors` knows.

    With `offline`, only the cache and this machine's files are used.
    """

    def __init__(
        self,
        cache: Cache,
        mirrors: Mirrors,
        *,
        offline: bool = False,
        progress: Progress | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.cache = cache
        self.mirrors = mirrors
        self.offline = offline
        self._progress = progress or _Unheard()
        self._patience = patience

    def at(self, moment: datetime) -> Fetcher:
        """The same for a lock resolved at `moment` (what snapshot archives are asked for)."""
        mirrors = self.mirrors.at(moment)
        return Fetcher(
            self.cache, mirrors, offline=self.offline, progress=self._progress, patience=self._patience
        )

    def fetch(self, artifacts: Iterable[Artifact]) -> dict[str, Path]:
        """The files, by sha256; those not yet cached are fetched first.

        Raises:
            GoneError: some exist nowhere any more (all others are then in the cache).
            MissingError: offline, and some are not at hand.
            WrongContentError: a place has another file under that name.
            HalError: a place cannot be reached, or the disk is full.
        """
        wanted = {artifact.sha256: artifact for artifact in artifacts}
        found = {sha256: self.cache.find(sha256, artifact.size) for sha256, artifact in wanted.items()}
        absent = [wanted[sha256] for sha256, path in found.items() if path is None]
        if absent:
            _Batch(self, absent, self._progress, self._patience).run()
        return {sha256: found[sha256] or self.cache.path(sha256) for sha256 in wanted}


class _Batch:
    """One run of fetching several files with several threads."""

    def __init__(
        self, fetcher: Fetcher, artifacts: list[Artifact], progress: Progress, patience: Patience | None
    ) -> None:
        # Not at the module's top: a build with everything cached has no use for them, and they load slowly.
        from hal.fetch.http import new_session
        from hal.fetch.transfer import Patience

        self._cache = fetcher.cache
        self._mirrors = fetcher.mirrors
        self._offline = fetcher.offline
        self._progress = progress
        self._patience = patience or Patience()
        self._session: requests.Session = new_session(THREADS)
        self._artifacts = artifacts
        self._todo: queue.SimpleQueue[Artifact] = queue.SimpleQueue()
        # Large files first: a large one last would have the other threads wait for it.
        for artifact in sorted(artifacts, key=lambda a: (-a.size, a.name)):
            self._todo.put(artifact)
        self._stop = threading.Event()
        self._voice = threading.Lock()
        self._troubled: set[str] = set()
        self._lost: list[Artifact] = []
        self._failures: list[BaseException] = []

    def run(self) -> None:
        self._cache.require_space(sum(self._remaining(artifact) for artifact in self._artifacts))
        self._progress.expect(sum(artifact.size for artifact in self._artifacts))
        # Daemons: after a failure nobody waits for a thread that sits in a slow connection.
        threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(min(THREADS, len(self._artifacts)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive() and not self._failures:
                    thread.join(0.1)
        finally:
            self._stop.set()
        if self._failures:
            raise self._failures[0]
        if self._lost:
            lost = sorted(self._lost, key=lambda artifact: artifact.name)
            raise MissingError(lost) if self._offline else GoneError(lost)

    def _remaining(self, artifact: Artifact) -> int:
        with contextlib.suppress(OSError):
            return artifact.size - (self._cache.root / "parts" / artifact.sha256).stat().st_size
        return artifact.size

    def _work(self) -> None:
        from hal.fetch.transfer import StoppedError

        while not self._stop.is_set():
            try:
                artifact = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                if not self._bring(artifact):
                    self._lost.append(artifact)
            except StoppedError:
                return
            except BaseException as error:  # raised again by `run`, in the main thread
                self._failures.append(error)
                self._stop.set()

    def _bring(self, artifact: Artifact) -> bool:
        """Get one file into the cache; False when nobody has it."""
        from hal.fetch.transfer import Part

        with self._cache.part(artifact.sha256) as file:
            if self._cache.find(artifact.sha256, artifact.size):  # another process was quicker
                self._cache.discard_part(artifact.sha256)
                self._advance(artifact.size)
            else:
                try:
                    part = Part(file, artifact.size, self._advance)
                    if not self._fill(artifact, part):
                        self._cache.discard_part(artifact.sha256)
                        self._advance(-part.size)
                        return False
                except OSError as error:
                    raise disk_error(error, self._cache.root) or error from error
                finally:
                    self._drop_if_empty(file, artifact)
        return True

    def _drop_if_empty(self, file: IO[bytes], artifact: Artifact) -> None:
        """An empty part is of no use to resume from; a published one is no longer in its place."""
        if file.seek(0, 2) == 0 and artifact.size:
            self._cache.discard_part(artifact.sha256)

    def _fill(self, artifact: Artifact, part: Part) -> bool:
        """Fill the part from the first place that has the right bytes, and publish it."""
        if not part.missing and self._publish(artifact, part):
            return True
        if not part.missing:
            part.restart()
        problems: list[HalError] = []
        for place in self._places(artifact, problems):
            resumed = part.size > 0
            wrong = self._try(artifact, part, place, problems)
            if wrong and resumed:  # the old bytes may be the wrong ones
                part.restart()
                wrong = self._try(artifact, part, place, problems)
            if not part.missing and not wrong:
                return True
            if wrong:
                part.restart()
                problems.insert(0, wrong)
                self._note(f"{artifact.name}: {_shown(place)} has other content than pinned")
        if problems:
            raise problems[0]
        return False

    def _places(self, artifact: Artifact, problems: list[HalError]) -> Iterator[Path | str]:
        yield from self._mirrors.local(artifact)
        if not self._offline:
            try:
                yield from self._mirrors.urls(artifact)
            except HalError as error:
                problems.append(error)

    def _try(
        self, artifact: Artifact, part: Part, place: Path | str, problems: list[HalError]
    ) -> WrongContentError | None:
        """Fill the part from one place and publish it; what is wrong with its content, if anything."""
        from hal.fetch.transfer import FailedError, NotThereError, Transfer, WrongLengthError

        where = _shown(place)
        try:
            if isinstance(place, Path):
                part.restart()
                _copy(place, part)
            else:
                note = partial(self._note_once, urlsplit(place).netloc)
                Transfer(
                    self._session, place, part, patience=self._patience, stop=self._stop, note=note
                ).complete()
        except NotThereError:
            return None
        except WrongLengthError as error:
            return WrongContentError(artifact, where, str(error))
        except FailedError as error:
            hint = "check the network; or name another mirror (--mirror), or work --offline"
            if artifact.source.startswith("huggingface:") and re.match("HTTP 40[13]", str(error)):
                hint = GATED_HINT
            problems.append(HalError(f"{artifact.name} cannot be fetched from {where}: {error}", hint))
            return None
        if self._publish(artifact, part):
            return None
        return WrongContentError(artifact, where, f"sha256 {part.hexdigest()}, {part.size} bytes")

    def _publish(self, artifact: Artifact, part: Part) -> bool:
        if part.missing or part.hexdigest() != artifact.sha256:
            return False
        self._cache.publish_part(part.file, artifact.sha256)
        return True

    def _advance(self, count: int) -> None:
        with self._voice:
            self._progress.advance(count)

    def _note_once(self, server: str, text: str) -> None:
        """One line for a server in trouble, not one for each of its files and attempts."""
        with self._voice:
            if server not in self._troubled:
                self._troubled.add(server)
                self._progress.note(text)

    def _note(self, text: str) -> None:
        with self._voice:
            self._progress.note(text)


def _copy(path: Path, part: Part) -> None:
    """Copy a local file into a part, no more of it than one byte beyond what is wanted."""
    from hal.fetch.transfer import CHUNK, FailedError, WrongLengthError

    try:
        size = path.stat().st_size
        file = path.open("rb")
    except OSError as error:
        raise FailedError(error.strerror or str(error)) from error
    with file:
        if size != part.missing:
            raise WrongLengthError(f"{size} bytes")
        while part.missing and (chunk := file.read(min(CHUNK, part.missing))):
            part.write(chunk)


def _shown(place: Path | str) -> str:
    """A place for messages: a URL's host and no password."""
    if isinstance(place, Path):
        return str(place)
    scheme, separator, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
