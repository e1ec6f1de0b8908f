"""What probes say: an engine is healthy when its health path answered *and* its model was listed."""

from __future__ import annotations

from .damping import FAILBACK, lately
from .events import Action, Log, Probe, Probed, Verb, Verdict
from .state import Engine, State, find, put, update

STARTING_INTERVAL = 0.25
"""Seconds between probes of an engine that is not healthy: what a user waits at most beyond its start."""

PATIENT_INTERVAL = 1.0
"""Seconds between them once it has been unhealthy for `PATIENCE`."""

PATIENCE = 60.0
HEALTHY_INTERVAL = 2.0
SLOW_LIMIT = 3
"""Probes that may run out of time in a row: a long prompt can keep every CPU busy."""


def usable(engine: Engine) -> bool:
    """Whether the engine can take requests, as far as is known."""
    return engine.healthy and not engine.down and engine.order != Verb.STOP


def takes(state: State, engine: Engine) -> bool:
    """Whether the engine may be given requests: it can take them and is not about to be stopped."""
    return usable(engine) and (not state.exclusive or not engine.managed or engine.name == state.resident)


def probed(state: State, event: Probed, now: float, actions: list[Action]) -> State:
    """Take in the result of a probe."""
    engine = find(state, event.engine)
    if engine is None:
        return state
    if engine.down and engine.probe_sent_at <= engine.down_at:  # asked before it was stopped
        return update(state, engine.name, probing=False, probe_at=now + STARTING_INTERVAL)
    slow = engine.slow + 1 if event.verdict == Verdict.SLOW else 0
    healthy = event.verdict == Verdict.GOOD or (
        event.verdict == Verdict.SLOW and engine.healthy and slow < SLOW_LIMIT
    )
    if healthy != engine.healthy or (not healthy and event.reason != engine.reason and not engine.down):
        word = "healthy" if healthy else "not healthy"
        actions.append(Log(f"engine {engine.name} is {word}: {event.reason}"))
    since = engine.since if healthy == engine.healthy else now
    engine = engine._replace(
        reason=event.reason, probed=True, verdict=event.verdict, slow=slow, probing=False
    )
    if not engine.managed:
        engine = engine._replace(lasting=event.lasting)
    if healthy and not engine.healthy:
        # Somebody started it again if it was down.
        engine = engine._replace(healthy=True, since=now, deadline=None, failures=0, down=False, held=False)
    elif engine.healthy and not healthy:
        engine = lost(engine, now)
    if healthy or engine.down:
        interval = HEALTHY_INTERVAL
    else:
        interval = STARTING_INTERVAL if now - since < PATIENCE else PATIENT_INTERVAL
    return put(state, engine._replace(probe_at=now + interval))


def lost(engine: Engine, now: float) -> Engine:
    """The engine that was healthy until now. Starts in vain before a time of good health are forgotten."""
    attempts = 0 if now - engine.since >= FAILBACK else engine.attempts
    losses = (*lately(engine.losses, now), now)
    return engine._replace(healthy=False, since=now, losses=losses, attempts=attempts)


def ask(state: State, now: float, actions: list[Action]) -> State:
    """Send the probes that are due."""
    for engine in state.engines:
        if not engine.probing and engine.probe_at <= now:
            actions.append(Probe(engine.name))
            state = update(state, engine.name, probing=True, probe_sent_at=now)
    return state
