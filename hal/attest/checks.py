"""What verification is made of: checks that hold or do not, each with its reason in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `ok` is None for what could not be looked at: no success either."""

    name: str
    ok: bool | None
    words: str


class UnverifiableError(Exception):
    """The check `name` failed in such a way that those that build on it cannot be made."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words)
        self.name = name
        self.words = words


class MalformedError(ValueError):
    """Bytes that do not have the form of the structure they should be; the text says what and where."""


def equal(name: str, found: bytes, wanted: bytes, good: str, bad: str) -> Check:
    """A check that two values are the same; `bad` is followed by both."""
    if found == wanted:
        return Check(name, True, good)
    return Check(name, False, f"{bad}: {short(found)}, expected {short(wanted)}")


def short(value: bytes) -> str:
    """The beginning of a value in hexadecimal, enough to tell it from others."""
    text = value.hex()
    return text if len(text) <= 24 else f"{text[:24]}…"
