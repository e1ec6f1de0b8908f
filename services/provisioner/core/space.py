"""Who gets space: a model begins where all that it lacks fits, beside what others were promised. Pure."""

from __future__ import annotations

from .state import File, Model, Stage, State, Trouble

OVERHEAD = 100
"""One byte more for so many of a model: the file system's own, and fs-verity's hash tree (a 128th)."""

EASE = 2
"""Others may take one part in so many of the reserve, which is theirs, before a model has to give way."""


def budget(state: State) -> int | None:
    """Bytes that models may still take; None: not measured yet."""
    if state.free is None:
        return None
    left = state.free - state.config.reserve
    return left if state.config.quota is None else min(left, state.config.quota - state.used)


def spent(before: State, state: State, sha256: str) -> State:
    """Count what has come of a file since the last measurement, which is older than it."""
    bytes_come = before.file(sha256).missing - state.file(sha256).missing
    if state.free is None or bytes_come <= 0:
        return state
    return state._replace(free=state.free - bytes_come, used=state.used + bytes_come)


def lacks(state: State, model: Model) -> int:
    """Bytes that a model still needs of the disk; a file that two models want counts for the first."""
    earlier: set[str] = set()
    for other in state.models:
        if other.name == model.name:
            break
        if other.admitted:
            earlier |= set(other.files)
    missing = sum(file.missing for file in state.of(model) if file.sha256 not in earlier)
    return missing + missing // OVERHEAD


def promised(state: State) -> int:
    """Bytes that admitted models still need."""
    return sum(lacks(state, model) for model in state.models if unfinished(model) and model.admitted)


def unfinished(model: Model) -> bool:
    """Whether a model still takes space."""
    return model.stage == Stage.FETCH


def fits(state: State, model: Model) -> bool:
    """Whether what a model lacks is there."""
    left = budget(state)
    return left is not None and lacks(state, model) <= left - promised(state)


def holds(state: State, model: Model) -> int:
    """Bytes of the disk that would come back if it was dropped."""
    return sum(file.size if file.whole else file.held for file in alone(state, model))


def alone(state: State, model: Model) -> list[File]:
    """A model's files that no other one has, or is going to get."""
    others = [other for other in state.models if other.name != model.name]
    kept = {sha256 for other in others if other.trouble != Trouble.NO_SPACE for sha256 in other.files}
    return [file for file in state.of(model) if file.sha256 not in kept]


def in_the_way(state: State, model: Model) -> bool:
    """Whether another model would fit into what this one holds and cannot finish."""
    left = budget(state)
    if left is None or not holds(state, model):
        return False
    free = left - promised(state)
    return any(
        free < lacks(state, other) <= free + holds(state, model)
        for other in state.models
        if other.name != model.name and waits_for_space(state, other)
    )


def waits_for_space(state: State, model: Model) -> bool:
    """Whether a model would begin if there was space for it."""
    hopeless = model.admitted or model.trouble == Trouble.FAILED or by_hand(state, model)
    return unfinished(model) and not hopeless


def by_hand(state: State, model: Model) -> bool:
    """Whether a model lacks files that only an operator can give."""
    missing = [file for file in state.of(model) if not file.whole]
    return model.delivery == "import" and unfinished(model) and bool(missing)


def overdrawn(state: State) -> bool:
    """Whether somebody else has taken what was promised, so that a model has to give way now."""
    if state.free is None:
        return False
    if state.config.quota is not None and state.used > state.config.quota:
        return True
    return state.free < state.config.reserve // EASE


def words(state: State, model: Model) -> str:
    """Why a model does not fit."""
    left = max(0, (budget(state) or 0) - promised(state))
    short = lacks(state, model) - left
    why = f"it needs {size(lacks(state, model))} of disk and {size(left)} are free for it"
    return f"{why}: {size(short)} too few" if short > 0 else why


def size(number: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
