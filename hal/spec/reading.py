"""From the plain values of an appliance file to a `Spec`, and to all that keeps them from being one.

A file with mistakes still gives a spec where it can: what is wrong is cut out, so that the rest can be
checked for what it means, and all problems are told at once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hal.documents.document import KeyPath, Problem
from hal.documents.wording import findings
from hal.spec.model import Spec, engine_list, nested_name

_PLACEHOLDER_NAME = "x"
_PLACEHOLDER_APPLIANCE = {"name": "x", "version": "0"}
"""What stands for a required part that is wrong; nothing that depends on it is checked."""

_ROUNDS = 100
"""Each round cuts out everything that was found, so a few are enough; the limit is against a bug."""


def read_spec(data: object) -> tuple[Spec | None, list[Problem], set[KeyPath]]:
    """The spec that `data` is, what is wrong with it, and the paths whose values are not the user's.

    There is no spec where the file is no mapping.
    """
    problems = _names_in_choices(data)
    wrong: set[KeyPath] = set()
    rest = copy.deepcopy(data)
    if isinstance(rest, dict) and "engines" in rest:
        rest["engines"] = engine_list(rest["engines"])
    for round_ in range(_ROUNDS):
        try:
            return Spec.model_validate(rest), problems, wrong
        except ValidationError as error:
            found = findings(error, Spec)
        if round_ == 0:
            problems += [Problem(written_path(p.path, data), p.text) for _, p in found]
        if not isinstance(rest, dict):
            break
        for kind, problem in found:
            _cut(rest, kind, _without_inline(problem.path), wrong)
    return None, problems, wrong


def _cut(data: dict[str, Any], kind: str, path: KeyPath, wrong: set[KeyPath]) -> None:
    """Take what is wrong at `path` out of `data`, and note its path where that changes a meaning."""
    if kind == "extra_forbidden":
        _remove(data, path)
        return
    if kind in ("missing", "union_tag_not_found", "union_tag_invalid") and len(path) > 1:
        path = path[:-1]
    while len(path) > 2 and isinstance(path[-1], int):  # a list keeps its order: all of it goes, or nothing
        path = path[:-1]
    match path:
        case ("engines" | "models" as part, int(index)) | ("engines" | "models" as part, int(index), "name"):
            wrong.add((part, index))
            data[part][index] = _PLACEHOLDER_NAME
        case ("appliance",) | ("appliance", _):
            wrong.add(path)
            data["appliance"] = _PLACEHOLDER_APPLIANCE
        case ("engines",):
            wrong.add(path)
            data["engines"] = [_PLACEHOLDER_NAME]
        case _:
            wrong.add(path)
            _remove(data, path)


def _remove(data: Any, path: KeyPath) -> None:
    for step in path[:-1]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):  # already cut with something above it
            return
    if isinstance(data, dict):
        data.pop(path[-1], None)


def written_path(path: KeyPath, data: object) -> KeyPath:
    """The path in the file for a path in `Spec`, which has one form for what a file may write in several."""
    match path:
        case ("models", int(), "inline", *_):
            return _without_inline(path)
        case ("models" | "engines" as part, int(index), "name") if isinstance(_at(data, part, index), str):
            return (part, index)
        case ("engines", int(index), *rest):
            engines = _at(data, "engines")
            names = list(engines)[index : index + 1] if isinstance(engines, Mapping) else ()
            nested = nested_name(_at(data, "engines", index))
            above: KeyPath = ("engines", *names) if names else ("engines", index, *(nested or ()))
            if not names and not nested:
                return path
            whole = rest == ["settings"] and not isinstance(_at(data, *above), Mapping)  # `llamacpp: 5`
            return above if whole or rest == ["name"] else (*above, *rest)
    return path


def _without_inline(path: KeyPath) -> KeyPath:
    """`ModelChoice.inline` is no key of a file: what is below it stands in the model's own mapping."""
    return (*path[:2], *path[3:]) if path[:1] == ("models",) and path[2:3] == ("inline",) else path


def _at(data: object, *path: str | int) -> object:
    value: Any = data
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _names_in_choices(data: object) -> list[Problem]:
    """`name` inside what already stands under a name."""
    engines = _at(data, "engines")
    choices: list[tuple[KeyPath, object]] = []
    if isinstance(engines, Mapping):
        choices = [(("engines", name), choice) for name, choice in engines.items()]
    elif isinstance(engines, list):
        for index, item in enumerate(engines):
            choices += [(("engines", index, name), _at(item, name)) for name in nested_name(item) or ()]
    return [
        Problem((*path, "name"), f"the engine's name is the key above it, {path[-1]}")
        for path, choice in choices
        if isinstance(choice, Mapping) and "name" in choice
    ]
