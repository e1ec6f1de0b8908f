"""Reading binary structures: every length is checked before it is used."""

from __future__ import annotations

from typing import Literal

from hal.attest.checks import MalformedError


class Reader:
    """Takes integers and bytes from the front of `data`; `what` names the structure in errors."""

    def __init__(self, data: bytes, what: str, order: Literal["big", "little"]) -> None:
        self._data = data
        self._what = what
        self._order = order
        self.offset = 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self.offset

    def take(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            MalformedError: there are not as many.
        """
        if size > self.left:
            raise MalformedError(
                f"the {self._what} ends too early: {size} bytes asked at {self.offset}, {self.left} there"
            )
        self.offset += size
        return self._data[self.offset - size : self.offset]

    def integer(self, size: int) -> int:
        """The next unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), self._order)

    def sized(self, size: int = 2) -> bytes:
        """Bytes after their length, an integer of `size` bytes (a TPM2B with the default)."""
        return self.take(self.integer(size))

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise MalformedError(f"{self.left} bytes follow the {self._what}")
