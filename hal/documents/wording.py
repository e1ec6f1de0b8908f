"""pydantic's findings as problems in plain words, each at the key path that the user wrote."""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hal.documents.document import KeyPath, Problem, did_you_mean

SHOWN_CHARACTERS = 40
"""A value longer than this is cut in an error: the line number leads to the rest."""


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Each finding of a failed validation of `model`, in plain words."""
    return [problem for _, problem in findings(error, model)]


def findings(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, Problem]]:
    """As `problems_of`, each with pydantic's word for it (`missing`, `extra_forbidden`, …).

    Paths are those of the model's fields: the tags that pydantic adds for unions are left out.
    """
    problems = []
    for found in error.errors(include_url=False):
        path, owner = _walk(model, found["loc"])
        if found["type"].startswith("union_tag"):
            discriminator = found.get("ctx", {}).get("discriminator", "").strip("'")
            path = (*path, discriminator)
        problems.append((found["type"], Problem(path, _words(found, owner))))
    return [
        (kind, problem)
        for kind, problem in problems  # pydantic counts valid items only: one bad item makes a list "short"
        if kind != "too_short" or not any(_below(other.path, problem.path) for _, other in problems)
    ]


def _below(path: KeyPath, above: KeyPath) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[KeyPath, type[BaseModel] | None]:
    """The key path of a pydantic location, and the model that the last key belongs to."""
    path: list[str | int] = []
    owner: type[BaseModel] | None = None
    kind: Any = model
    for step in loc:
        members = _members(kind)
        owner = next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
        tagged = next((m for m in members if len(members) > 1 and step in _tags(m)), None)
        if step == "[key]":  # pydantic's mark for a key of a mapping that is wrong itself
            continue
        if tagged is not None:
            kind, owner = tagged, tagged
        elif owner is not None:
            path.append(step)
            field = owner.model_fields.get(str(step))
            kind = field.annotation if field else None
        else:
            path.append(step)
            inner = next((m for m in members if get_args(m)), None)
            kind = get_args(inner)[0 if get_origin(inner) is tuple else -1] if inner else None
    return tuple(path), owner


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [m for part in get_args(kind) for m in _members(part) if m is not type(None)]
    return [kind]


def _tags(member: Any) -> tuple[Any, ...]:
    field = getattr(member, "model_fields", {}).get("kind")
    return get_args(field.annotation) if field else ()


def _words(found: ErrorDetails, owner: type[BaseModel] | None) -> str:
    """What is wrong, without pydantic's terms."""
    value, context = found["input"], found.get("ctx", {})
    match found["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            known = sorted(owner.model_fields) if owner else []
            return unknown_key(str(found["loc"][-1]), known)
        case "literal_error" | "union_tag_invalid":
            allowed = re.findall(r"'([^']*)'", context.get("expected") or context["expected_tags"])
            given = context.get("tag", value)
            return f"must be {one_of(allowed)}, not {shown(given)}{did_you_mean(given, allowed)}"
        case "union_tag_not_found":
            return "is required"
        case "string_type" if isinstance(value, bool | int | float):
            return f"must be text, not {shown(value)}: put it in quotes"
        case "greater_than_equal" | "less_than_equal" as bound:
            side, limit = ("least", context["ge"]) if bound.startswith("greater") else ("most", context["le"])
            return f"must be at {side} {limit}, not {shown(value)}"
        case "too_short":
            return "must not be empty"
        case kind if kind in _EXPECTED:
            return f"must be {_EXPECTED[kind]}, not {shown(value)}"
    return found["msg"]


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "bool_type": "true or false",
    "model_type": "a mapping (`key: value`)",
    "model_attributes_type": "a mapping (`key: value`)",
    "dict_type": "a mapping (`key: value`)",
    "tuple_type": "a list",
}


def unknown_key(key: str, known: list[str]) -> str:
    """Words for a key that nothing knows: the closest one that exists, else all of them."""
    return "unknown key" + (did_you_mean(key, known) or f"; the keys here are {', '.join(known)}")


def one_of(allowed: list[str]) -> str:
    """`a`, or `one of a, b, c`."""
    return allowed[0] if len(allowed) == 1 else f"one of {', '.join(allowed)}"


def shown(value: object) -> str:
    """A value as the user wrote it, cut where it is long."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int() if value.bit_length() > 256:  # more digits than Python likes to print
            return "a very large number"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
