"""Engines' services: what is seen of them, which may be up, and what is ordered of them.

A start that runs out of time, or whose service fails again and again, is tried again later; never given up.
Where only one managed engine may be up, none is started before every other one is known to be down, which
takes an order of our own that was carried out: what was merely seen may be out of date.
"""

from __future__ import annotations

from .damping import backoff
from .events import (
    BY_HAND,
    Action,
    Log,
    ModelSeen,
    OrderDone,
    OrderFailed,
    Start,
    Stop,
    Unit,
    UnitSeen,
    Verb,
)
from .health import usable
from .records import Switch
from .state import Engine, State, decide, find, put, update

MOST_FAILURES = 3
"""Times that a service may fail within one start; each time it is started again by its own supervisor."""

ADOPT_GRACE = 5.0
"""Seconds for which what starts with the machine is not ordered to start."""

ORDER_MARGIN = 15.0
"""Seconds for the answer to an order, beyond what engines may take to stop. A start is not waited for."""

AGAIN = 5.0
"""Seconds between an order and its repetition."""


def seen(state: State, event: UnitSeen, now: float) -> State:
    """Take in what is told of a service; only news count, and they confirm no order to stop."""
    engine = find(state, event.engine)
    if engine is None or not engine.managed:
        return state
    told = (event.state, event.reason)
    if told == engine.seen:
        return state
    engine = engine._replace(seen=told)
    if engine.down and event.state in (Unit.FAILED, Unit.STOPPED, Unit.UNKNOWN):
        pass  # of the process that was stopped
    elif engine.order == Verb.START and event.state in (Unit.STOPPED, Unit.UNKNOWN):
        pass  # of the time before the order
    else:
        engine = engine._replace(unit=event.state, lasting=event.lasting)
        engine = _held(engine, told, now)
        if event.state in (Unit.STARTING, Unit.READY):
            engine = engine._replace(down=False)
        if engine.order == Verb.START:
            engine = engine._replace(order="")
        if event.state == Unit.FAILED and engine.deadline is not None:
            engine = engine._replace(failures=engine.failures + 1)
        if event.reason and not engine.healthy:
            engine = engine._replace(reason=event.reason)
    return put(state, engine)


def _held(engine: Engine, told: tuple[str, str], now: float) -> Engine:
    """An engine that somebody stops by hand is left alone until it runs again.

    That it was hal-control comes out a moment later than that it was stopped.
    """
    if told == (Unit.STOPPED, BY_HAND):
        return engine._replace(held=True, held_at=now, deadline=None, failures=0)
    return engine._replace(held=False) if told[0] in (Unit.STARTING, Unit.READY, Unit.STOPPED) else engine


def model(state: State, event: ModelSeen, now: float, actions: list[Action]) -> State:
    """Take in whether the engine's models are there. One whose model has gone is not stopped for it."""
    engine = find(state, event.engine)
    if engine is None:
        return state
    before = engine.missing
    engine = engine._replace(missing=event.missing, soon=event.soon)
    if bool(before) != bool(event.missing):
        words = event.missing or "its model is there"
        actions.append(Log(f"engine {engine.name}: {words}"))
        state = decide(state, now, f"{engine.name} {'waits' if event.missing else 'need not wait'}", words)
        if not engine.healthy:
            # What was tried without the model does not count.
            engine = engine._replace(deadline=None, failures=0, attempts=0, ordered=False)
            engine = engine._replace(since=now, retry_at=now, probe_at=now)
    return put(state, engine)


def done(state: State, event: OrderDone, now: float) -> State:
    """An order was carried out."""
    engine = find(state, event.engine)
    if engine is None or engine.order != event.verb:
        return state
    if event.verb == Verb.STOP:
        return put(state, stopped(engine, now))
    return update(state, engine.name, order="", unit=Unit.STARTING, down=False)


def stopped(engine: Engine, now: float) -> Engine:
    """The engine after our order to stop it was carried out: what a probe found no longer counts."""
    since = now if engine.healthy else engine.since
    reason = "stopped" if engine.healthy else engine.reason
    return engine._replace(
        order="",
        trouble="",
        failures=0,
        unit=Unit.STOPPED,
        down=True,
        down_at=now,
        healthy=False,
        since=since,
        reason=reason,
    )


def failed(state: State, event: OrderFailed, now: float, actions: list[Action]) -> State:
    """An order was not carried out; it is given again later."""
    engine = find(state, event.engine)
    if engine is None or engine.order != event.verb:
        return state
    if event.reason != engine.trouble:
        actions.append(Log(f"engine {engine.name} does not {event.verb}: {event.reason}"))
    return update(
        state,
        engine.name,
        order="",
        order_at=now + AGAIN,
        failures=engine.failures + 1,
        trouble=event.reason,
        ordered=engine.ordered and event.verb != Verb.START,
        reason=event.reason if not engine.healthy else engine.reason,
    )


def expire(state: State, now: float, actions: list[Action]) -> State:
    """Orders without an answer, and starts that have run out of time."""
    for engine in state.engines:
        if engine.order and now >= engine.ordered_at + limit(state):
            state = update(state, engine.name, order="", order_at=now)
        if engine.deadline is not None and (now >= engine.deadline or engine.failures >= MOST_FAILURES):
            attempts = engine.attempts + 1
            wait = backoff(attempts)
            how = (
                f"failed {engine.failures} times"
                if engine.failures >= MOST_FAILURES
                else f"was not ready within {engine.start_timeout:g} s"
            )
            why = f"{engine.reason}; tried again in {wait:g} s"
            actions.append(Log(f"engine {engine.name} {how}: {why}"))
            state = decide(state, now, f"{engine.name} {how}", why)
            state = update(
                state, engine.name, deadline=None, attempts=attempts, retry_at=now + wait, failures=0
            )
    return state


