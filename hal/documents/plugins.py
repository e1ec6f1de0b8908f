"""Finding and reading plugin files: a folder of YAML files, each named after what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from hal.documents.document import Problem, SpecError, did_you_mean, read_document
from hal.documents.wording import problems_of

P = TypeVar("P", bound=BaseModel)


def available(directory: Path) -> tuple[str, ...]:
    """Names of the plugins in `directory`, sorted."""
    return tuple(sorted(file.stem for file in directory.glob("*.yaml")))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Words for a name that no plugin of this kind ("engine", "model", "profile") has."""
    known = sorted(known)
    listed = f"; {kind}s: {', '.join(known)}" if known else ""
    return f"there is no {kind} {name!r}{did_you_mean(name, known)}{listed}"


def load(
    kind: str,
    name: str,
    directory: Path,
    model_of: Callable[[object], type[P]],
    check: Callable[[P], Iterable[Problem]],
) -> P:
    """Read `NAME.yaml` as the model that its content asks for; its field `name` must be NAME.

    `check` finds what types cannot.

    Raises:
        SpecError: there is no such file, or it is not valid; `details` holds every problem.
    """
    known = available(directory)
    if name not in known:
        raise SpecError(unknown(kind, name, known))
    document = read_document(directory / f"{name}.yaml", f"{kind} file")
    problems = list(document.problems)
    model = model_of(document.data)
    try:
        value = model.model_validate(document.data)
    except ValidationError as error:
        raise document.error(f"{kind} file", [*problems, *problems_of(error, model)]) from None
    if getattr(value, "name", None) != name:
        problems.append(Problem(("name",), f"must be {name}, as the file is named"))
    problems += check(value)
    if problems:
        raise document.error(f"{kind} file", problems)
    return value
