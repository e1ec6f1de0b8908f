"""scripts/bench_provision: the provisioner beside `curl | sha256sum`, one file over loopback."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from report import aligned

from hal.cache import Cache

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASE = "curl | sha256sum"
CHUNK = 8 * 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One transfer: wall and CPU seconds of all processes; most memory, in bytes (None: not looked at)."""

    seconds: float
    cpu: float
    memory: int | None = None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", type=click.IntRange(1), default=1000, show_default=True, help="Of the file, in MB.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs; medians count.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs, on standard output.")
def main(size: int, runs: int, as_json: bool) -> None:
    """Measure the provisioner's transfer and its whole daemon beside curl piped into sha256sum."""
    missing = [name for name in ("curl", "sha256sum") if not shutil.which(name)]
    if missing:
        sys.exit(f"error: {' and '.join(missing)}: not found\nhint: apt install curl coreutils")
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} CPUs, Linux {platform.release()}",
        "load before": ", ".join(f"{value:.1f}" for value in os.getloadavg()),
        "file": f"{size} MB",
    }
    with Cache().temporary("bench") as work:
        results = measured(work, size * 1_000_000, runs)
    if as_json:
        data = {name: [asdict(run) for run in runs] for name, runs in results.items()}
        click.echo(json.dumps({"facts": facts, "runs": data}, indent=1))
    else:
        told = "; ".join(f"{name}: {value}" for name, value in facts.items())
        click.echo(f"{told}\n\n{table(results, size)}")


def measured(work: Path, size: int, runs: int) -> dict[str, list[Run]]:
    """All programs by turns, so that what else the machine does falls on all of them."""
    path = work / "file"
    sha256 = _write(path, size)
    results: dict[str, list[Run]] = {}
    with _server(path) as url:
        programs = _programs(work, url, size, sha256)
        for turn in range(runs):
            for name, run in programs.items():
                results.setdefault(name, []).append(run())
                click.echo(f"{turn + 1}/{runs} {name}: {results[name][-1].seconds:.2f} s", err=True)
    return results


def table(results: dict[str, list[Run]], size: int) -> str:
    """The medians for people; the ratio is that of two runs of a turn, above 1 where curl is slower."""
    rows = []
    for name, runs in results.items():
        seconds = _median(runs, "seconds")
        ratio = statistics.median(b.seconds / r.seconds for b, r in zip(results[BASE], runs, strict=True))
        rows.append(
            [
                name,
                f"{seconds:.2f}",
                f"{size / seconds:.0f}",
                f"{ratio:.2f}",
                f"{_median(runs, 'cpu'):.2f}",
                "-" if runs[0].memory is None else f"{_median(runs, 'memory') / 1e6:.0f}",
            ]
        )
    return aligned(["program", "s", "MB/s", "rate/curl's", "CPU s", "memory MB"], rows)


def _median(runs: list[Run], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


def _programs(work: Path, url: str, size: int, sha256: str) -> dict[str, Callable[[], Run]]:
    part = work / "part"
    fetcher = [sys.executable, str(HERE / "provision/fetcher.py"), url, str(size), sha256, str(part)]

    def pipe(digest: str) -> Callable[[], Run]:
        return lambda: _run(["sh", "-c", f"curl -sf {url} | {digest}"], sha256)

    def transfer() -> Run:
        run = json.loads(_output(fetcher))
        part.unlink()
        return Run(run["seconds"], run["cpu"], run["memory"])

    def daemon() -> Run:
        config = _configuration(work, url, size, sha256)
        script = str(HERE / "provision/daemon.py")
        run = _run([sys.executable, script, "--config", str(config), "run", "--once"], tells=True)
        for folder in ("models", "state", "markers", "run"):
            shutil.rmtree(work / folder)
        return run

    programs = {BASE: pipe("sha256sum")}
    if shutil.which("openssl"):
        programs["curl | openssl sha256"] = pipe("openssl dgst -r -sha256")
    return programs | {"the provisioner's transfer": transfer, "hal-provision run --once": daemon}


def _configuration(work: Path, url: str, size: int, sha256: str) -> Path:
    """What makes a provisioner bring the file, as hal renders it for an appliance."""
    line = f"{sha256} {size} model.gguf\n"
    file = {"name": "model.gguf", "size": size, "sha256": sha256, "source": {"kind": "https", "url": url}}
    model = {
        "name": "model",
        "delivery": "network",
        "id": hashlib.sha256(line.encode()).hexdigest()[:32],
        "size": size,
        "files": [file],
    }
    path = work / "provision.json"
    content = {
        "directory": str(work / "models"),
        "state_directory": str(work / "state"),
        "runtime_directory": str(work / "run"),
        "markers": str(work / "markers"),
        "models": [model],
    }
    path.write_text(json.dumps(content))
    return path


def _run(argv: list[str], expected: str = "", *, tells: bool = False) -> Run:
    """Run a program whose output has `expected` in it; `tells`: its last line is its memory."""
    began, before = time.monotonic(), os.times()
    done = subprocess.run(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=_environment())
    seconds, after = time.monotonic() - began, os.times()
    output = done.stdout.decode()
    if done.returncode or expected not in output:
        sys.exit(f"error: {argv[0]} failed: {output[-500:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(seconds, cpu, int(output.split()[-1]) if tells else None)


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True, env=_environment()).stdout.decode()


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


@contextmanager
def _server(path: Path) -> Iterator[str]:
    argv = [sys.executable, str(HERE / "provision/server.py"), str(path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/file"
    finally:
        process.kill()
        process.wait()


def _write(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while size:
            chunk = os.urandom(min(CHUNK, size))
            file.write(chunk)
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
