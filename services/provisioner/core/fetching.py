"""The core's part that fetches: which attempt begins when, and what comes of it."""

from __future__ import annotations

from . import policy, space
from .events import Action, Do, Fetch, FetchEnded, Job, Log, Outcome, StopFetch
from .policy import End, Failure
from .state import File, Model, Stage, State, Trouble, with_file, with_model

SPACE_WAIT = 30.0
"""Seconds after a model lost its space until it may ask for it again: who took it may go on taking.

It doubles each time, up to `LONGEST_SPACE_WAIT`: all that it had has to be fetched again.
"""

LONGEST_SPACE_WAIT = 3600.0

GIVING_WAIT = 2.0
"""Seconds until a file is tried again that found no space while another model was giving its own back."""


def begin(state: State, now: float, actions: list[Action]) -> State:
    """Begin as many attempts as may run at once, in the spec's order."""
    if not state.route:
        return state
    for model in state.models:
        if not goes_on(model):
            continue
        for file in state.of(model):
            if sum(other.running for other in state.files) >= state.config.concurrency:
                return state
            if not _due(state, file, now):
                continue
            began = now if model.began is None else model.began
            state = with_model(state, model.name, began=began, attempts=state.model(model.name).attempts + 1)
            state = with_file(state, file.sha256, running=True, stopping=False)
            limit = state.config.policy.deadline
            model = state.model(model.name)
            actions.append(Fetch(file.sha256, file.schedule.place, None if limit is None else began + limit))
    return state


def _due(state: State, file: File, now: float) -> bool:
    """Whether an attempt at a file may begin; not while its part may be being removed for another model."""
    if file.whole or file.running or not file.places or file.schedule.end or file.schedule.at > now:
        return False
    return not any(other.busy for other in state.wanting(file.sha256))


def goes_on(model: Model) -> bool:
    """Whether a model is being fetched, or would be if it was its turn."""
    return model.stage == Stage.FETCH and not model.trouble and model.admitted and not model.dropping


def route(state: State, present: bool, now: float, actions: list[Action]) -> State:
    """The network went, or came back: then nobody waits out the pause of a failure."""
    if present == state.route:
        return state
    actions.append(Log("the network is there" if present else "there is no network: waiting for one"))
    if present:
        for file in state.files:
            if not file.whole and not file.running:
                state = with_file(state, file.sha256, schedule=policy.hurried(file.schedule, now))
    return state._replace(route=present)


def ended(state: State, event: FetchEnded, now: float, actions: list[Action]) -> State:
    """An attempt has ended."""
    try:
        file = state.file(event.sha256)
    except KeyError:
        return state
    whole = file.whole or event.outcome == Outcome.WHOLE
    before = state
    state = with_file(state, file.sha256, running=False, stopping=False, whole=whole, held=event.held)
    state = space.spent(before, state, file.sha256)
    wanting = state.wanting(file.sha256)
    if wanting:
        first = wanting[0]
        state = with_model(state, first.name, fetched=first.fetched + event.fetched)
    if whole:
        return state
    if event.outcome == Outcome.FULL:
        if _giving(state):  # there will be space in a moment
            later = file.schedule._replace(at=now + GIVING_WAIT)
            return with_file(state, file.sha256, schedule=later)
        for model in wanting:
            if model.admitted:
                state = evict(state, model.name, event.words or "the disk is full", now, actions)
        return state
    if event.outcome == Outcome.BROKEN:
        for model in wanting:
            state = fail(state, model, event.words, now, actions)
        return state
    if event.outcome == Outcome.FAILED:
        return _failed(state, state.file(file.sha256), event, now, actions)
    return state


def _failed(state: State, file: File, event: FetchEnded, now: float, actions: list[Action]) -> State:
    failure = Failure(
        place=file.schedule.place,
        words=event.words,
        held=event.held,
        permanent=event.permanent,
        wrong_bytes=event.wrong_bytes,
        retry_after=event.retry_after,
        counts=state.route,
    )
    rules = state.config.policy
    schedule = policy.failed(file.schedule, rules, file.places, file.size, failure, now, event.draw)
    state = with_file(state, file.sha256, schedule=schedule)
    for model in state.wanting(file.sha256):
        state = with_model(state, model.name, error=event.words)
        if not goes_on(model):
            continue
        if schedule.end:
            words = event.words
            if schedule.end == End.USED:
                words = f"{schedule.failures} attempts in a row failed, the last one: {event.words}"
            state = fail(state, model, words, now, actions)
        else:
            wait = schedule.at - now
            when = f"again in {wait:.0f} s" if wait >= 0.5 else "again at once"
            actions.append(Log(f"{model.name}: {event.words}; {when}"))
    return state


def fail(state: State, model: Model, words: str, now: float, actions: list[Action]) -> State:
    """Give a model up for this round; what it has stays."""
    if model.trouble == Trouble.FAILED:
        return state
    rest = state.config.policy.rest
    actions.append(Log(f"{model.name}: failed: {words}; a new round in {rest:.0f} s, or: retry {model.name}"))
    state = with_model(
        state,
        model.name,
        trouble=Trouble.FAILED,
        reason=words,
        error=words,
        again_at=now + rest,
        admitted=False,
        began=None,
    )
    return _stop(state, state.model(model.name), actions)


