"""Measures booting: QEMU's start to the gateway, to an engine ready, to the first answered request.

    scripts/bench_boot [SPEC] [--out DIRECTORY] [--runs 3] [--json]
    scripts/bench_boot SPEC --mode uefi --cpus 1 --cpus 2 --memory 1024 --tokens 0

Each run starts from a fresh copy of the disk and is one QEMU alone; the figures are medians of the runs, in
seconds, and the host's load before the first run is told beside them. The answer is a chat of a few tokens
through the `openai` client: minutes for a real model where floating point is emulated, so `--tokens 0` leaves
it out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hal import build
from hal.cache import Cache
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.inputs import GivenBuildroot, gather
from hal.lock.file import LOCK_PATH, load_lock
from hal.machine import boot
from hal.machine.qemu import Deadline, http_probe
from hal.progress import Silent
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, load_spec

MODES = {"direct": None, "uefi": boot.OWN_FIRMWARE}
"""How the kernel is started, and what `--firmware` that means."""

ANSWER_SECONDS = 900
"""A real model's first chat takes minutes where floating point is emulated."""


@dataclass(frozen=True)
class Shape:
    """A way to boot; None for what the spec says. `memory` in bytes."""

    mode: str
    cpus: int | None
    memory: int | None


@dataclass(frozen=True)
class Times:
    """Seconds from QEMU's start; `answered` is None when no question was asked."""

    gateway: float
    ready: float
    answered: float | None


@dataclass(frozen=True)
class Result:
    """The runs of one shape, and the machine that it came to."""

    mode: str
    cpus: int
    memory: int
    runs: tuple[Times, ...]

    def median(self, moment: str) -> float | None:
        """The median of a moment's times."""
        times = [getattr(run, moment) for run in self.runs]
        return None if None in times else round(statistics.median(times), 2)


def measure(loaded: LoadedSpec, directory: Path, tools: Sandbox, shape: Shape, tokens: int) -> Result:
    """One boot of a shape, to its first answer."""
    wishes = boot.Wishes(port=0, firmware=MODES[shape.mode], cpus=shape.cpus, fresh=True)
    plan = boot.prepare(boot.plan(loaded.spec, directory, wishes), tools, fresh=True)
    machine = replace(plan.machine, memory=shape.memory or plan.machine.memory)
    plan = replace(plan, machine=machine)
    answered = None
    with boot.virtual_machine(plan, tools) as vm:
        any_answer = http_probe(plan.port, accepts=lambda status: True)
        gateway = vm.wait(any_answer, Deadline.after(boot.GATEWAY_SECONDS, plan.accelerator), "the gateway")
        ready = vm.wait(
            http_probe(plan.port), Deadline.after(boot.READY_SECONDS, plan.accelerator), "an engine"
        )
        if tokens:
            ask(plan.url, tokens)
            answered = vm.uptime
    return Result(shape.mode, machine.cpus, machine.memory, (Times(gateway, ready, answered),))


def ask(url: str, tokens: int) -> None:
    """A chat of at most so many tokens with the model that the appliance lists first.

    Raises:
        HalError: the answer has no text.
    """
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=ANSWER_SECONDS, max_retries=0)
    try:
        model = client.models.list().data[0].id
        question = "What is the capital of France?"
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=tokens
        )
    except openai.OpenAIError as error:
        raise HalError(f"the appliance did not answer: {error}") from error
    if not answer.choices[0].message.content:
        raise HalError("the appliance's answer has no text")


def table(results: Sequence[Result]) -> str:
    """The medians, one line per shape; behind each the fastest and the slowest run."""
    lines = [f"{'boot':8}{'CPUs':>5}{'memory':>9}{'gateway':>22}{'engine ready':>22}{'first answer':>22}"]
    for result in results:
        cells = []
        for moment in ("gateway", "ready", "answered"):
            median = result.median(moment)
            if median is None:
                cells.append(f"{'-':>22}")
                continue
            times = [getattr(run, moment) for run in result.runs]
            spread = f"({min(times):.1f}-{max(times):.1f})"
            cells.append(f"{median:>9.1f} {spread:>12}")
        lines.append(f"{result.mode:8}{result.cpus:>5}{result.memory >> 20:>7} M{''.join(cells)}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how long an appliance takes to boot and to answer.")
    parser.add_argument("spec", nargs="?", default="starter", help="default: starter")
    parser.add_argument("--out", type=Path, default=Path("build"), help="where `hal build` put it (build)")
    parser.add_argument("--runs", type=int, default=3, help="boots of each shape (3)")
    parser.add_argument("--mode", action="append", choices=list(MODES), help="default: both")
    parser.add_argument("--cpus", action="append", type=int, help="default: the spec's")
    parser.add_argument("--memory", action="append", type=int, help="MiB; default: the spec's")
    parser.add_argument("--tokens", type=int, default=4, help="of the first answer; 0: ask nothing (4)")
    parser.add_argument("--json", action="store_true", help="JSON for programs")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    load = os.getloadavg()[0]
    loaded = load_spec(chosen.spec)
    lock = load_lock(LOCK_PATH)
    fetcher = Fetcher(Cache(), Mirrors.choose((), None, lock.debian.created), offline=True, progress=Silent())
    sets, given = build.package_sets(loaded), GivenBuildroot.from_environment()
    inputs = gather(sets, loaded, lock, fetcher, Silent(), locked=False, buildroot=given)
    directory = build.build(loaded, chosen.out, inputs, Silent()).directory
    tools = build.prepare_tools(inputs, Silent())
    shapes = [
        Shape(mode, cpus, memory << 20 if memory else None)
        for mode in chosen.mode or MODES
        for cpus in chosen.cpus or [None]
        for memory in chosen.memory or [None]
    ]
    results: list[Result] = []
    for shape in shapes:
        runs = [measure(loaded, directory, tools, shape, chosen.tokens) for _ in range(chosen.runs)]
        results.append(replace(runs[0], runs=tuple(run.runs[0] for run in runs)))
    if chosen.json:
        print(json.dumps({"spec": chosen.spec, "load": load, "results": [asdict(r) for r in results]}))
    else:
        accelerator = boot.host_accelerator().summary
        print(f"{chosen.spec}: {accelerator}, {os.cpu_count()} CPUs, load before {load:.1f}; seconds\n")
        print(table(results))


if __name__ == "__main__":
    try:
        main()
    except HalError as error:
        sys.exit("\n".join([f"error: {error.message}", *error.details, error.hint or ""]).rstrip())
