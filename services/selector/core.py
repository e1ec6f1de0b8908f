"""What the selector decides: a pure function `(state, event, now) → (state, actions)`.

`now` is in seconds of a monotonic clock. Nothing here reads a clock, a file or a socket; the daemon
performs the actions and brings their results back as events.

An engine is healthy when its health path answered as it should *and* its model was listed in the same
probe. One server of the gateway, that of the active engine, is ready; the others are in maintenance.
"""

from __future__ import annotations

from typing import NamedTuple

from .config import AUTO, Config

STARTING_INTERVAL = 0.25
"""Seconds between probes of an engine that is not healthy: what a user waits at most beyond its start."""

PATIENT_INTERVAL = 1.0
"""Seconds between them once it has been unhealthy for `PATIENCE`."""

PATIENCE = 60.0
HEALTHY_INTERVAL = 2.0
SLOW_LIMIT = 3
"""Probes that may run out of time in a row: a long prompt can keep every CPU busy."""

GATEWAY_INTERVAL = 0.25
"""Seconds between attempts to reach the gateway."""

ASSERT_INTERVAL = 10.0
"""Seconds after which a server's state is set again, should anybody else have changed it."""


class Verdict:
    """What a probe found. REFUSED and WRONG count at once, SLOW after `SLOW_LIMIT`."""

    GOOD = "good"
    REFUSED = "refused"
    WRONG = "wrong"
    SLOW = "slow"


class Tick(NamedTuple):
    """Time has passed."""


class Probed(NamedTuple):
    """A probe of `engine` ended; `reason` is for people, without any content of requests."""

    engine: str
    verdict: str
    reason: str


class GatewayUp(NamedTuple):
    """The runtime API answers; a gateway that has just started has every server in maintenance."""


class GatewayDown(NamedTuple):
    """The runtime API cannot be reached, or its connection ended."""


class ServerSet(NamedTuple):
    """The gateway carried out a SetServer."""

    engine: str
    ready: bool


class Probe(NamedTuple):
    """Ask `engine` for its health and its models."""

    engine: str


class ConnectGateway(NamedTuple):
    """Try to reach the runtime API."""


class SetServer(NamedTuple):
    """Make the engine's server in the gateway take requests, or put it into maintenance."""

    engine: str
    ready: bool


class Log(NamedTuple):
    """A line worth keeping: the state has changed."""

    text: str


Event = Tick | Probed | GatewayUp | GatewayDown | ServerSet
Action = Probe | ConnectGateway | SetServer | Log


class Engine(NamedTuple):
    """An engine as last seen.

    `since` is when `healthy` last changed; `slow` counts probes in a row that ran out of time;
    `server_ready` is what the gateway was last told (None: unknown), at `server_set_at`.
    """

    name: str
    healthy: bool
    reason: str
    since: float
    slow: int
    probing: bool
    probe_at: float
    server_ready: bool | None
    server_set_at: float


class State(NamedTuple):
    """All that the selector knows. `engines` are in order of preference."""

    policy: str
    engines: tuple[Engine, ...]
    active: str | None
    gateway: bool
    gateway_at: float


def initial(config: Config, now: float) -> State:
    """Nothing is known, everything is due."""
    engines = tuple(
        Engine(engine.name, False, "not probed yet", now, 0, False, now, None, now)
        for engine in config.engines
    )
    return State(config.policy, engines, None, False, now)


def step(state: State, event: Event, now: float) -> tuple[State, list[Action]]:
    """Take in one event and say what to do."""
    actions: list[Action] = []
    if isinstance(event, Probed):
        state = _probed(state, event, now, actions)
    elif isinstance(event, ServerSet):
        state = _update(state, event.engine, server_ready=event.ready, server_set_at=now)
    elif isinstance(event, GatewayUp):
        if not state.gateway:
            actions.append(Log("connected to the gateway"))
        state = _forget_servers(state._replace(gateway=True))
    elif isinstance(event, GatewayDown):
        if state.gateway:
            actions.append(Log("the gateway is gone"))
        state = _forget_servers(state._replace(gateway=False))
    state = _choose(state, actions)
    state = _due(state, now, actions)
    return state, actions


