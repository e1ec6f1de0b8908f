"""What was measured, as values, as a table for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from measure import Timing, median

from hal.documents.size import format_size


@dataclass(frozen=True)
class Row:
    """One state to build from, and all runs of each program from there (none: it has no such build)."""

    name: str
    hal: tuple[Timing, ...]
    mkosi: tuple[Timing, ...]


@dataclass(frozen=True)
class Report:
    """A whole run: when, where, with what; the times; the sizes in bytes by artefact."""

    facts: Mapping[str, str]
    rows: tuple[Row, ...]
    hal_sizes: Mapping[str, int]
    mkosi_sizes: Mapping[str, int]

    def json(self) -> dict[str, Any]:
        """The report for programs: seconds, bytes, ratios hal/mkosi; null where there is nothing."""
        return {
            "facts": dict(self.facts),
            "builds": [
                {
                    "name": row.name,
                    "hal": _summary(row.hal),
                    "mkosi": _summary(row.mkosi),
                    "ratio": ratio(_seconds(row.hal), _seconds(row.mkosi)),
                }
                for row in self.rows
            ],
            "sizes": [
                {"name": name, "hal": ours, "mkosi": theirs, "ratio": ratio(ours, theirs)}
                for name, ours, theirs in self._sizes()
            ],
        }

    def table(self) -> str:
        """The report for people, as Markdown."""
        builds = [
            [
                row.name,
                _number(_seconds(row.hal)),
                _number(_seconds(row.mkosi)),
                _number(ratio(_seconds(row.hal), _seconds(row.mkosi)), 2),
                " + ".join(str(len(runs)) for runs in (row.hal, row.mkosi) if runs),
            ]
            for row in self.rows
        ]
        sizes = [
            [name, _size(ours), _size(theirs), _number(ratio(ours, theirs), 2)]
            for name, ours, theirs in self._sizes()
        ]
        head = ["build from", "hal s", "mkosi s", "hal/mkosi", "runs"]
        parts = [
            "; ".join(f"{name}: {value}" for name, value in self.facts.items()),
            aligned(head, builds),
            aligned(["size", "hal", "mkosi", "hal/mkosi"], sizes),
        ]
        return "\n\n".join(parts)

    def _sizes(self) -> list[tuple[str, int | None, int | None]]:
        names = dict.fromkeys([*self.hal_sizes, *self.mkosi_sizes])
        return [(name, self.hal_sizes.get(name), self.mkosi_sizes.get(name)) for name in names]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """hal's value by mkosi's: below 1 where hal is quicker or smaller."""
    return ours / theirs if ours is not None and theirs else None


def _seconds(runs: Sequence[Timing]) -> float | None:
    return median(runs).seconds if runs else None


def _summary(runs: Sequence[Timing]) -> dict[str, Any] | None:
    return {**asdict(median(runs)), "runs": [asdict(run) for run in runs]} if runs else None


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _size(value: int | None) -> str:
    return "-" if value is None else format_size(value)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads well as it is: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return (
            "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"
        )

    first, *rest = widths
    rule = "|" + "|".join(["-" * (first + 2), *("-" * (width + 1) + ":" for width in rest)]) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])
