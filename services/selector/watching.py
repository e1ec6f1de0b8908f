"""The engines' services, looked at again and again, and at once when the last process of one has ended."""

from __future__ import annotations

import os
from collections.abc import Callable

from . import control, core
from .config import Config
from .core.events import OrderFailed, Verb
from .loop import NEWS, Loop

ORDER_INTERVAL, UNSETTLED_INTERVAL, SETTLED_INTERVAL = 0.1, 0.5, 2.0
"""Seconds between looks: while an order is out; while one is neither ready nor stopped; else."""


class Watching:
    """Gives orders and tells the core what becomes of them and of the services."""

    def __init__(self, loop: Loop, tell: Callable[[core.Event], None]) -> None:
        self.due = loop.clock()
        self._loop = loop
        self._tell = tell
        self._services: dict[str, control.Service] = {}
        self._groups: dict[str, int] = {}

    def follow(self, config: Config) -> None:
        """Look at the services of this configuration's engines."""
        for engine in config.engines:
            known = self._services.get(engine.name)
            if engine.managed and (known is None or known.engine != engine):
                self._services[engine.name] = control.Service(engine)

    def look(self, state: Callable[[], core.State]) -> None:
        """See how the services are and tell it; `state` gives the core's."""
        now = self._loop.clock()
        for name, service in self._services.items():
            self._watch_group(name)
            for event in service.look(now):
                self._tell(event)
            engine = core.find(state(), name)
            if service.died and engine is not None and engine.healthy:
                # No probe has to find out.
                self._tell(core.Probed(name, core.Verdict.REFUSED, "none of its processes is left"))
        self.due = self._loop.clock() + self._interval(state())

    def order(self, action: core.Start | core.Stop, pipe: str) -> core.Event | None:
        """Give an order; why that failed, or None: what becomes of it is seen later."""
        verb = Verb.START if isinstance(action, core.Start) else Verb.STOP
        service = self._services[action.engine]
        service.ordered(verb, self._loop.clock())
        try:
            control.give(pipe, verb, action.engine)
        except control.OrderError as error:
            service.not_ordered()
            return OrderFailed(action.engine, verb, str(error))
        self.due = min(self.due, self._loop.clock() + ORDER_INTERVAL)
        return None

    def _interval(self, state: core.State) -> float:
        if any(service.order for service in self._services.values()):
            return ORDER_INTERVAL
        settled = (core.Unit.READY, core.Unit.STOPPED)
        steady = all(engine.unit in settled for engine in state.engines if engine.managed)
        return SETTLED_INTERVAL if steady and state.switch is None else UNSETTLED_INTERVAL

    def _watch_group(self, name: str) -> None:
        """Have the kernel say when the last process of an engine has ended."""
        cgroup = self._services[name].engine.cgroup
        descriptor = control.changes_of(cgroup) if cgroup and name not in self._groups else -1
        if descriptor < 0:
            return

        def changed() -> None:
            self._loop.forget(descriptor)
            os.close(descriptor)
            del self._groups[name]
            self.due = self._loop.clock()

        self._groups[name] = descriptor
        self._loop.watch(descriptor, NEWS, changed)
