"""The core's part that follows a model from its files to the engines: published, verified, shown."""

from __future__ import annotations

from . import fetching, policy
from .events import Action, Do, Job, JobDone, Log
from .state import Model, Stage, State, with_file, with_model

MOST_SPOILT = 3
"""How often in a row a model may be wrong when it is verified, though each file came right: then its disk is
at fault, and it rests."""

_JOBS = {Stage.PUBLISH: Job.PUBLISH, Stage.VERIFY: Job.VERIFY, Stage.SHOW: Job.SHOW}


def follow(state: State, actions: list[Action]) -> State:
    """Ask for the next work on the disk of each model."""
    for model in state.models:
        if model.busy or model.stage == Stage.PACK:
            continue
        if model.dropping:
            if not any(file.running and file.stopping for file in state.of(model)):
                state, order = fetching.dropped(state, model)
                actions.append(order)
            continue
        if model.stage == Stage.FETCH:
            files = state.of(model)
            if model.trouble or not all(file.whole and not file.running for file in files):
                continue
            state = with_model(state, model.name, stage=Stage.PUBLISH)
        model = state.model(model.name)
        if model.trouble:
            continue
        if model.stage in _JOBS:
            actions.append(Do(_JOBS[model.stage], model.name))
            state = with_model(state, model.name, busy=True)
        elif model.stage == Stage.READY and model.again:
            actions.append(Do(Job.VERIFY, model.name))
            state = with_model(state, model.name, busy=True)
    return _prune(state, actions)


def _prune(state: State, actions: list[Action]) -> State:
    """Once all models are there, what is not pinned is of no use to anybody."""
    stored = [model for model in state.models if model.stage != Stage.PACK]
    if state.pruned or any(model.stage != Stage.READY for model in stored):
        return state
    actions.append(Do(Job.PRUNE))
    return state._replace(pruned=True)


def done(state: State, event: JobDone, now: float, actions: list[Action]) -> State:
    """Work on the disk has ended."""
    if event.job == Job.PRUNE:
        if event.words:
            actions.append(Log(f"not pruned: {event.words}"))
        return state
    model = state.model(event.model)
    state = with_model(state, model.name, busy=False)
    if event.job == Job.DROP:
        return state
    if event.job == Job.HIDE:
        return state if not event.words else _broken(state, model, event.words, now, actions)
    if event.files:
        return _spoilt(state, model, event, now, actions)
    if event.words:
        if event.full:
            state = with_model(state, model.name, stage=Stage.FETCH, again=False)
            return fetching.short(state, model.name, event.words, now, actions)
        return _broken(state, model, event.words, now, actions)
    if event.job == Job.PUBLISH:
        return with_model(state, model.name, stage=Stage.VERIFY)
    if event.job == Job.VERIFY:
        again = model.stage == Stage.READY
        stage = Stage.READY if again else Stage.SHOW
        return with_model(state, model.name, stage=stage, sealed=event.sealed, again=False, spoilt=0)
    actions.append(Log(f"{model.name}: ready"))
    return with_model(state, model.name, stage=Stage.READY, admitted=False, began=None)


def _spoilt(state: State, model: Model, event: JobDone, now: float, actions: list[Action]) -> State:
    """Some files are not what is pinned: engines must not get the model, and those files come anew."""
    names = ", ".join(event.files)
    words = f"verified, and wrong on the disk: {names}"
    actions.append(Log(f"{model.name}: {words}"))
    pinned = state.config.model(model.name)
    for file in pinned.files:
        if file.name in event.files:
            fresh = policy.Schedule(error=words)
            state = with_file(state, file.sha256, whole=False, held=0, schedule=fresh)
    actions.append(Do(Job.HIDE, model.name, event.files))
    state = with_model(
        state,
        model.name,
        stage=Stage.FETCH,
        busy=True,
        admitted=False,
        again=False,
        sealed=False,
        error=words,
        spoilt=model.spoilt + 1,
    )
    if model.spoilt + 1 >= MOST_SPOILT:
        return fetching.fail(state, state.model(model.name), f"{words}, again and again", now, actions)
    return state


def _broken(state: State, model: Model, words: str, now: float, actions: list[Action]) -> State:
    """The disk does not do its work: look at the model's files anew after a rest."""
    state = with_model(state, model.name, stage=Stage.FETCH, again=False)
    return fetching.fail(state, state.model(model.name), words, now, actions)


def reverified(state: State, name: str) -> State:
    """Read a model that is ready again ("": all of them); it stays ready meanwhile."""
    for model in state.models:
        if model.stage == Stage.READY and name in ("", model.name):
            state = with_model(state, model.name, again=True)
    return state