def may_be_up(state: State, engine: Engine) -> bool:
    """Whether the engine's service may run."""
    return not state.exclusive or engine.name == state.resident


def others_down(state: State, engine: Engine) -> bool:
    """Whether nothing is in the way of starting the engine."""
    if not state.exclusive:
        return True
    return all(other.down for other in state.engines if other.managed and other.name != engine.name)


def elect(state: State, wanted: tuple[str, ...], now: float) -> State:
    """Say which managed engine may be up where only one may."""
    if not state.exclusive or state.goal is None:
        return state if state.exclusive else state._replace(resident=None)
    goal = find(state, state.goal)
    if goal is not None and goal.managed:
        return state._replace(resident=goal.name)
    managed = [e for name in wanted if (e := find(state, name)) is not None and e.managed]
    present = find(state, state.resident)
    if present is not None and (present not in managed or not waits(present, now)):
        return state
    able = [engine for engine in managed if usable(engine)]
    able += [engine for engine in managed if not waits(engine, now)]
    return state._replace(resident=able[0].name if able else state.resident)


def waits(engine: Engine, now: float) -> bool:
    """Whether the engine has started in vain and the next start is not due yet, or not for the selector."""
    if engine.held or engine.bare:
        return True
    return engine.deadline is None and now < engine.retry_at and not engine.healthy


def order(state: State, wanted: tuple[str, ...], now: float, actions: list[Action]) -> State:
    """Give the orders that are due: one at a time for each engine."""
    if state.goal is None:
        return state
    for engine in state.engines:
        if not engine.managed:
            continue
        if not may_be_up(state, engine):
            state = _keep_down(state, engine, now, actions)
        elif engine.name in wanted or engine.name == state.goal or state.exclusive:
            state = _keep_up(state, engine, now, actions)
    return state


def _keep_down(state: State, engine: Engine, now: float, actions: list[Action]) -> State:
    if engine.deadline is not None:
        state = update(state, engine.name, deadline=None, failures=0)
    leaving = next((entry for entry in state.leaving if entry.engine == engine.name), None)
    if engine.down or engine.order or now < engine.order_at or leaving is None or not leaving.over:
        return state
    actions.append(Stop(engine.name))
    return update(state, engine.name, order=Verb.STOP, ordered_at=now, order_at=now + AGAIN)


def _keep_up(state: State, engine: Engine, now: float, actions: list[Action]) -> State:
    if engine.healthy or engine.held or engine.blocked:
        return state
    if engine.order == Verb.STOP or not others_down(state, engine):
        return state
    if engine.bare and not engine.down and engine.unit in (Unit.STARTING, Unit.READY):
        return put(
            state, engine._replace(deadline=None)
        )  # it runs, and its start is not over before it has that
    if engine.deadline is None:
        if now < engine.retry_at:
            return state
        deadline = now + engine.start_timeout
        engine = engine._replace(deadline=deadline, failures=0, ordered=False)
        long = engine.attempts > 0 or now - engine.since >= engine.start_timeout
        if long and not engine.down and engine.unit not in (Unit.STOPPED, Unit.FAILED):
            # It runs and has not served for long: it has to be stopped first.
            actions.append(Stop(engine.name))
            engine = engine._replace(
                order=Verb.STOP, ordered_at=now, deadline=deadline + engine.stop_timeout + ORDER_MARGIN
            )
        state = put(state, engine)
    if engine.order or now < engine.order_at or (engine.ordered and engine.unit != Unit.STOPPED):
        return state
    if not engine.down and engine.unit == Unit.STARTING:
        return state
    if _may_be_stopping(engine, now):
        return state
    if (
        now < state.born + ADOPT_GRACE
        and _may_start_by_itself(engine)
        and not _asked_for(state.switch, engine)
    ):
        return state
    actions.append(Start(engine.name))
    return update(
        state, engine.name, order=Verb.START, ordered_at=now, order_at=now + AGAIN, ordered=True, down=False
    )


def _may_be_stopping(engine: Engine, now: float) -> bool:
    """Whether somebody may be stopping the engine: it served until lately, and nothing says that it is gone.

    An order to start would be carried out after that stop, against the will of whoever gave it.
    """
    served = bool(engine.losses) and engine.losses[-1] == engine.since
    there = not engine.down and engine.unit in (Unit.READY, Unit.UNKNOWN)
    return served and there and now < engine.since + engine.stop_timeout


def _may_start_by_itself(engine: Engine) -> bool:
    """Whether the engine may be one that starts with the machine: none does that has to wait for a model."""
    return not engine.down and not (engine.binds and engine.unit == Unit.STOPPED)


def _asked_for(switch: Switch | None, engine: Engine) -> bool:
    return switch is not None and switch.target == engine.name


def limit(state: State) -> float:
    """Seconds after which an order counts as lost: those before it may be stops that take all their time."""
    return ORDER_MARGIN + sum(engine.stop_timeout for engine in state.engines if engine.managed)


def stopping(state: State) -> tuple[Engine, ...]:
    """The managed engines that are up, or may be, and have to go."""
    if state.goal is None:
        return ()
    return tuple(
        engine
        for engine in state.engines
        if engine.managed and not engine.down and not may_be_up(state, engine)
    )
