"""The gateway: which servers take requests, whether requests may go on, and what is still open."""

from __future__ import annotations

from .choice import observed, order
from .events import (
    Action,
    ConnectGateway,
    CountStreams,
    CutStreams,
    HopelessSet,
    Log,
    RouteSet,
    ServerSet,
    ServingSet,
    SetHopeless,
    SetRoute,
    SetServer,
    SetServing,
)
from .health import takes
from .orders import stopping
from .records import Leaving
from .state import Engine, State, decide, find, update
from .switching import CUT_LIMIT

GATEWAY_INTERVAL = 0.25
"""Seconds between attempts to reach the gateway."""

ASSERT_INTERVAL = 10.0
"""Seconds after which a server's state is set again, should anybody else have changed it."""

RESEND = 1.0
"""Seconds for the gateway's answer."""

COUNT_INTERVAL = 0.25
"""Seconds between counts of what is open while a stop, and so requests, wait for it."""

PATIENT_COUNT_INTERVAL = 2.0

SETTLE = 0.25
"""Seconds after which a request that was let through has reached its engine's server, and is counted."""

OLD_WORKER = 10.0
"""Seconds after the loss of a gateway for which a reloaded one's requests may go on without being counted."""


def up(state: State, now: float, actions: list[Action]) -> State:
    """The gateway answers."""
    if not state.gateway:
        actions.append(Log("connected to the gateway"))
    regained = now if state.lost else state.regained_at
    return _forget(state._replace(gateway=True, lost=False, regained_at=regained))


def down(state: State, now: float, actions: list[Action]) -> State:
    """The gateway is gone."""
    if state.gateway:
        actions.append(Log("the gateway is gone"))
    return _forget(state._replace(gateway=False, lost=state.lost or state.gateway))


def _forget(state: State) -> State:
    engines = tuple(
        engine._replace(server_ready=None, server_asked=None, route_ready=None, route_asked=None)
        for engine in state.engines
    )
    leaving = tuple(
        entry._replace(streams=None, asked_at=None, cut_at=None) if not entry.over else entry
        for entry in state.leaving
    )
    return state._replace(
        engines=engines,
        leaving=leaving,
        serving_ready=None,
        serving_asked=None,
        hopeless_ready=None,
        hopeless_asked=None,
    )


def confirmed(state: State, event: ServerSet | RouteSet | ServingSet | HopelessSet) -> State:
    """The gateway has done as asked; an answer to what was asked before something else is out of date."""
    if isinstance(event, ServingSet):
        return state._replace(serving_ready=event.on) if state.serving_asked is event.on else state
    if isinstance(event, HopelessSet):
        return state._replace(hopeless_ready=event.on) if state.hopeless_asked is event.on else state
    engine = find(state, event.engine)
    if engine is None:
        return state
    if isinstance(event, ServerSet) and engine.server_asked is event.ready:
        return update(state, engine.name, server_ready=event.ready)
    if isinstance(event, RouteSet) and engine.route_asked is event.ready:
        return update(state, engine.name, route_ready=event.ready)
    return state


def counted(state: State, name: str, number: int) -> State:
    """So many requests are still open on an engine."""
    leaving = tuple(e._replace(streams=number) if e.engine == name else e for e in state.leaving)
    return state._replace(leaving=leaving)


def due(state: State) -> list[float]:
    """When something here is due by time alone."""
    if not state.gateway:
        times = [state.gateway_at]
        times += [min(entry.deadline, entry.since + OLD_WORKER) for entry in state.leaving]
        return times
    flags = (state.serving_set_at, state.hopeless_set_at)
    times = [at + seconds for at in flags for seconds in (RESEND, ASSERT_INTERVAL)]
    for engine in state.engines:
        times += [engine.server_set_at + RESEND, engine.server_set_at + ASSERT_INTERVAL]
        if engine.routed:
            times += [engine.route_set_at + RESEND, engine.route_set_at + ASSERT_INTERVAL]
    for entry in state.leaving:
        times += [entry.deadline, entry.since + SETTLE]
        if entry.asked_at is not None:
            times += [entry.asked_at + COUNT_INTERVAL, entry.asked_at + PATIENT_COUNT_INTERVAL]
        if entry.cut_at is not None:
            times.append(entry.cut_at + CUT_LIMIT)
    return times


def best(state: State) -> str | None:
    """The engine that requests should go to now: the goal if it can take them, or what stands in for it."""
    source = state.switch.source if state.switch is not None and state.switch.back is not None else ""
    for name in (state.goal, *((state.active,) if state.active == source else ()), *order(state), source):
        engine = find(state, name)
        if engine is not None and takes(state, engine):
            return engine.name
    return None


def follow(state: State, now: float, actions: list[Action]) -> State:
    """Move requests to where they should go."""
    if not state.gateway:
        if state.gateway_at <= now:
            actions.append(ConnectGateway())
            state = state._replace(gateway_at=now + GATEWAY_INTERVAL)
        return _leave(state, now, actions)
    serving = best(state)
    if state.goal is None or (serving is None and not observed(state, now)):
        return state  # a selector before this one has set the gateway; it stays until more is known
    state = _take_over(state, serving, now, actions)
    state = _set_serving(state, now, actions, only=False)
    state = _set_hopeless(state, now, actions)
    for engine in state.engines:
        state = _set_server(state, engine, serving, now, actions)
    state = _leave(state, now, actions)
    return _set_serving(state, now, actions, only=True)


