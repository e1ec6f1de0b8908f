"""One step of the core: take in an event, compare what is wanted with what was seen, say what to do."""

from __future__ import annotations

from ..config import Config
from . import choice, health, hope, orders, switching, traffic
from .damping import hold
from .events import (
    Action,
    Commanded,
    Cut,
    Event,
    Fits,
    GatewayDown,
    GatewayUp,
    HopelessSet,
    ModelSeen,
    OrderDone,
    OrderFailed,
    Probed,
    Reconfigured,
    RouteSet,
    Save,
    Saved,
    ServerSet,
    ServingSet,
    Streams,
    UnitSeen,
)
from .health import HEALTHY_INTERVAL
from .state import State, from_saved, to_save, update


def initial(config: Config, now: float, saved: Saved | None = None) -> State:
    """Nothing is known but what was kept of an earlier run; a switch that had not ended goes on."""
    return switching.resume(from_saved(config, now, saved), now)


def step(state: State, event: Event, now: float) -> tuple[State, list[Action]]:
    """Take in one event and say what to do, in this order."""
    actions: list[Action] = []
    state = _take(state, event, now, actions)
    state = orders.expire(state, now, actions)
    state = switching.follow(state, now, actions)
    goal = state.goal
    state = choice.choose(state, now, actions)
    state = switching.record(state, goal, now, actions)
    state = orders.elect(state, choice.order(state), now)
    state = hope.judge(state, now, actions)
    state = traffic.follow(state, now, actions)
    state = orders.order(state, choice.kept_up(state), now, actions)
    state = health.ask(state, now, actions)
    saved = to_save(state)
    if saved != state.saved:
        state = state._replace(saved=saved)
        actions.insert(0, Save(saved))
    return state._replace(due=_due(state, now)), actions


def next_due(state: State) -> float:
    """The time at which a Tick is next of use."""
    return state.due


def _take(state: State, event: Event, now: float, actions: list[Action]) -> State:
    if isinstance(event, Probed):
        return health.probed(state, event, now, actions)
    if isinstance(event, ServerSet | RouteSet | ServingSet | HopelessSet):
        return traffic.confirmed(state, event)
    if isinstance(event, GatewayUp):
        return traffic.up(state, now, actions)
    if isinstance(event, GatewayDown):
        return traffic.down(state, now, actions)
    if isinstance(event, Streams):
        return traffic.counted(state, event.engine, event.number)
    if isinstance(event, Cut):
        return traffic.counted(state, event.engine, 0)
    if isinstance(event, UnitSeen):
        return orders.seen(state, event, now)
    if isinstance(event, OrderDone):
        return orders.done(state, event, now)
    if isinstance(event, OrderFailed):
        return orders.failed(state, event, now, actions)
    if isinstance(event, Commanded):
        return switching.command(state, event, now, actions)
    if isinstance(event, Reconfigured):
        return switching.reconfigured(state, event.config, now, actions)
    if isinstance(event, Fits):
        return update(state, event.engine, misfit=event.reason)
    if isinstance(event, ModelSeen):
        return orders.model(state, event, now, actions)
    return state


def _due(state: State, now: float) -> float:
    """When something runs out next; what is due already waits for something else than time."""
    times = [state.born + choice.OBSERVE, state.born + choice.SEEN_LIMIT, state.born + orders.ADOPT_GRACE]
    for engine in state.engines:
        if not engine.probing:
            times.append(engine.probe_at)
        if engine.order:
            times.append(engine.ordered_at + orders.limit(state))
        times += [engine.order_at, engine.retry_at, engine.retry_at - state.wait]
        if engine.held:
            times.append(engine.held_at + hope.RESTART)
        if engine.deadline is not None:
            times.append(engine.deadline)
        if engine.healthy and engine.name != state.goal:
            times.append(engine.since + hold(engine.losses, now))
    times += traffic.due(state)
    if state.switch is not None:
        times.append(state.switch.deadline)
    return min((at for at in times if at > now), default=now + HEALTHY_INTERVAL)
