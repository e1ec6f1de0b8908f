"""What the selector says of itself to operators: values for `hal-selector status` and `explain`. Pure."""

from __future__ import annotations

from typing import NamedTuple

from . import core
from .config import Config
from .core.events import Unit, Verb
from .core.state import Engine, State
from .hardware import Hardware, words
from .models import Model


class Facts(NamedTuple):
    """What is known beside the state: open requests by engine (None: not known), hardware, settings' words.

    `source` is where the policy is from ("": the image), `refused` what was not taken of the environment
    files, `unkept` why commands are not kept over a restart ("": they are), `models` those that arrive while
    the machine runs, missing ones first.
    """

    streams: dict[str, int] | None
    hardware: Hardware
    source: str = ""
    refused: str = ""
    unkept: str = ""
    models: tuple[Model, ...] = ()


def status(state: State, config: Config, facts: Facts, now: float) -> dict[str, object]:
    """The state for people and programs; times are seconds until `now`."""
    return {
        "policy": state.policy,
        "policy_from": facts.source or "the image",
        "commanded": state.desired,
        "preference": list(state.preference),
        "exclusive": state.exclusive,
        "active": state.active,
        "serving": core.serving(state),
        "drained": state.drained,
        "gateway": state.gateway,
        "hopeless": state.hopeless,
        "switch": _switch(state, now),
        "last_switch": _last(state, now),
        "engines": [_engine(state, config, engine, facts, now) for engine in state.engines],
        "models": [model._asdict() for model in facts.models],
        "refused": facts.refused,
        "unkept": facts.unkept,
        "now": now,
    }


def explained(state: State, config: Config, facts: Facts, now: float) -> dict[str, object]:
    """Why this engine: what each lacks or has, and the last decisions with their reasons."""
    reasons = dict(core.explain(state, now))
    return {
        **status(state, config, facts, now),
        "hardware": words(facts.hardware),
        "why": {engine.name: reasons.get(engine.name, "") for engine in state.engines},
        "decisions": [{"ago": now - one.at, "what": one.what, "why": one.why} for one in state.decisions],
    }


def _switch(state: State, now: float) -> dict[str, object] | None:
    if state.switch is None:
        return None
    switch = state.switch
    return {
        "from": switch.source,
        "to": switch.target,
        "stage": switch.stage,
        "reason": switch.reason,
        "seconds": now - switch.since,
        "left": max(0.0, switch.deadline - now),
    }


def _last(state: State, now: float) -> dict[str, object] | None:
    if state.ended is None:
        return None
    ended = state.ended
    return {
        "from": ended.source,
        "to": ended.target,
        "ok": ended.ok,
        "reason": ended.reason,
        "seconds": ended.at - ended.since,
        "ago": now - ended.at,
        "ended": ended.at,
    }


def _engine(state: State, config: Config, engine: Engine, facts: Facts, now: float) -> dict[str, object]:
    model = config.engine(engine.name).model
    return {
        "name": engine.name,
        "active": engine.name == state.active,
        "healthy": engine.healthy,
        "state": phase(engine),
        "since": now - engine.since,
        "streams": None if facts.streams is None else facts.streams.get(engine.name),
        "model": model,
        "reason": reason(engine),
        "fits": not engine.misfit,
        "selectable": engine.selectable,
    }


def phase(engine: Engine) -> str:
    """An engine's state in a word."""
    if not engine.managed:
        return "ready" if engine.healthy else "away"
    if engine.order == Verb.STOP:
        return "stopping"
    if engine.healthy:
        return "ready"
    if engine.blocked and engine.unit not in (Unit.STARTING, Unit.READY):
        return "waiting"
    if engine.order == Verb.START and engine.unit in (Unit.STOPPED, Unit.UNKNOWN):
        return "starting"
    # Its launcher says that it serves, and a probe says that it does not.
    return "unhealthy" if engine.unit == Unit.READY else engine.unit


def reason(engine: Engine) -> str:
    """Why it is so, in a line."""
    if engine.healthy:
        return engine.reason
    # A launcher that refused names what is missing; the hardware's word for it is more general.
    told = engine.told if engine.managed and engine.unit in (Unit.STARTING, Unit.FAILED) else ""
    return engine.missing or told or engine.misfit or engine.reason
