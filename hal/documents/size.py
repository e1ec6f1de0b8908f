"""Sizes in bytes, as people write them: `512M`, `2G`, `4GiB`.

K, M, G and T are powers of 1,024, as QEMU, systemd and lvm read them. `MB` and `GB` are refused, since
half the world reads them as powers of 1,000.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?([KMGTkmgt]([iI][bB])?)?$"
EXPECTED = "must be a size, such as 512M, 2G or 4GiB"


def parse_size(value: object) -> int:
    """A size in bytes from a whole number of bytes or from text with a unit.

    Raises:
        ValueError: `value` is no size; its text says what a size looks like.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{EXPECTED}, not below zero")
        return value
    if not isinstance(value, str) or re.fullmatch(SIZE_PATTERN, value) is None:
        raise ValueError(EXPECTED)
    digits = value.rstrip("KMGTkmgtiIbB")
    unit = UNITS.get(value[len(digits) : len(digits) + 1].upper(), 1)
    whole, _, fraction = digits.partition(".")
    precision: int = 10 ** len(fraction)
    size, rest = divmod(int(whole + fraction) * unit, precision)
    if rest:
        raise ValueError("must be a whole number of bytes")
    return size


def format_size(size: int) -> str:
    """A size for people, in the largest unit that leaves a number of at least 1: `704M`, `1.5G`."""
    for letter, unit in reversed(UNITS.items()):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + letter
    return str(size)


def _validate(value: object) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise PydanticCustomError("size", "{problem}", {"problem": str(error)}) from None


_JSON_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]
}

Size = Annotated[int, BeforeValidator(_validate), WithJsonSchema(_JSON_SCHEMA)]
"""A field of bytes in a pydantic model; a file may give it with a unit."""