def _stop(state: State, model: Model, actions: list[Action]) -> State:
    """Stop a model's attempts, but for files that another one goes on with."""
    for file in state.of(model):
        others = [other for other in state.wanting(file.sha256) if other.name != model.name]
        if file.running and not file.stopping and not any(goes_on(other) for other in others):
            actions.append(StopFetch(file.sha256))
            state = with_file(state, file.sha256, stopping=True)
    return state


def evict(state: State, name: str, words: str, now: float, actions: list[Action]) -> State:
    """Let a model go that cannot finish for lack of space: it gives back what it has taken."""
    state = short(state, name, f"{words}; what it has taken is given back", now, actions)
    model = state.model(name)
    wait = min(SPACE_WAIT * 2**model.evicted, LONGEST_SPACE_WAIT)
    evicted = min(model.evicted + 1, 20)
    state = with_model(state, name, dropping=True, again_at=now + wait, evicted=evicted)
    return _stop(state, state.model(name), actions)


def short(state: State, name: str, words: str, now: float, actions: list[Action]) -> State:
    """Let a model wait for space."""
    actions.append(Log(f"{name}: no space: {words}"))
    return with_model(
        state,
        name,
        trouble=Trouble.NO_SPACE,
        reason=words,
        error=words,
        again_at=now + SPACE_WAIT,
        admitted=False,
        began=None,
    )


def give_way(state: State, now: float, actions: list[Action]) -> State:
    """Where others have eaten what was promised, the last model of the spec that still needs some lets go."""
    if _giving(state) or not space.overdrawn(state):
        return state
    taken = [model for model in state.models if goes_on(model) and space.lacks(state, model)]
    if not taken:
        return state
    return evict(state, taken[-1].name, "others have taken the disk's space meanwhile", now, actions)


def _giving(state: State) -> bool:
    """Whether a model is giving space back just now."""
    return any(model.dropping or (model.busy and space.unfinished(model)) for model in state.models)


def admit_all(state: State, now: float, actions: list[Action]) -> State:
    """Set space aside for the models that fit, in the spec's order."""
    if state.free is None:
        return state
    for model in state.models:
        if space.waits_for_space(state, model) and not model.dropping and not model.busy:
            state = admit(state, model, now, actions)
    return state


def admit(state: State, model: Model, now: float, actions: list[Action]) -> State:
    """Set space aside for a model, or say that there is none."""
    if model.trouble == Trouble.NO_SPACE and now < model.again_at:
        return state
    if space.fits(state, model):
        if model.trouble:
            actions.append(Log(f"{model.name}: there is space again"))
        return with_model(state, model.name, admitted=True, trouble=Trouble.NONE, reason="")
    words = space.words(state, model)
    if model.trouble != Trouble.NO_SPACE:
        actions.append(Log(f"{model.name}: no space: {words}"))
    dropping = space.in_the_way(state, model)
    return with_model(
        state, model.name, trouble=Trouble.NO_SPACE, reason=words, again_at=now, dropping=dropping
    )


def dropped(state: State, model: Model) -> tuple[State, Do]:
    """The order to give a model's space back: of its files, those that no other model has or gets."""
    alone = space.alone(state, model)
    for file in alone:
        state = with_file(state, file.sha256, whole=False, held=0, schedule=policy.Schedule())
    state = with_model(state, model.name, dropping=False, busy=True)
    return state, Do(Job.DROP, model.name, tuple(file.sha256 for file in alone))


def imported(state: State, sha256: str, actions: list[Action]) -> State:
    """A file has come by hand; an attempt at it is of no use any more."""
    file = state.file(sha256)
    if file.running and not file.stopping:
        actions.append(StopFetch(sha256))
    stopping = file.running
    before = state
    state = with_file(state, sha256, whole=True, held=file.size, stopping=stopping)
    state = space.spent(before, state, sha256)
    for model in state.wanting(sha256):
        if all(one.whole for one in state.of(model)):
            state = with_model(state, model.name, trouble=Trouble.NONE, reason="", admitted=True)
    return state


def expire(state: State, now: float, actions: list[Action]) -> State:
    """What time brings: a deadline that has passed, a rest that is over, a file without any place."""
    limit = state.config.policy.deadline
    for model in state.models:
        if model.stage != Stage.FETCH or model.dropping or model.busy:
            continue
        if model.trouble == Trouble.FAILED and now >= model.again_at:
            state = retried(state, model.name, now)
        elif goes_on(model) and all(file.whole for file in state.of(model)):
            continue
        elif goes_on(model) and limit is not None and model.began is not None and now >= model.began + limit:
            words = f"not there within {limit:.0f} s" + (f": {model.error}" if model.error else "")
            state = fail(state, model, words, now, actions)
        elif goes_on(model) and any(not file.places and not file.whole for file in state.of(model)):
            words = "there is no place to fetch it from: only mirrors may be asked, and none is named"
            state = fail(state, model, words, now, actions)
    return state


def retried(state: State, name: str, now: float) -> State:
    """Begin a new round for a model ("": for all)."""
    for model in state.models:
        if model.stage != Stage.FETCH or name not in ("", model.name):
            continue
        if model.trouble:
            state = with_model(
                state, model.name, trouble=Trouble.NONE, reason="", again_at=now, spoilt=0, evicted=0
            )
        state = with_model(state, model.name, began=None)
        for file in state.of(model):
            if not file.running and not file.whole:
                state = with_file(state, file.sha256, schedule=policy.anew(file.schedule, now))
    return state
