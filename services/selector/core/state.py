"""All that the selector knows, as a value, and how it begins."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..config import AUTO, Config, EngineConfig
from .events import Saved, Unit
from .records import Choice, Decision, Ended, Leaving, Switch

CONFIGURED = ("managed", "selectable", "routed", "binds", "start_timeout", "stop_timeout")
"""The fields of an Engine that come from its configuration."""

MOST_DECISIONS = 50
"""Decisions that are kept; the oldest go first."""


class Engine(NamedTuple):
    """An engine as last seen. Times are those of `now`; None stands for "not known" or "none".

    From its configuration: `managed` (a service that can be started and stopped), `selectable` (else only
    routes lead to it), `routed` (it has a server for routes), `binds` (it cannot be started without its
    models), `start_timeout`, `stop_timeout`.

    Health: `healthy` with `reason`, changed at `since`; `probed` once at least; `verdict` of the last probe;
    `slow` probes in a row that ran out of time; `losses`, when it lost its health lately; `misfit`, why the
    hardware is not enough ("": it is). `missing` is why its models are not there ("": they are), `soon` that
    they may be within `wait`.

    Service: `unit` is how it is believed to be (of `Unit`), `seen` what was last told of it. `order` is out
    ("": none) since `ordered_at`; none is given before `order_at`; `trouble` is why one was not carried out.
    `down`: our own order to stop was carried out, at `down_at`, and nothing was seen of it since. `held`: it
    was stopped by hand, at `held_at`, so that it is started by hand, or by a command, not by the selector. A
    start is an attempt that ends at `deadline` (None: none is under way), with a Start `ordered` or not and
    `failures` of the service, or of orders, in it; after `attempts` in vain the next begins at `retry_at`.
    `lasting`: it has failed, and says that it will again until somebody mends something.

    Gateway: `server_ready` and `route_ready` as confirmed, `server_asked` and `route_asked` as last asked
    for, at `server_set_at` and `route_set_at`.
    """

    name: str
    managed: bool
    selectable: bool
    routed: bool
    binds: bool
    start_timeout: float
    stop_timeout: float
    healthy: bool = False
    reason: str = "not probed yet"
    since: float = 0.0
    probed: bool = False
    verdict: str = ""
    slow: int = 0
    probing: bool = False
    probe_at: float = 0.0
    probe_sent_at: float = 0.0
    losses: tuple[float, ...] = ()
    misfit: str = ""
    missing: str = ""
    soon: bool = False
    lasting: bool = False
    unit: str = Unit.UNKNOWN
    seen: tuple[str, str] = (Unit.UNKNOWN, "")
    order: str = ""
    ordered_at: float = 0.0
    order_at: float = 0.0
    trouble: str = ""
    down: bool = False
    held: bool = False
    held_at: float = 0.0
    down_at: float = 0.0
    deadline: float | None = None
    ordered: bool = False
    failures: int = 0
    attempts: int = 0
    retry_at: float = 0.0
    server_ready: bool | None = None
    server_asked: bool | None = None
    server_set_at: float = 0.0
    route_ready: bool | None = None
    route_asked: bool | None = None
    route_set_at: float = 0.0

    @property
    def told(self) -> str:
        """The words in which the launcher, or the service manager, last told of it."""
        return self.seen[1]

    @property
    def bare(self) -> bool:
        """Whether it cannot serve, as a model has not arrived."""
        return bool(self.missing) and not self.healthy

    @property
    def blocked(self) -> bool:
        """Whether it cannot be started either: it would open that model."""
        return self.binds and self.bare


class State(NamedTuple):
    """All that the selector knows. `engines` are in order of preference.

    `configured` is the policy and order of the configuration, `choice` what is in force. `goal` is the
    engine that is to serve, `active` the one whose server takes requests (or did last); they differ while a
    switch goes on. `resident` is, where only one managed engine may be up, the one that may.
    `serving_ready` is the flag that lets requests go on, as confirmed; `serving_asked` as last asked for, at
    `serving_set_at`; `hopeless_ready`, `hopeless_asked` and `hopeless_set_at` are those of the flag that
    refuses requests at once, since `hopeless` ("": they may wait, for `wait` seconds); `hopeless_told` was
    last told of. `regained_at` is when a lost gateway was there again: requests of the one before may go
    on, uncounted. `refused`: the configured policy was tried in vain, and the one before is in force.
    `saved` is what was last handed out to be kept. A Tick is next of use at `due`.
    """

    configured: tuple[str, ...]
    choice: Choice
    exclusive: bool
    drain: float
    wait: float
    engines: tuple[Engine, ...]
    born: float
    due: float
    goal: str | None = None
    active: str | None = None
    resident: str | None = None
    switch: Switch | None = None
    ended: Ended | None = None
    leaving: tuple[Leaving, ...] = ()
    drained: bool = False
    gateway: bool = False
    gateway_at: float = 0.0
    lost: bool = False
    regained_at: float | None = None
    refused: bool = False
    serving_ready: bool | None = None
    serving_asked: bool | None = None
    serving_set_at: float = 0.0
    hopeless: str = ""
    hopeless_told: str = ""
    hopeless_ready: bool | None = None
    hopeless_asked: bool | None = None
    hopeless_set_at: float = 0.0
    saved: Saved | None = None
    decisions: tuple[Decision, ...] = ()

    @property
    def policy(self) -> str:
        """The policy in force."""
        return self.choice.policy

    @property
    def desired(self) -> str | None:
        """The engine that was commanded."""
        return self.choice.desired or None

    @property
    def preference(self) -> tuple[str, ...]:
        """The engines that may be chosen, in order of preference."""
        return tuple(engine.name for engine in self.engines if engine.selectable)


def configured(config: Config) -> tuple[str, ...]:
    """The policy and the order of preference, to be compared with those of another configuration."""
    return (config.policy, *(engine.name for engine in config.engines if engine.selectable))


def fresh(config: EngineConfig, now: float) -> Engine:
    """An engine of which nothing is known but its configuration; everything is due."""
    return Engine(
        name=config.name,
        managed=config.managed,
        selectable=config.selectable,
        routed=bool(config.route_server),
        binds=config.binds and bool(config.awaits),
        start_timeout=config.start_timeout,
        stop_timeout=config.stop_timeout,
        since=now,
        probe_at=now,
        retry_at=now,
    )


def from_saved(config: Config, now: float, saved: Saved | None = None) -> State:
    """Nothing is known but what was kept of an earlier run; everything is due.

    What was commanded under another configuration is out of date; what ran may still run.
    """
    names = [engine.name for engine in config.engines]
    state = State(
        configured=configured(config),
        choice=Choice(config.policy),
        exclusive=config.exclusive,
        drain=config.drain,
        wait=config.wait,
        engines=tuple(fresh(engine, now) for engine in config.engines),
        born=now,
        due=now,
        gateway_at=now,
    )
    if saved is None:
        return state._replace(saved=to_save(state))
    choice = state.choice
    if saved.configured == state.configured:
        policy = saved.policy if saved.policy in (AUTO, *names) else config.policy
        choice = Choice(policy, saved.desired if saved.desired in names else "")
    return state._replace(
        choice=choice,
        active=saved.active if saved.active in names else None,
        resident=saved.resident if saved.resident in names else None,
        drained=saved.drained,
        saved=saved,
    )


def to_save(state: State) -> Saved:
    """What has to be kept of the state.

    A configured policy that was tried in vain is kept as a switch that has not ended: the next selector
    tries it once more.
    """
    policy = state.choice.policy if state.choice.policy != state.configured[0] else ""
    desired = state.choice.desired
    before = state.switch.back if state.switch is not None else None
    if state.refused:
        policy, desired, before = "", "", state.choice
    return Saved(
        configured=state.configured,
        policy=policy,
        desired=desired,
        back=(before.policy, before.desired) if before is not None else None,
        active=state.active or "",
        resident=state.resident or "",
        drained=state.drained,
    )


def find(state: State, name: str | None) -> Engine | None:
    """The engine of this name, if there is one."""
    for engine in state.engines:
        if engine.name == name:
            return engine
    return None


def put(state: State, engine: Engine) -> State:
    """The state with another value of one engine."""
    return state._replace(engines=tuple(engine if e.name == engine.name else e for e in state.engines))


def update(state: State, name: str, **changes: Any) -> State:
    """The state with some fields of one engine changed."""
    return state._replace(
        engines=tuple(
            engine._replace(**changes) if engine.name == name else engine for engine in state.engines
        )
    )


def decide(state: State, now: float, what: str, why: str) -> State:
    """The state with one more decision, and its reason."""
    return state._replace(decisions=(*state.decisions, Decision(now, what, why))[-MOST_DECISIONS:])
