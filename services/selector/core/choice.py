"""Which engine is to serve: the goal."""

from __future__ import annotations

from ..config import AUTO
from .damping import hold
from .events import Action, Log, Unit
from .health import usable
from .orders import waits
from .state import Engine, State, decide, find

OBSERVE = 6.0
"""Seconds after the selector's start until which it looks at what runs before it decides; a probe takes 5."""

SEEN_LIMIT = 1.0
"""Seconds that it waits for services to be seen when every engine was probed."""


def order(state: State) -> tuple[str, ...]:
    """The engines that may serve, best first: the commanded one, then what the policy allows.

    An engine for which the hardware is not enough comes into question only when that is so for all of them,
    and so does one whose model has not arrived. One that is healthy shows that nothing is missing.
    """
    if state.policy == AUTO:
        engines = [engine for engine in state.engines if engine.selectable]
        fit = [e for e in engines if not e.misfit or e.healthy]
        here = [e for e in fit if not e.bare]
        return _commanded_first(state, here or fit or engines)
    return allowed(state)


def allowed(state: State) -> tuple[str, ...]:
    """The engines that the command and the policy allow, best first, whatever they lack."""
    chosen = [e for e in state.engines if (e.selectable if state.policy == AUTO else e.name == state.policy)]
    return _commanded_first(state, chosen)


def kept_up(state: State) -> tuple[str, ...]:
    """The engines that are to run: also those that wait for a model while they do."""
    names = order(state)
    known = (engine for name in allowed(state) if (engine := find(state, name)) is not None)
    return (
        *names,
        *(e.name for e in known if e.bare and not e.binds and not e.misfit and e.name not in names),
    )


def _commanded_first(state: State, engines: list[Engine]) -> tuple[str, ...]:
    names = [engine.name for engine in engines or state.engines]
    if state.desired is not None:
        names = [state.desired, *(name for name in names if name != state.desired)]
    return tuple(names)


def observed(state: State, now: float) -> bool:
    """Whether enough was seen since the selector's start to decide what nobody asked for."""
    if now >= state.born + OBSERVE:
        return True
    engines = [engine for engine in state.engines if engine.selectable]
    if not all(engine.probed for engine in engines):
        return False
    return now >= state.born + SEEN_LIMIT or all(e.unit != Unit.UNKNOWN for e in engines if e.managed)


def choose(state: State, now: float, actions: list[Action]) -> State:
    """Set the goal. A commanded switch keeps its own until it has ended."""
    if state.switch is not None and state.switch.back is not None:
        return state
    names = order(state)
    name, why = _best(state, names, now)
    if name is None or name == state.goal:
        return state
    if state.goal is None and state.active is None:
        why = f"{why}; nothing served before" if why else "nothing served before"
    actions.append(Log(f"the engine to serve is {name}: {why}"))
    return decide(state._replace(goal=name), now, f"{name} is to serve", why)


def _best(state: State, names: tuple[str, ...], now: float) -> tuple[str | None, str]:
    engines = [engine for name in names if (engine := find(state, name)) is not None]
    goal = find(state, state.goal)
    if goal is None:
        return _first(state, engines, now)
    if goal in engines and usable(goal):
        return _preferred(state, engines, goal, now)
    for engine in engines:
        if usable(engine):
            return engine.name, f"it is healthy; {goal.name}: {_against(goal, engines)}"
    # Without `exclusive` all of them are kept up, and the first one that gets well serves.
    if state.exclusive and not (goal in engines and goal.managed and not waits(goal, now)):
        for engine in engines:
            if engine.managed and not waits(engine, now):
                return engine.name, f"it can be started; {goal.name}: {_against(goal, engines)}"
    if goal in engines:
        return goal.name, ""
    return engines[0].name, f"it is the first in order; {goal.name}: {_against(goal, engines)}"


def _first(state: State, engines: list[Engine], now: float) -> tuple[str | None, str]:
    """The first choice after the selector's start: what runs is taken over."""
    done = observed(state, now)
    served = find(state, state.active)
    if served is not None and served in engines:
        if usable(served):
            return served.name, "it served before the selector was started again"
        if not served.probed and not done:
            return None, ""
    for engine in engines:
        if usable(engine):
            return engine.name, "it is healthy"
        if not engine.probed and not done:
            return None, ""
    if not done:
        return None, ""
    resident = find(state, state.resident)
    if resident in engines and resident is not None and resident.unit in (Unit.STARTING, Unit.READY):
        return resident.name, "it was being started before the selector was started again"
    return engines[0].name, "it is the first in order"


def _preferred(state: State, engines: list[Engine], goal: Engine, now: float) -> tuple[str, str]:
    """The goal, which is usable, or one that is preferred to it and has been healthy for long enough."""
    for engine in engines[: engines.index(goal)]:
        needed = hold(engine.losses, now)
        if usable(engine) and now - engine.since >= needed:
            return engine.name, f"it is preferred to {goal.name}, and has been healthy for {needed:g} s"
    return goal.name, ""


def _against(goal: Engine, engines: list[Engine]) -> str:
    if goal in engines:
        return goal.reason
    return goal.missing or goal.misfit or "the policy leaves it out"
