"""What operators ask of a running provisioner; each command runs on its client's own thread."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .control import Answer
from .core.events import Event, Imported, Retried, Reverified
from .core.state import Stage
from .disk import importing

if TYPE_CHECKING:
    from .daemon import Daemon

TIMEOUT = 30.0
"""Seconds until the main thread has taken an event in; it never waits for anything itself."""

TELL_INTERVAL = 0.5
"""Seconds between two words on how far an import is."""

NOTHING = "nothing is missing: every file of every model is there"


class Asked(NamedTuple):
    """An event whose sender waits until it was taken in."""

    event: Event
    taken: threading.Event


class Commands:
    """Answers the control socket for a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._importing = threading.Lock()

    def handle(self, command: dict[str, Any], descriptor: int | None, answer: Answer) -> None:
        """Carry out one command and answer."""
        do, model = command.get("do"), command.get("model", "")
        names = [one.name for one in self.daemon.config.models]
        if not isinstance(model, str) or (model and model not in names):
            known = ", ".join(names) or "none"
            answer({"ok": False, "error": f"there is no model {str(model)[:80]!r} here; there are: {known}"})
        elif do == "retry" and not self._unfinished(model):
            answer({"ok": False, "error": f"{model or 'every model'} is not being fetched: nothing to retry"})
        elif do == "retry":
            self._tell(Retried(model), answer)
        elif do == "verify":
            self._tell(Reverified(model), answer)
        elif do == "prune":
            self._prune(bool(command.get("old")), answer)
        elif do == "import" and descriptor is not None:
            self._import(descriptor, answer)
        else:
            answer({"ok": False, "error": "not a command"})

    def _unfinished(self, name: str) -> bool:
        return any(one.stage == Stage.FETCH and name in ("", one.name) for one in self.daemon.state.models)

    def _tell(self, event: Event, answer: Answer) -> None:
        if self._taken(event):
            answer({"ok": True})
        else:
            answer({"ok": False, "error": "the provisioner is stopping"})

    def _taken(self, event: Event) -> bool:
        asked = Asked(event, threading.Event())
        self.daemon.events.put(asked)
        return asked.taken.wait(TIMEOUT)

    def _prune(self, old: bool, answer: Answer) -> None:
        outcome: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

        def work() -> None:
            store = self.daemon.store
            try:
                before = store.space()[1]
                gone = store.prune(old)
                outcome.put({"ok": True, "removed": gone, "bytes": max(0, before - store.space()[1])})
            except OSError as error:
                outcome.put({"ok": False, "error": f"{error.filename}: {error.strerror}"})

        self.daemon.jobs.quick.put(work)
        answer(outcome.get())

    def _import(self, descriptor: int, answer: Answer) -> None:
        if not self._importing.acquire(blocking=False):
            answer({"ok": False, "error": "another import is going on; try again when it is done"})
            return
        try:
            self._imported(descriptor, answer)
        finally:
            self._importing.release()

    def _imported(self, descriptor: int, answer: Answer) -> None:
        state = self.daemon.state
        missing = {file.sha256 for file in state.files if not file.whole}
        wanted = [
            file for model in self.daemon.store.models for file in model.files if file.sha256 in missing
        ]
        copied, told = 0, time.monotonic()

        def beat(count: int) -> None:
            nonlocal copied, told
            copied += count
            if time.monotonic() - told >= TELL_INTERVAL:
                told = time.monotonic()
                answer({"bytes": copied})

        names: list[str] = []
        try:
            for sha256 in importing.take(self.daemon.store, descriptor, wanted, beat):
                self._taken(Imported(sha256))
                names += [file.name for file in wanted if file.sha256 == sha256 and file.name not in names]
        except importing.Refused as error:
            answer({"ok": False, "error": str(error) if missing else NOTHING, "files": names})
            return
        answer({"ok": True, "files": names, "bytes": copied})