def _take_over(state: State, serving: str | None, now: float, actions: list[Action]) -> State:
    """The engine whose server the gateway has made ready gets the requests from here on."""
    engine = find(state, serving)
    if engine is None or engine.name == state.active or engine.server_ready is not True:
        return state
    old = find(state, state.active)
    actions.append(Log(f"serving through {engine.name}"))
    leaving = tuple(entry for entry in state.leaving if entry.engine != engine.name)
    if old is not None and not any(entry.engine == old.name for entry in leaving):
        leaving = (*leaving, Leaving(old.name, now, now + state.drain))
    state = state._replace(active=engine.name, leaving=leaving)
    return decide(state, now, f"{engine.name} serves", engine.reason)


def _set_server(
    state: State, engine: Engine, serving: str | None, now: float, actions: list[Action]
) -> State:
    """Set the engine's servers.

    The server of an engine that just died stays as it is until another one takes over: what was refused
    there is tried again by the gateway, and finds the other one. Not where no other one can take over.
    """
    wanted: bool | None = engine.name == serving
    if engine.name == state.active and engine.name != serving:
        wanted = False if state.hopeless else None
    elif engine.name != serving and serving is not None and serving != state.active:
        wanted = engine.server_asked  # the new server takes requests before the old ones stop
    if not engine.selectable:
        wanted = None
    if wanted is not None and _due(
        engine.server_ready, engine.server_asked, engine.server_set_at, wanted, now
    ):
        actions.append(SetServer(engine.name, wanted))
        state = update(state, engine.name, server_asked=wanted, server_set_at=now)
    route = takes(state, engine) and not state.drained
    if engine.routed and _due(engine.route_ready, engine.route_asked, engine.route_set_at, route, now):
        actions.append(SetRoute(engine.name, route))
        state = update(state, engine.name, route_asked=route, route_set_at=now)
    return state


def _due(ready: bool | None, asked: bool | None, at: float, wanted: bool, now: float) -> bool:
    if ready is wanted:
        return now - at >= ASSERT_INTERVAL
    return asked is not wanted or now - at >= RESEND


def may_serve(state: State) -> bool:
    """Whether requests may go on: the active engine's server is ready, and the engine takes them."""
    active = find(state, state.active)
    if state.drained or active is None or not takes(state, active) or active.server_ready is not True:
        return False
    source = state.switch.source if state.switch is not None else ""
    return active.name in (state.goal, source, *order(state))


def _alone(state: State) -> bool:
    """Whether no other server than the active engine's takes requests, or is about to."""
    return all(
        engine.server_ready is False and engine.server_asked is False
        for engine in state.engines
        if engine.selectable and engine.name != state.active
    )


def _set_serving(state: State, now: float, actions: list[Action], only: bool) -> State:
    """Set the flag, when it is to be set to `only`: down before all else, up after all else."""
    wanted = may_serve(state)
    if wanted is not only or (wanted and not _alone(state)):
        return state
    if not wanted and state.serving_asked is None and not state.drained and best(state) is not None:
        return state  # it is not known whether requests go on; they may in a moment, so they need not wait
    if not _due(state.serving_ready, state.serving_asked, state.serving_set_at, wanted, now):
        return state
    actions.append(SetServing(wanted))
    return state._replace(serving_asked=wanted, serving_set_at=now)


def _set_hopeless(state: State, now: float, actions: list[Action]) -> State:
    """Set the flag that refuses requests at once; it is of no account while they may go on."""
    wanted = bool(state.hopeless)
    if not _due(state.hopeless_ready, state.hopeless_asked, state.hopeless_set_at, wanted, now):
        return state
    actions.append(SetHopeless(wanted))
    return state._replace(hopeless_asked=wanted, hopeless_set_at=now)


def _leave(state: State, now: float, actions: list[Action]) -> State:
    """Wait for what is open on engines that get no new requests, and cut it in the end."""
    going = {engine.name for engine in stopping(state)}
    present = {entry.engine for entry in state.leaving}
    leaving = list(state.leaving)
    for engine in state.engines:
        if engine.name in going - present and _quiet(state, engine):
            leaving.append(Leaving(engine.name, now, now + state.drain))
    kept = []
    for entry in leaving:
        found = find(state, entry.engine)
        if found is None or (entry.engine not in going and (entry.over or found.down)):
            continue
        if entry.engine not in going and entry.engine == best(state):
            continue
        kept.append(entry if entry.over else _watch(state, entry, entry.engine in going, now, actions))
    return state._replace(leaving=tuple(entry for entry in kept if not entry.over or entry.engine in going))


def _quiet(state: State, engine: Engine) -> bool:
    """Whether the engine gets no new requests any more."""
    if not state.gateway:
        return True
    if engine.routed and engine.route_ready is not False:
        return False
    return engine.server_ready is False or state.serving_ready is False


def _watch(state: State, entry: Leaving, stop: bool, now: float, actions: list[Action]) -> Leaving:
    if not state.gateway:
        # Without a gateway nothing is open, unless it is only being reloaded.
        return entry._replace(over=now >= min(entry.deadline, entry.since + OLD_WORKER))
    if entry.streams == 0 and not (stop and _uncounted(state, entry, now)):
        return entry._replace(over=True)
    if entry.cut_at is not None:
        return entry._replace(over=now >= entry.cut_at + CUT_LIMIT)
    if now >= entry.deadline:
        actions.append(Log(f"what is still open on {entry.engine} is cut"))
        actions.append(CutStreams(entry.engine, stop))
        return entry._replace(cut_at=now)
    interval = COUNT_INTERVAL if stop else PATIENT_COUNT_INTERVAL
    if now >= entry.since + SETTLE and (entry.asked_at is None or now >= entry.asked_at + interval):
        actions.append(CountStreams(entry.engine, stop))
        return entry._replace(asked_at=now)
    return entry


def _uncounted(state: State, entry: Leaving, now: float) -> bool:
    """Whether requests may be open that the present gateway knows nothing of."""
    return state.regained_at is not None and now < state.regained_at + OLD_WORKER and now < entry.deadline
