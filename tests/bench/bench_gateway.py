"""scripts/bench_gateway: hal's gateway beside other proxies, in one run."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
from gateway import hal_gateway, measuring, programs
from gateway.generator import Generator, Requests
from gateway.measuring import Run
from gateway.peers import Peer, peers
from gateway.report import Report, summarise, without_proxy

from hal.errors import HalError

ALL = ("hal", "haproxy", "nginx", "caddy", "go", "go-256", "vllm-router", "litellm")


def free_port() -> int:
    """A port that nobody listens on; below those that the kernel gives to connections."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given and port - 1 not in _given:
            _given.add(port)
            return port
    raise HalError("no port is free")


_given: set[int] = set()


def facts(found: programs.Programs) -> dict[str, str]:
    """When, where and with what the numbers came about."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_cpu()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "load before": load,
        **found.versions,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(ALL), help="Measure these; may be repeated.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs; medians count.")
@click.option("--seconds", type=click.FloatRange(0.2), default=4.0, show_default=True, help="Of each loop.")
@click.option("--quick", is_flag=True, help="One short run, without looking for the number of streams.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs, on standard output.")
def main(only: tuple[str, ...], runs: int, seconds: float, quick: bool, as_json: bool) -> None:
    """Measure hal's gateway beside bare HAProxy, nginx, Caddy, a Go proxy, vllm-router and LiteLLM.

    CPU 0 is for the proxy alone and CPU 1 for generator and upstream, so nothing else should run meanwhile.
    """
    try:
        result = bench(only or ALL, 1 if quick else runs, 1.0 if quick else seconds, not quick)
    except HalError as error:
        lines = [f"error: {error.message}", *error.details, *([f"hint: {error.hint}"] if error.hint else [])]
        sys.exit("\n".join(lines))
    click.echo(json.dumps(result.json(), indent=1) if as_json else result.table())


def bench(wanted: tuple[str, ...], runs: int, seconds: float, streams: bool) -> Report:
    """Measure everything, the proxies by turns, so that what else the machine does falls on all of them.

    Raises:
        HalError: hal's own gateway cannot be measured.
    """
    if (os.cpu_count() or 1) < 2:
        raise HalError("two CPUs are needed: one for the proxy, one for what asks and answers")
    # Not in the cache: the path of a unix socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hal-bench-") as temporary:
        work = Path(temporary)
        tell = _told(sys.stderr.isatty())
        found = programs.gather(work, lambda name: name in wanted, tell)
        described = facts(found)
        generator = Generator(found.load, free_port(), work)
        try:
            return _measured(wanted, runs, seconds, streams, found, described, generator, work, tell)
        finally:
            generator.close()


def _told(terminal: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=True)


def _measured(
    wanted: tuple[str, ...],
    runs: int,
    seconds: float,
    streams: bool,
    found: programs.Programs,
    described: dict[str, str],
    generator: Generator,
    work: Path,
    tell: Callable[[str], None],
) -> Report:
    compared: dict[int, Peer] = {}
    missing = {name: why for name, why in found.missing.items() if name in wanted}
    selectors: dict[str, list[str]] = {}
    if "hal" in wanted:
        port, home = free_port(), work / "hal"
        home.mkdir()
        ours, selector = hal_gateway.gateway(found.tools, port, generator.port, free_port(), home)
        compared[port] = ours
        selectors["hal"] = selector
    others = peers(found, free_port, generator.port, work)
    compared |= {port: peer for port, peer in others.items() if peer.key in wanted}
    results: dict[int, list[Run]] = {port: [] for port in compared}
    direct: dict[int, list[Requests]] = {}
    for turn in range(runs):
        for count, one in measuring.direct(generator, seconds).items():
            direct.setdefault(count, []).append(one)
        for port, peer in compared.items():
            if peer.name in missing:
                continue
            try:
                # The search takes minutes and ends at a step: once is enough.
                look = streams and turn == 0
                run = measuring.measure(peer, port, generator, work, seconds, selectors.get(peer.key), look)
            except HalError as error:
                if peer.key == "hal":
                    raise
                missing[peer.name] = "; ".join(
                    [error.message, *(line.strip() for line in error.details[-1:])]
                )
                continue
            results[port].append(run)
            held = "" if run.streams is None else f", {run.streams} streams"
            tell(f"{turn + 1}/{runs} {peer.name}: {run.rate:,.0f} requests/s, {run.cpu:.3f} s of CPU{held}")
    summaries = tuple(
        summarise(compared[port].key, compared[port].name, found_runs, direct)
        for port, found_runs in results.items()
        if found_runs
    )
    return Report(described, summaries, without_proxy(direct), missing, _notes(summaries, streams))


BUSY = 0.95


def _notes(summaries: tuple[object, ...], streams: bool) -> tuple[str, ...]:
    """What a reader has to know to judge the figures."""
    found = []
    for summary in summaries:
        if getattr(summary, "busy", 0) > BUSY:
            name = getattr(summary, "name", "")
            found.append(f"{name}: the generator's CPU was full, so it may do more than this.")
        if (getattr(summary, "streams", None) or 0) >= measuring.MOST_STREAMS:
            found.append(
                f"{getattr(summary, 'name', '')}: the search for streams ends at {measuring.MOST_STREAMS:,}."
            )
    return tuple(found)


if __name__ == "__main__":
    main()
