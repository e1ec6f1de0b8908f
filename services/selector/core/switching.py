"""Switches: commanded, or decided on; each one ends."""

from __future__ import annotations

from ..config import AUTO, Config
from . import choice
from .events import Action, Commanded, Log, Verb
from .health import takes, usable
from .orders import MOST_FAILURES, ORDER_MARGIN, stopping
from .records import Choice, Ended, Stage, Switch
from .state import CONFIGURED, Engine, State, configured, decide, find, fresh, update

CUT_LIMIT = 5.0
"""Seconds for the gateway to end what is left on an engine."""

MARGIN = 30.0
"""Seconds that a switch may take beyond its parts."""


def refusal(state: State, command: Commanded) -> str:
    """Why the command would be refused; "" when it would be taken."""
    names = ", ".join(state.preference)
    if command.verb in (Verb.DRAIN, Verb.UNDRAIN):
        return ""
    engine = find(state, command.value)
    if command.verb == Verb.POLICY:
        if command.value not in (AUTO, *state.preference):
            return f"there is no policy {command.value!r}: it is {AUTO} or one of {names}"
        return _waits_for_a_model(engine)
    if command.verb != Verb.SWITCH:
        return f"there is no command {command.verb!r}"
    if not command.value:
        return ""
    if engine is None or not engine.selectable:
        return f"there is no engine {command.value!r} to switch to: there is {names}"
    if engine.misfit and not engine.healthy:
        return f"{engine.name} cannot run here: {engine.misfit}"
    return _waits_for_a_model(engine)


def _waits_for_a_model(engine: Engine | None) -> str:
    if engine is None or not engine.bare:
        return ""
    return f"{engine.name} cannot serve yet: {engine.missing}"


def command(state: State, event: Commanded, now: float, actions: list[Action]) -> State:
    """Take in a command, or refuse it."""
    reason = refusal(state, event)
    what = f"{event.verb} {event.value}".strip()
    if reason:
        actions.append(Log(f"refused: {what}: {reason}"))
        return decide(state, now, f"refused: {what}", reason)
    actions.append(Log(f"commanded: {what}"))
    if event.verb in (Verb.DRAIN, Verb.UNDRAIN):
        return decide(state._replace(drained=event.verb == Verb.DRAIN), now, what, "commanded")
    if event.verb == Verb.POLICY:
        return begin(state, Choice(event.value), now, f"the policy {event.value} was commanded", actions)
    return begin(state, Choice(state.policy, event.value), now, "commanded", actions)


def begin(
    state: State, wanted: Choice, now: float, why: str, actions: list[Action], reload: bool = False
) -> State:
    """Make `wanted` what is wanted; a switch begins if it names an engine that does not serve."""
    old = state.switch
    back = old.back if old is not None and old.back is not None else state.choice
    if old is not None and old.back is not None:
        state = _end(state, now, False, f"something else was asked for meanwhile: {why}", actions)
        state = state._replace(goal=state.active)
    state = decide(state._replace(choice=wanted, refused=False), now, _words(wanted), why)
    name = wanted.desired or (wanted.policy if wanted.policy != AUTO else "")
    target = find(state, name)
    if target is None:
        return state
    state = update(state, name, held=False)
    if state.active == name and (usable(target) or state.goal == name):
        return state._replace(goal=name, switch=None)
    state = update(state, name, attempts=0, retry_at=now, deadline=None, ordered=False)
    # Orders that came to nothing before this command say nothing of those that it leads to.
    engines = tuple(engine._replace(failures=0) for engine in state.engines)
    state = state._replace(goal=name, engines=engines)
    switch = Switch(
        name, state.active or "", Stage.STARTING, now, now + bound(state, target), why, back, reload
    )
    return state._replace(switch=switch)


def resume(state: State, now: float) -> State:
    """Go on with the switch that the selector before this one had not ended."""
    saved = state.saved
    if saved is None or saved.back is None or saved.configured != state.configured:
        return state
    policy, desired = saved.back
    known = policy in (AUTO, *state.preference) and desired in ("", *state.preference)
    target = find(state, state.desired or state.policy)
    if target is None or not known or target.name == state.active:
        return state
    reload = not state.desired and state.policy == state.configured[0]
    switch = Switch(
        target=target.name,
        source=state.active or "",
        stage=Stage.STARTING,
        since=now,
        deadline=now + bound(state, target),
        reason="the selector was started again in the middle of it",
        back=Choice(policy, desired),
        reload=reload,
    )
    return state._replace(goal=target.name, switch=switch)


