"""One thread, one poll(2): who waits for which descriptor, and until when."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import NamedTuple

READ, WRITE, NEWS = select.POLLIN, select.POLLOUT, select.POLLPRI


class _Watch(NamedTuple):
    handler: Callable[[], None]
    deadline: float
    expire: Callable[[], None] | None


class Loop:
    """Calls a handler when its descriptor is ready, or its `expire` once its deadline has passed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._poll = select.poll()
        self._watches: dict[int, _Watch] = {}

    def watch(
        self,
        descriptor: int,
        interest: int,
        handler: Callable[[], None],
        deadline: float = float("inf"),
        expire: Callable[[], None] | None = None,
    ) -> None:
        """Wait for a descriptor, in place of what was waited for on it before."""
        self._watches[descriptor] = _Watch(handler, deadline, expire)
        self._poll.register(descriptor, interest)

    def forget(self, descriptor: int) -> None:
        """Wait for it no longer."""
        if self._watches.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def turn(self, until: float) -> None:
        """Wait for what comes first, a descriptor, a deadline or `until`, and serve it."""
        due = min((watch.deadline for watch in self._watches.values()), default=until)
        wait = max(0.0, min(due, until) - self.clock())
        for descriptor, _ in self._poll.poll(wait * 1000 + (0.5 if wait else 0)):
            watch = self._watches.get(descriptor)
            if watch is not None:  # else an earlier handler of this turn closed it
                watch.handler()
        now = self.clock()
        for descriptor, watch in list(self._watches.items()):
            if watch.deadline <= now and self._watches.get(descriptor) is watch:
                self.forget(descriptor)
                if watch.expire is not None:
                    watch.expire()
