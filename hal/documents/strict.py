"""What all of hal's YAML models share: nothing unknown, nothing converted, nothing changed afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

T = TypeVar("T")


class Value(BaseModel):
    """A frozen value of a YAML file; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Many = Annotated[tuple[T, ...], Strict(False)]
"""A list in the file, a tuple in Python: strict mode alone would refuse the list."""


@dataclass(frozen=True)
class Matching:
    """Restricts text to a regular expression; `words` says in plain words what is asked for."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def _check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise PydanticCustomError("pattern", "{words}", {"words": f"must be {self.words}"})
        return text


Line = Annotated[str, Matching(r"^[^\x00-\x1f\x7f-\x9f]*$", "one line of text")]
"""Text that can stand on one line of a unit file or an environment file."""

EngineName = Annotated[
    str,
    Matching(r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", "an engine's name: small letters, digits and hyphens"),
]

ModelName = Annotated[
    str,
    Matching(
        r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$",
        "a model's name: small letters, digits, dots, hyphens and underscores",
    ),
]

Sha256 = Annotated[
    str, Matching(r"^[0-9a-fA-F]{64}$", "a SHA-256: 64 hexadecimal digits"), AfterValidator(str.lower)
]