def reconfigured(state: State, config: Config, now: float, actions: list[Action]) -> State:
    """Go on with another configuration; a policy or an order that differs is a command."""
    engines = []
    for given in config.engines:
        engine, known = fresh(given, now), find(state, given.name)
        if known is not None:
            changed = engine._asdict()
            engine = known._replace(**{name: changed[name] for name in CONFIGURED})
        engines.append(engine)
    names = [engine.name for engine in engines]
    same = state.configured == configured(config) and not state.refused
    state = state._replace(
        configured=configured(config),
        exclusive=config.exclusive,
        drain=config.drain,
        wait=config.wait,
        engines=tuple(engines),
        goal=state.goal if state.goal in names else None,
        active=state.active if state.active in names else None,
        resident=state.resident if state.resident in names else None,
        leaving=tuple(entry for entry in state.leaving if entry.engine in names),
    )
    why = "the configuration was read again"
    actions.append(Log(why))
    if not same or state.policy not in (AUTO, *names) or (state.desired or names[0]) not in names:
        return begin(state, Choice(config.policy), now, why, actions, reload=True)
    return decide(state, now, "nothing else is wanted", why)


def bound(state: State, target: Engine) -> float:
    """Seconds after which a switch to the engine has ended, one way or the other."""
    seconds = target.start_timeout + MARGIN
    if state.exclusive and target.managed:
        others = [engine for engine in state.engines if engine.managed and engine.name != target.name]
        seconds += state.drain + CUT_LIMIT + sum(engine.stop_timeout + ORDER_MARGIN for engine in others)
    return seconds


def follow(state: State, now: float, actions: list[Action]) -> State:
    """End the switch that is through or cannot be; begin the record of one that the selector decided on."""
    switch = state.switch
    if switch is not None:
        state = _follow(state, switch, now, actions)
    return state


def record(state: State, before: str | None, now: float, actions: list[Action]) -> State:
    """Keep record of a switch when the goal has changed by the selector's own decision."""
    if state.goal == before or state.goal is None or (state.switch is not None and state.switch.back):
        return state
    if state.switch is not None:
        state = _end(state, now, False, f"{state.goal} is to serve instead", actions)
    target = find(state, state.goal)
    if target is None or state.active is None or state.active == state.goal:
        return state
    why = state.decisions[-1].why if state.decisions else ""
    deadline = now + bound(state, target)
    return state._replace(switch=Switch(target.name, state.active, Stage.STARTING, now, deadline, why))


def _follow(state: State, switch: Switch, now: float, actions: list[Action]) -> State:
    target = find(state, switch.target)
    if target is None:
        return _fail(state, switch, now, "the engine is no longer there", actions)
    if state.active == target.name and takes(state, target):
        return _end(state, now, True, "", actions)
    if switch.back is not None and target.bare:
        return _fail(state, switch, now, target.missing, actions)
    in_vain = target.managed and target.attempts > 0 and target.deadline is None and not target.healthy
    if switch.back is not None and in_vain:
        return _fail(state, switch, now, target.reason, actions)
    stuck = [engine for engine in stopping(state) if engine.failures >= MOST_FAILURES]
    if switch.back is not None and target.managed and stuck:
        return _fail(state, switch, now, f"{stuck[0].name} cannot be stopped: {stuck[0].trouble}", actions)
    if now >= switch.deadline:
        return _fail(state, switch, now, f"out of time: {target.reason}", actions)
    return state._replace(switch=switch._replace(stage=_stage(state, target)))


def _stage(state: State, target: Engine) -> str:
    if usable(target):
        return Stage.MOVING
    going = stopping(state) if target.managed else ()
    if not going:
        return Stage.STARTING
    over = {entry.engine for entry in state.leaving if entry.over}
    return Stage.STOPPING if all(engine.name in over for engine in going) else Stage.DRAINING


def _fail(state: State, switch: Switch, now: float, reason: str, actions: list[Action]) -> State:
    """The switch has failed; what was wanted before a command is wanted again."""
    state = _end(state, now, False, reason, actions)
    if switch.back is None:
        return state
    state = state._replace(choice=switch.back, refused=switch.reload)
    names = choice.order(state)
    goal = switch.source if switch.source in names else None
    if goal is None:
        return state._replace(goal=None)
    state = update(state, goal, attempts=0, retry_at=now)
    return decide(
        state._replace(goal=goal), now, f"{goal} is to serve", f"the switch to {switch.target} failed"
    )


def _end(state: State, now: float, ok: bool, reason: str, actions: list[Action]) -> State:
    switch = state.switch
    assert switch is not None
    took = now - switch.since
    what = f"switched to {switch.target}" if ok else f"the switch to {switch.target} has failed"
    actions.append(Log(f"{what} after {took:.1f} s{': ' + reason if reason else ''}"))
    ended = Ended(switch.target, switch.source, ok, reason, switch.since, now)
    return decide(state._replace(switch=None, ended=ended), now, what, reason or switch.reason)


def _words(wanted: Choice) -> str:
    if wanted.desired:
        return f"{wanted.desired} is wanted, and the policy {wanted.policy}"
    return f"the policy is {wanted.policy}"
