"""scripts/bench_build: how long hal's builds take, and mkosi's of a comparable image, in one run."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from hal_side import HalSide
from measure import Build, Timing
from mkosi_side import MkosiSide
from report import Report, Row

import hal
from hal.cache import Cache
from hal.errors import HalError


@dataclass(frozen=True)
class Scenario:
    """A state to build from, and the build of each program that starts there (None: it has no such build)."""

    name: str
    quick: bool
    hal: Build | None
    mkosi: Build | None


STATES = (
    ("nothing, not even tools", False),
    ("nothing but tools", False),
    ("all downloads", False),
    ("one changed setting", True),
    ("no change", True),
)
"""What is there when a build begins, and whether such a build is quick."""


def scenarios(ours: HalSide | None, theirs: MkosiSide | None) -> list[Scenario]:
    """The states, each reached through the ones before."""
    hal_builds: list[Build | None] = [None] * len(STATES)
    if ours:
        hal_builds = [
            ours.cold,
            ours.tools_at_hand,
            ours.downloads_at_hand,
            ours.configuration_changed,
            ours.unchanged,
        ]
    mkosi_builds: list[Build | None] = [None] * len(STATES)
    if theirs:
        mkosi_builds = [None, theirs.cold, theirs.downloads_at_hand, theirs.configuration_changed, None]
    return [
        Scenario(name, quick, of_hal, of_mkosi)
        for (name, quick), of_hal, of_mkosi in zip(STATES, hal_builds, mkosi_builds, strict=True)
    ]


def measure(scenario: Scenario, runs: int) -> Row:
    """Run the builds of both programs by turns, so that what else the machine does falls on both."""
    timings: dict[str, list[Timing]] = {"hal": [], "mkosi": []}
    for _ in range(runs):
        for program, build in (("hal", scenario.hal), ("mkosi", scenario.mkosi)):
            if build is not None:
                timing = build()
                timings[program].append(timing)
                click.echo(f"{scenario.name}: {program} {timing.seconds:.1f} s", err=True)
    return Row(scenario.name, tuple(timings["hal"]), tuple(timings["mkosi"]))


def facts(theirs: MkosiSide | None) -> dict[str, str]:
    """When, where and with what the numbers came about."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = {"hal": hal.__version__, **({"mkosi": theirs.version} if theirs else {})}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPUs": str(len(os.sched_getaffinity(0))),
        "machine": f"{platform.machine()}, Linux {platform.release()}",
        "load before": load,
        **versions,
    }


@contextmanager
def mkosi_side(work: Path, cache: Cache) -> Iterator[MkosiSide]:
    """mkosi, ready to build in `work`; what it made is removed at the end."""
    side = MkosiSide(work, cache)
    try:
        yield side
    finally:
        side.clean()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", type=click.Choice(["hal", "mkosi"]), help="Measure one of the two.")
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Runs of each quick build; the median counts.",
)
@click.option(
    "--cold-runs", type=click.IntRange(1), default=1, show_default=True, help="Runs of each other build."
)
@click.option("--json", "as_json", is_flag=True, help="JSON for programs, on standard output.")
def main(only: str | None, runs: int, cold_runs: int, as_json: bool) -> None:
    """Measure builds of hal and of mkosi side by side.

    Works in a directory of its own in $HAL_CACHE and removes it; a whole run takes several minutes and
    downloads about a gigabyte.
    """
    try:
        result = bench(only, runs, cold_runs)
    except HalError as error:
        for line in (
            f"error: {error.message}",
            *error.details,
            *([f"hint: {error.hint}"] if error.hint else []),
        ):
            click.echo(line, err=True)
        sys.exit(error.exit_code)
    click.echo(json.dumps(result.json(), indent=1) if as_json else result.table())


def bench(only: str | None, runs: int, cold_runs: int) -> Report:
    """Measure everything.

    Raises:
        HalError: a build failed, or did something else than what was to be measured.
    """
    cache = Cache()
    with ExitStack() as stack:
        work = stack.enter_context(cache.temporary("bench"))
        theirs = stack.enter_context(mkosi_side(work / "mkosi", cache)) if only != "hal" else None
        ours = HalSide(work / "hal") if only != "mkosi" else None
        described = facts(theirs)
        rows = [
            measure(scenario, runs if scenario.quick else cold_runs)
            for scenario in scenarios(ours, theirs)
            if scenario.hal or scenario.mkosi
        ]
        return Report(described, tuple(rows), ours.sizes() if ours else {}, theirs.sizes() if theirs else {})


if __name__ == "__main__":
    main()
