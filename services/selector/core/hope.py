"""Whether a request that waits can still find an engine: else it is refused at once, and not after `wait`."""

from __future__ import annotations

from .choice import allowed, observed, order
from .events import Action, Log, Unit, Verb
from .state import Engine, State, decide, find
from .traffic import may_serve

RESTART = 2.0
"""Seconds after which a service that somebody has stopped was not stopped to be started again."""

RUNS = (Unit.STARTING, Unit.READY, Unit.UNKNOWN, Unit.FAILED)
"""A service that has failed is started again by its own supervisor."""


def judge(state: State, now: float, actions: list[Action]) -> State:
    """Say whether waiting is in vain, and why. The same reason is told of once until some engine serves."""
    reason = hopeless(state, now)
    if reason and reason != state.hopeless_told:
        actions.append(Log(f"requests are refused at once: {reason}"))
        state = decide(state._replace(hopeless_told=reason), now, "requests are refused at once", reason)
    if any(engine.healthy for engine in state.engines):
        state = state._replace(hopeless_told="")
    return state._replace(hopeless=reason)


def hopeless(state: State, now: float) -> str:
    """Why no engine can get ready within `wait`, by itself or by the selector; "" while one may."""
    if state.goal is None or not observed(state, now) or may_serve(state):
        return ""
    engines = [engine for name in _candidates(state) if (engine := find(state, name)) is not None]
    reasons = [_lack(state, engine, now) for engine in engines]
    if not all(reasons):
        return ""
    return "; ".join(f"{engine.name} {reason}" for engine, reason in zip(engines, reasons, strict=True))


def _candidates(state: State) -> tuple[str, ...]:
    """The engines that may come to serve, also those of before a command that may yet fail."""
    names = [*allowed(state)]
    if state.switch is not None:
        names += [state.switch.source, state.switch.target]
        if state.switch.back is not None:
            names += allowed(state._replace(choice=state.switch.back))
    return tuple(dict.fromkeys(names))


def _lack(state: State, engine: Engine, now: float) -> str:
    """Why the engine cannot get ready in time; "" when it may."""
    if engine.healthy:
        return ""
    if not engine.managed:
        return "does not take requests as it is set up" if engine.lasting else ""
    if engine.held and engine.unit == Unit.STOPPED:
        return "was stopped by hand" if now >= engine.held_at + RESTART else ""
    if engine.missing:
        return "" if engine.soon else "waits for a model"
    starts = engine.order == Verb.START
    if engine.misfit and not starts and (engine.unit == Unit.FAILED or engine.name not in order(state)):
        return "needs other hardware"
    if engine.lasting and engine.unit == Unit.FAILED and not starts:
        return "has failed and says that it has to be mended"
    runs = starts or (engine.unit in RUNS and not engine.down)
    if runs or engine.deadline is not None or engine.retry_at <= now + state.wait:
        return ""
    return "has failed again and again, and is tried again later"
