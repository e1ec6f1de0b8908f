"""A JSON object that is read key by key, with the path of each in every complaint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

LARGEST = 2**63 - 1

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and why in one line."""


class Entry:
    """A JSON object of which each key is taken once; what is left at the end is not known."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict):
            raise ConfigError(f"{where or 'it'} must be an object")
        self.data: dict[str, Any] = dict(data)
        self.where = where

    def end(self) -> None:
        """Refuse what nobody has asked for."""
        for key in self.data:
            raise ConfigError(f"the key {self._path(key)} is not known")

    def drop(self, key: str) -> None:
        """Take no notice of a key."""
        self.data.pop(key, None)

    def entry(self, key: str) -> Entry:
        """An object under a key; an empty one where there is none."""
        return Entry(self.data.pop(key, {}), self._path(key))

    def optional(self, key: str, take: Callable[[str], T]) -> T | None:
        """A value, or None where it is null or not there."""
        if self.data.get(key) is None:
            self.data.pop(key, None)
            return None
        return take(key)

    def each(self, key: str, make: Callable[[Entry], T]) -> list[T]:
        """A value out of each object of a list."""
        entries = self._take(key)
        if not isinstance(entries, list):
            raise ConfigError(f"{self._path(key)} must be a list")
        return [make(Entry(entry, f"{self._path(key)}[{place}]")) for place, entry in enumerate(entries)]

    def text(self, key: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        """A text of the pattern's form."""
        value = self._take(key, default)
        return default if value is default and default is not None else self._matching(value, pattern, key)

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """A list of texts; none where there is no such key."""
        values = self._take(key, [])
        if not isinstance(values, list):
            raise ConfigError(f"{self._path(key)} must be a list")
        return tuple(self._matching(value, pattern, key) for value in values)

    def whole(self, key: str, default: int | None = None, *, least: int = 0, most: int = LARGEST) -> int:
        """A whole number."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{self._path(key)} must be a whole number from {least} to {most}")
        return value

    def number(
        self, key: str, default: float | None = None, *, least: float = 0.0, most: float = 1e11
    ) -> float:
        """A number."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f"{self._path(key)} must be a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self._path(key)} must be true or false")
        return value

    def _take(self, key: str, default: object = None) -> Any:
        if key in self.data:
            return self.data.pop(key)
        return self._usual(key, default)

    def _usual(self, key: str, default: Any) -> Any:
        if default is None:
            raise ConfigError(f"the key {self._path(key)} is missing")
        return default

    def _matching(self, value: object, pattern: re.Pattern[str], key: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ConfigError(f"{self._path(key)}: {value!r:.80} is not of the form that is wanted here")
        return value

    def _path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
