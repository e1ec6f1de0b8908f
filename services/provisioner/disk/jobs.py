"""Carries out the core's work on the disk: each job ends with an event."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..core.events import Do, Event, Job, JobDone
from ..pins import PinnedModel
from .calls import FULL
from .markers import Markers
from .seal import Kept, hold
from .store import Store
from .verify import verify
from .worker import Worker


class Stopping(Exception):  # noqa: N818 (no error)
    """The provisioner is being stopped."""


class Jobs:
    """Two threads: one reads models through, which takes minutes, the other does all that is quick."""

    def __init__(
        self, store: Store, markers: Markers, post: Callable[[Event], None], sealing: bool = True
    ) -> None:
        self.store = store
        self.markers = markers
        self._post = post
        self.kept = Kept()
        self.verified: dict[str, float] = {}
        self._sealing = sealing
        self._stop = threading.Event()
        self.quick = Worker("disk")
        self._slow = Worker("verify")

    def do(self, order: Do) -> None:
        """Have it done."""
        worker = self._slow if order.job == Job.VERIFY else self.quick
        worker.put(lambda: self._guarded(order))

    def stop(self) -> list[threading.Thread]:
        """Stop after what cannot be broken off; the threads."""
        self._stop.set()
        self.quick.stop()
        self._slow.stop()
        return [self.quick.thread, self._slow.thread]

    def _guarded(self, order: Do) -> None:
        if self._stop.is_set():
            return
        try:
            done = self.carry_out(order)
        except Stopping:
            return
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            words = f"{where}{error.strerror or error}"
            done = JobDone(order.job, order.model, words, full=error.errno in FULL)
        except Exception as error:  # a mistake of ours must not leave a model waiting for ever
            done = JobDone(order.job, order.model, f"internal error: {type(error).__name__}: {error}")
        self._post(done)

    def carry_out(self, order: Do) -> JobDone:
        """Do it on this thread.

        Raises:
            OSError: the disk does not do it.
        """
        if order.job == Job.PRUNE:
            self.store.prune()
            return JobDone(order.job, "")
        model = self.store.config.model(order.model)
        if order.job == Job.PUBLISH:
            missing = self.store.publish(model)
            return JobDone(order.job, model.name, "files are missing" if missing else "", files=missing)
        if order.job == Job.VERIFY:
            return self._verify(model)
        if order.job == Job.SHOW:
            self.store.show(model)
            self.kept.add(model.name, hold(self.store.name(model)))
            self.markers.put(model)
        elif order.job == Job.HIDE:
            self.markers.remove(model.name)
            self.kept.forget(model.name)
            self.store.hide(model, order.files)
        else:
            self.store.drop(model, order.files)
        return JobDone(order.job, model.name)

    def _verify(self, model: PinnedModel) -> JobDone:
        def beat(count: int) -> None:
            if self._stop.is_set():
                raise Stopping
            self.verified[model.name] = count / model.size if model.size else 1.0

        try:
            verdict = verify(model, self.store.folder(model), beat, self._sealing)
        finally:
            self.verified.pop(model.name, None)
        bad = (*verdict.wrong, *verdict.extra)
        if bad:
            return JobDone(Job.VERIFY, model.name, "its files are not what is pinned", files=bad)
        if verdict.sealed:
            self.kept.keep(model.name, verdict.descriptors)
        else:
            verdict.close()
        return JobDone(Job.VERIFY, model.name, sealed=verdict.sealed)
