"""What the selector tells of its decisions: which engine, and why."""

from __future__ import annotations

from ..config import AUTO
from .choice import order
from .damping import hold
from .events import Unit, Verb
from .health import takes, usable
from .orders import others_down, waits
from .state import Engine, State, find


def target(state: State) -> str:
    """The engine that serves or, while none does, the one that is waited for."""
    active = find(state, state.active)
    if active is not None and takes(state, active):
        return active.name
    return state.goal or order(state)[0]


def serving(state: State) -> bool:
    """Whether a request sent to the gateway now reaches a healthy engine, as far as is known."""
    active = find(state, state.active)
    return (
        active is not None
        and active.server_ready is True
        and state.serving_ready is True
        and takes(state, active)
    )


def explain(state: State, now: float) -> tuple[tuple[str, str], ...]:
    """Every engine, those first that may serve, and in a sentence why it serves or does not."""
    names = order(state)
    rest = (engine.name for engine in state.engines if engine.name not in names)
    return tuple(
        (name, _why(state, engine, now)) for name in (*names, *rest) if (engine := find(state, name))
    )


def _why(state: State, engine: Engine, now: float) -> str:
    names = order(state)
    if engine.name == state.active and takes(state, engine):
        return _serves(state, engine)
    if not engine.selectable:
        return "healthy: routes lead to it" if engine.healthy else f"not healthy: {engine.reason}"
    if engine.name not in names:
        if (engine.misfit or engine.missing) and state.policy == AUTO:
            return f"not chosen: {engine.misfit or engine.missing}"
        return f"not chosen: the policy is {state.policy}"
    if state.switch is not None and state.switch.target == engine.name:
        return f"switching to it ({state.switch.stage}): {engine.reason}"
    if usable(engine):
        return _stands_by(state, engine, now)
    if engine.bare:
        return f"waits: {engine.missing}"
    if state.exclusive and engine.managed and engine.name != state.resident:
        return _kept_down(state, engine)
    return _starts(state, engine, now)


def _serves(state: State, engine: Engine) -> str:
    if state.drained:
        return "would serve, but an operator lets no requests on (drain)"
    if not state.gateway:
        return "would serve, but the gateway is not there"
    if engine.name == state.desired:
        return "serves: an operator switched to it"
    if state.policy == engine.name:
        return "serves: it is the policy"
    if state.goal != engine.name:
        return f"serves until {state.goal} can"
    first = engine.name == order(state)[0]
    return "serves: it is the first in order" if first else "serves: those before it cannot, or not yet"


def _stands_by(state: State, engine: Engine, now: float) -> str:
    names = order(state)
    if state.goal in names and names.index(engine.name) < names.index(state.goal):
        left = engine.since + hold(engine.losses, now) - now
        return (
            f"healthy, and preferred to {state.goal}: serves when it stays so for {max(0.0, left):.0f} s more"
        )
    return "healthy: stands by"


def _kept_down(state: State, engine: Engine) -> str:
    why = f"only one engine may be up, and that is {state.resident}"
    return f"stopped: {why} (`switch {engine.name}` changes it)" if engine.down else f"is to stop: {why}"


def _starts(state: State, engine: Engine, now: float) -> str:
    if engine.held:
        return f"stopped by hand: started again by hand, or by `switch {engine.name}`"
    if waits(engine, now):
        return (
            f"did not start, {engine.attempts} times: {engine.reason}; "
            f"tried again in {engine.retry_at - now:.0f} s"
        )
    if engine.order == Verb.STOP:
        return f"is being stopped: {engine.reason}"
    if not others_down(state, engine):
        return "waits until the other engines are stopped"
    if engine.managed and engine.unit in (Unit.STARTING, Unit.UNKNOWN) and engine.deadline is not None:
        return f"is starting, for {engine.deadline - now:.0f} s at most: {engine.reason}"
    return f"not healthy: {engine.reason}"
