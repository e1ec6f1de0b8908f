"""What the commands of all services share: how they end, and tables and time spans for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence


class Failure(Exception):  # noqa: N818 (what a command ends with)
    """Why a command failed, in a line, and its exit status."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def ended(program: str, command: Callable[[], int]) -> int:
    """Carry out a command of `program`; its exit status, and why it failed on standard error."""
    try:
        return command()
    except Failure as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:  # `hal-selector status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the last one as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def span(seconds: float) -> str:
    """A time span in its two largest units."""
    left = max(0, int(seconds))
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit} {rest} {name}" if rest else f"{left // size} {unit}"
    return f"{left} s"
