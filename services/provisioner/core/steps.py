"""What the provisioner decides: a pure function `(state, event, now) -> (state, actions)`.

`now` is in seconds of a monotonic clock. Nothing here reads a clock, a file or a socket; the daemon performs
the actions and brings their results back as events. A step compares what is wanted with what was seen and
asks for what is missing; what is under way is noted in the state, so nothing is asked for twice.
"""

from __future__ import annotations

from . import fetching, storing
from .events import (
    Action,
    Event,
    FetchEnded,
    Imported,
    JobDone,
    Measured,
    Retried,
    Reverified,
    RouteSeen,
    Save,
)
from .state import State, to_save, with_file

LONGEST_WAIT = 5.0


def step(state: State, event: Event, now: float) -> tuple[State, list[Action]]:
    """Take in one event and say what to do, in this order."""
    actions: list[Action] = []
    before = to_save(state)
    state = _take(state, event, now, actions)
    state = fetching.expire(state, now, actions)
    if isinstance(event, Measured):
        state = fetching.give_way(state, now, actions)
    state = fetching.admit_all(state, now, actions)
    state = storing.follow(state, actions)
    state = fetching.begin(state, now, actions)
    if to_save(state) != before:
        actions.append(Save())
    return state._replace(due=_due(state, now)), actions


def next_due(state: State) -> float:
    """The time at which a Tick is next of use."""
    return state.due


def _take(state: State, event: Event, now: float, actions: list[Action]) -> State:
    if isinstance(event, Measured):
        for sha256, held in event.held:
            state = with_file(state, sha256, held=held)
        return state._replace(free=event.free, used=event.used)
    if isinstance(event, RouteSeen):
        return fetching.route(state, event.present, now, actions)
    if isinstance(event, FetchEnded):
        return fetching.ended(state, event, now, actions)
    if isinstance(event, Imported):
        return fetching.imported(state, event.sha256, actions)
    if isinstance(event, JobDone):
        return storing.done(state, event, now, actions)
    if isinstance(event, Retried):
        return fetching.retried(state, event.model, now)
    if isinstance(event, Reverified):
        return storing.reverified(state, event.model)
    return state


def _due(state: State, now: float) -> float:
    times = [file.schedule.at for file in state.files if not file.whole and not file.running]
    for model in state.models:
        if model.trouble:
            times.append(model.again_at)
        elif model.began is not None and state.config.policy.deadline is not None:
            times.append(model.began + state.config.policy.deadline)
    return min((at for at in times if at > now), default=now + LONGEST_WAIT)
