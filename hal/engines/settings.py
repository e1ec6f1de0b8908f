"""Settings of engines: declared with a type and a range in the engine's file, given in a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from hal.documents.document import did_you_mean
from hal.documents.strict import Line, Many, Value
from hal.documents.wording import one_of, shown


def _scalar(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("scalar", "{p}", {"p": f"must be one value, not {shown(value)}"})
    if not value.isprintable():
        raise PydanticCustomError("scalar", "{p}", {"p": "must be one line of text"})
    return value


Scalar = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
"""A setting's value: true or false, a number, or one line of text."""

AUTO = "auto"
"""What a setting of the type `count` may be besides a number: found out when the engine starts."""

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "count": ((int, str), "a whole number or auto"),
}


class Setting(Value):
    """One setting of an engine: its type, its default and what it may be."""

    type: Literal["bool", "int", "float", "str", "count"] = Field(description="type of the value")
    default: Scalar = Field(description="value where a spec gives none")
    summary: Line = Field(description="the setting in one line", min_length=1)
    min: int | None = Field(description="least number that is allowed", default=None)
    max: int | None = Field(description="greatest number that is allowed", default=None)
    values: Many[Scalar] = Field(description="the only values that are allowed; empty: any", default=())


def setting_problem(setting: Setting, value: Any) -> str | None:
    """What is wrong with a value for a setting, in plain words; None where nothing is."""
    types, words = _TYPES[setting.type]
    if not isinstance(value, types) or (isinstance(value, bool) and setting.type != "bool"):
        return f"must be {words}, not {shown(value)}"
    if setting.type == "count" and isinstance(value, str) and value != AUTO:
        return f"must be {words}, not {shown(value)}{did_you_mean(value, [AUTO])}"
    if setting.values and value not in setting.values:
        allowed = [setting_text(v) for v in setting.values]
        return f"must be {one_of(allowed)}, not {shown(value)}{did_you_mean(value, allowed)}"
    if isinstance(value, int | float):
        if setting.min is not None and value < setting.min:
            return f"must be at least {setting.min}, not {shown(value)}"
        if setting.max is not None and value > setting.max:
            return f"must be at most {setting.max}, not {shown(value)}"
    return None


def setting_text(value: bool | int | float | str) -> str:
    """A setting's value as it stands in an environment file: `true`, `2048`, `0.5`, text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)