def next_due(state: State) -> float:
    """The time at which a Tick is next of use."""
    times = [engine.probe_at for engine in state.engines if not engine.probing]
    if state.gateway:
        times += [engine.server_set_at + ASSERT_INTERVAL for engine in state.engines]
    else:
        times.append(state.gateway_at)
    return min(times, default=0.0)


def target(state: State) -> str:
    """The engine that serves or, while none does, the one that is waited for."""
    if state.active is not None:
        return state.active
    return state.engines[0].name if state.policy == AUTO else state.policy


def serving(state: State) -> bool:
    """Whether a request sent to the gateway now reaches a healthy engine, as far as is known."""
    return any(engine.name == state.active and engine.server_ready is True for engine in state.engines)


def _update(state: State, name: str, **changes: object) -> State:
    engines = tuple(
        engine._replace(**changes) if engine.name == name else engine  # type: ignore[arg-type]
        for engine in state.engines
    )
    return state._replace(engines=engines)


def _probed(state: State, event: Probed, now: float, actions: list[Action]) -> State:
    engine = next((engine for engine in state.engines if engine.name == event.engine), None)
    if engine is None:
        return state
    slow = engine.slow + 1 if event.verdict == Verdict.SLOW else 0
    healthy = event.verdict == Verdict.GOOD or (
        event.verdict == Verdict.SLOW and engine.healthy and slow < SLOW_LIMIT
    )
    since = engine.since if healthy == engine.healthy else now
    if healthy:
        interval = HEALTHY_INTERVAL
    else:
        interval = STARTING_INTERVAL if now - since < PATIENCE else PATIENT_INTERVAL
    if healthy != engine.healthy or (not healthy and event.reason != engine.reason):
        actions.append(
            Log(f"engine {engine.name} is {'healthy' if healthy else 'not healthy'}: {event.reason}")
        )
    return _update(
        state,
        engine.name,
        healthy=healthy,
        reason=event.reason,
        since=since,
        slow=slow,
        probing=False,
        probe_at=now + interval,
    )


def _forget_servers(state: State) -> State:
    return state._replace(engines=tuple(engine._replace(server_ready=None) for engine in state.engines))


def _choose(state: State, actions: list[Action]) -> State:
    """The active engine: the one in place while it is healthy, else the first healthy one allowed."""
    allowed = [
        engine.name
        for engine in state.engines
        if engine.healthy and (state.policy == AUTO or engine.name == state.policy)
    ]
    active = state.active if state.active in allowed else (allowed[0] if allowed else None)
    if active != state.active:
        actions.append(Log(f"serving through {active}" if active else "no engine can serve"))
    return state._replace(active=active)


def _due(state: State, now: float, actions: list[Action]) -> State:
    if not state.gateway and state.gateway_at <= now:
        actions.append(ConnectGateway())
        state = state._replace(gateway_at=now + GATEWAY_INTERVAL)
    engines = []
    to_ready: list[Action] = []
    to_maintenance: list[Action] = []
    for engine in state.engines:
        if not engine.probing and engine.probe_at <= now:
            actions.append(Probe(engine.name))
            engine = engine._replace(probing=True)
        wanted = engine.name == state.active
        stale = engine.server_set_at + ASSERT_INTERVAL <= now
        if state.gateway and (engine.server_ready is not wanted or stale):
            (to_ready if wanted else to_maintenance).append(SetServer(engine.name, wanted))
            engine = engine._replace(server_set_at=now)
        engines.append(engine)
    actions += to_ready + to_maintenance  # the new server takes requests before the old one stops
    return state._replace(engines=tuple(engines))
