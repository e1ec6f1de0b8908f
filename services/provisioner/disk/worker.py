"""Work on the disk, one piece after the other, beside the main thread, which must never wait for a disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Worker:
    """A thread with its queue, from the first piece of work on."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def put(self, work: Callable[[], None]) -> None:
        """Do this after all that was put before; it deals with its errors itself."""
        with self._lock:
            if not self._started:
                self._started = True
                self.thread.start()
        self._queue.put(work)

    def stop(self) -> None:
        """End after what is being done and what waits."""
        self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
