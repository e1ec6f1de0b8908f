"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .generator import Requests
from .measuring import CONNECTIONS, FEW, Run

MB = 1e6

OURS = "hal"

ENOUGH = 3
"""Runs from which on the best one is told beside the medians."""


@dataclass(frozen=True)
class Summary:
    """The medians of one proxy's runs; added latency in milliseconds by connections, memory in bytes.

    `best_rate` and `best_cpu` are those of the best run: a virtual machine may have two speeds of its kernel
    and turn from one to the other between two runs. The table's ratios are those of medians; goals are judged
    by the best runs, where both were at the faster one.
    """

    key: str
    name: str
    rate: float
    best_rate: float
    cpu: float
    best_cpu: float
    memory: int
    growth: float
    added: Mapping[int, tuple[float, float]]
    streams: int | None
    busy: float
    selector_memory: int | None
    selector_cpu: float | None
    runs: int


@dataclass(frozen=True)
class Report:
    """A whole run: when, where, with what; the proxies; those that are missing, with the reason."""

    facts: Mapping[str, str]
    summaries: tuple[Summary, ...]
    direct: Mapping[int, tuple[float, float, float]]
    """Without a proxy, by connections: requests/s, p50 and p99 in milliseconds."""

    missing: Mapping[str, str]
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The report for programs."""
        ours = self._ours()
        return {
            "facts": dict(self.facts),
            "direct": [
                {"connections": count, "requests_per_second": rate, "p50_ms": p50, "p99_ms": p99}
                for count, (rate, p50, p99) in self.direct.items()
            ],
            "proxies": [
                {
                    **asdict(summary),
                    "added": [
                        {"connections": count, "p50_ms": p50, "p99_ms": p99}
                        for count, (p50, p99) in summary.added.items()
                    ],
                    "hal_rate_ratio": ours and ours.rate / summary.rate,
                    "hal_cpu_ratio": ours and ours.cpu / summary.cpu,
                }
                for summary in self.summaries
            ],
            "goals": [{"goal": goal, "found": found, "met": met} for goal, found, met in self.goals()],
            "missing": dict(self.missing),
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """The report for people, as Markdown."""
        from report import aligned

        ours = self._ours()
        head = ["proxy", f"req/s at {CONNECTIONS}", "hal by it", "CPU s per 10,000", "hal by it"]
        head += [f"{which} +ms at {count}" for count in FEW for which in ("p50", "p99")]
        head += ["memory MB", "kB more per 10,000", "streams"]
        if self._runs() >= ENOUGH:
            head[1], head[3] = (f"{title}: median (best)" for title in (head[1], head[3]))
        rows = [self._row(summary, ours) for summary in self.summaries]
        rows += [[name, *["-"] * (len(head) - 1)] for name in self.missing]
        parts = ["; ".join(f"{name}: {value}" for name, value in self.facts.items()), aligned(head, rows)]
        without = ", ".join(
            f"{count} connections {rate:,.0f} requests/s, p50 {p50:.3f} ms, p99 {p99:.3f} ms"
            for count, (rate, p50, p99) in self.direct.items()
        )
        parts.append(f"Without a proxy: {without}.")
        if ours and ours.selector_memory is not None:
            words = f"{ours.selector_memory / MB:.1f} MB, {ours.selector_cpu:.1f} s of CPU in the whole run"
            parts.append(f"The selector beside hal's gateway: {words}.")
        if self.missing:
            parts.append("\n".join(f"Not available: {name}: {why}" for name, why in self.missing.items()))
        if goals := self.goals():
            judged = [[goal, found, "yes" if met else "NO"] for goal, found, met in goals]
            parts.append(aligned(["goal", "found", "met"], judged))
        parts += self.notes
        return "\n\n".join(parts)

    def goals(self) -> list[tuple[str, str, bool]]:
        """What hal's gateway is to reach, what was found, and whether that is it.

        Rates and CPU are compared by the best run of each: what disturbs a run only ever makes it slower.
        """
        ours = self._ours()
        if ours is None:
            return []
        others = {summary.key: summary for summary in self.summaries}
        p99 = ours.added[1][1]
        found = [
            ("memory of the gateway below 40 MB", f"{ours.memory / MB:.1f} MB", ours.memory < 40 * MB),
            ("added p99 at 1 connection below 0.2 ms", f"{p99:.3f} ms", p99 < 0.2),
        ]
        if ours.selector_memory is not None:
            size = ours.selector_memory
            found.append(("memory of the selector below 40 MB", f"{size / MB:.1f} MB", size < 40 * MB))
        if ours.streams is not None:
            found.append(("1,600 streams on one core", f"{ours.streams:,}", ours.streams >= 1600))
        if go := others.get("go"):
            times, share = ours.best_rate / go.best_rate, ours.best_cpu / go.best_cpu
            found.append(("6 times the requests/s of the Go proxy", f"{times:.1f}", times >= 6))
            found.append(("a fifth of its CPU per request", f"{share:.2f}", share <= 0.2))
        if bare := others.get("haproxy"):
            share = ours.best_rate / bare.best_rate
            found.append(("within 20 % of a bare HAProxy's requests/s", f"{share:.0%}", share >= 0.8))
        return found

    def _ours(self) -> Summary | None:
        return next((summary for summary in self.summaries if summary.key == OURS), None)

    def _runs(self) -> int:
        return max((summary.runs for summary in self.summaries), default=0)

    def _row(self, summary: Summary, ours: Summary | None) -> list[str]:
        added = [f"{value:.3f}" for count in FEW for value in summary.added[count]]
        held = "-" if summary.streams is None else f"{summary.streams:,}"
        rate, cpu = f"{summary.rate:,.0f}", f"{summary.cpu:.3f}"
        if self._runs() >= ENOUGH:
            rate, cpu = f"{rate} ({summary.best_rate:,.0f})", f"{cpu} ({summary.best_cpu:.3f})"
        return [
            summary.name,
            rate,
            f"{ours.rate / summary.rate:.2f}" if ours else "-",
            cpu,
            f"{ours.cpu / summary.cpu:.2f}" if ours else "-",
            *added,
            f"{summary.memory / MB:.1f}",
            f"{summary.growth / 1000:.0f}",
            held,
        ]


def summarise(key: str, name: str, runs: Sequence[Run], direct: Mapping[int, Sequence[Requests]]) -> Summary:
    """The medians of a proxy's runs, and what they add to the medians of no proxy."""
    median = statistics.median
    added = {}
    for count in FEW:
        p50 = median(run.latency[count][0] for run in runs) - median(found.p50 for found in direct[count])
        p99 = median(run.latency[count][1] for run in runs) - median(found.p99 for found in direct[count])
        added[count] = (p50 / 1000, p99 / 1000)
    held = [run.streams for run in runs if run.streams is not None]
    beside = [run.selector for run in runs if run.selector is not None]
    return Summary(
        key=key,
        name=name,
        rate=median(run.rate for run in runs),
        best_rate=max(run.rate for run in runs),
        cpu=median(run.cpu for run in runs),
        best_cpu=min(run.cpu for run in runs),
        memory=round(median(run.memory for run in runs)),
        growth=median(run.growth for run in runs),
        added=added,
        streams=round(median(held)) if held else None,
        busy=median(run.busy for run in runs),
        selector_memory=round(median(one.memory for one in beside)) if beside else None,
        selector_cpu=median(one.cpu for one in beside) if beside else None,
        runs=len(runs),
    )


def without_proxy(direct: Mapping[int, Sequence[Requests]]) -> dict[int, tuple[float, float, float]]:
    """The medians without a proxy."""
    median = statistics.median
    return {
        count: (
            median(found.completed / found.seconds for found in runs),
            median(found.p50 for found in runs) / 1000,
            median(found.p99 for found in runs) / 1000,
        )
        for count, runs in direct.items()
    }
