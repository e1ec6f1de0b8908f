"""docs/spec.md has every key of the schema, with its default, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from hal.documents.size import format_size
from hal.engines import Engine, RemoteEngine
from hal.models import Model
from hal.spec.loading import ModelChoice, Spec

DOCUMENT = (Path(__file__).parents[2] / "docs/spec.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*?) ?\| .+ \|$", re.MULTILINE)


def documented(section: str) -> list[tuple[str, str]]:
    text = DOCUMENT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [(row[1], row[2].strip()) for row in ROW.finditer(text)]


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key below a model as the document writes it, with its default."""
    for name, field in model.model_fields.items():
        suffix, inner = shape(field.annotation)
        yield prefix + name + suffix, default(name, field)
        for member in inner:
            if member is not ModelChoice:  # its keys are those of a model, in a section of their own
                yield from keys(member, f"{prefix}{name}{suffix}.")


def shape(annotation: Any) -> tuple[str, list[type[BaseModel]]]:
    """What a key's path goes on with, and the models below it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "", [annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape(inner[0])
    if origin is tuple:
        suffix, models = shape(inner[0])
        return (f"[]{suffix}" if models else ""), models
    if origin is dict:
        suffix, models = shape(inner[1])
        key = "ARCH" if get_origin(inner[0]) is Literal else "NAME"
        return (f".{key}{suffix}" if models else ""), models
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return "", [model for member in inner for model in shape(member)[1]]
    return "", []


def default(name: str, field: Any) -> str:
    if field.is_required():
        return "see right" if name == "variant" else "required"
    value = field.get_default()
    if isinstance(value, bool):
        return str(value).lower()
    if value in (None, (), {}, "") or isinstance(value, BaseModel):
        return ""
    return format_size(value) if name in ("state", "memory", "body") else str(value)


@pytest.mark.parametrize(
    ("section", "model"),
    [("Spec", Spec), ("Model", Model), ("Engine", Engine), ("Remote engine", RemoteEngine)],
)
def test_the_reference_has_every_key_and_no_other(section: str, model: type[BaseModel]) -> None:
    expected = list(dict.fromkeys(keys(model)))
    assert documented(section) == expected
    assert len(expected) > 10


@pytest.mark.parametrize("model", [Spec, Model, Engine, RemoteEngine])
def test_every_field_has_a_description(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
