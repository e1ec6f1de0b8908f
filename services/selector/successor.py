"""Notices that HAProxy was reloaded, long before the old process has ended.

The old process keeps the selector's connection until its last stream ends, and the new one has every server
in maintenance. But the new one connects at once to the selector's own socket, whose health it checks: the
kernel says which process that is (unix(7), SO_PEERCRED). Whether it is HAProxy's, and which process answers
at the runtime API by now, is asked there.
"""

from __future__ import annotations

from collections.abc import Callable

from .gateway import Gateway, GatewayError

PATIENCE = 1.0
"""Seconds in which a new process takes the runtime API over, once it has connected."""

INTERVAL = 0.05
MOST_STRANGERS = 64
"""Processes that are remembered; anybody in the gateway's group may connect."""


class Successor:
    """Finds the connection to HAProxy's new process, if there is one. Looks at `due`."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self.due = float("inf")
        self._path = path
        self._clock = clock
        self._until = 0.0
        self._known: set[int] = set()

    def connected(self, process: int) -> None:
        """A process has connected to the selector."""
        if process in self._known:
            return
        if len(self._known) >= MOST_STRANGERS:
            self._known.clear()
        self._known.add(process)
        now = self._clock()
        self.due, self._until = now, now + PATIENCE

    def look(self, present: Gateway) -> Gateway | None:
        """The connection that takes the place of `present`; None where that one is of the newest process."""
        now = self._clock()
        self.due = now + INTERVAL if now < self._until else float("inf")
        if not present.connected:
            self.due = float("inf")  # it is connected anew in any case
            return None
        fresh = Gateway(self._path)
        try:
            fresh.connect()
        except GatewayError:
            return None
        if fresh.process and present.process and fresh.process != present.process:
            self.due = float("inf")
            return fresh
        fresh.close()
        return None
