"""Zero loss: 32 clients stream and 16 ask shortly while engines change places, and while parts are killed.

Everything is real but the size of the model and `systemctl`: HAProxy, selector, hal-control, llama.cpp twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.services.conftest import wait_for
from tests.services.load import Load, Outcome, Question, Report, ask
from tests.services.pair import FIRST, SECOND, Pair, pair
from tests.services.switches import active, control, healthy
from tests.tiny_model import ANSWER, NAME

pytestmark = pytest.mark.slow

READY = 60.0
"""Seconds for a switch; two CPUs are shared with 48 clients and two engines."""

HELD_UP = 1.5
"""Seconds that requests wait after a reload; the old process lives for three."""

STREAM = Question(NAME, prompt="Name", tokens=48)
"""Outside its one answer the model goes on for as long as it is let."""

SHORT = Question(NAME, messages=[{"role": "user", "content": "Hi"}], answer=ANSWER)
PARALLEL = 8
"""Requests that an engine computes at once; the others wait in it."""


@pytest.fixture
def opened(
    haproxy: Callable[[Path], list[str]], engine_pack: Path, tiny: Path
) -> Callable[..., contextlib.AbstractContextManager[Pair]]:
    """Starts the two engines' appliance: `with opened(exclusive) as stack`."""

    @contextmanager
    def made(exclusive: bool) -> Iterator[Pair]:
        asked = f"{{wait: 60, drain: 20, queue: 512, exclusive: {str(exclusive).lower()}}}"
        with pair(haproxy, engine_pack, tiny, selector=asked) as stack:
            for name in (FIRST, SECOND):
                unit = stack.home / "units" / name
                text = unit.read_text().replace("LLAMACPP_PARALLEL=1", f"LLAMACPP_PARALLEL={PARALLEL}")
                unit.write_text(text.replace("LLAMACPP_THREADS=0", "LLAMACPP_THREADS=1"))
            for name in ("control", "gateway", "selector"):
                stack.start(name)
            wait_for(lambda: control(stack, "status").get("serving"), "an engine serves", READY)
            if not exclusive:
                wait_for(lambda: all(healthy(stack, name) for name in (FIRST, SECOND)), "both are up", READY)
            yield stack

    return made


def switch(stack: Pair, name: str) -> float:
    """Switch and wait until it is done; the seconds that it took."""
    began = time.monotonic()
    assert "error" not in control(stack, "switch", engine=name)
    wait_for(lambda: active(stack) == name, f"{name} serves", READY)
    return time.monotonic() - began


@contextmanager
def load(stack: Pair) -> Iterator[Load]:
    """All clients, once each of them has had an answer."""
    with Load(stack.url, ask(stack.url, STREAM), SHORT) as found:
        wait_for(lambda: found.done > 48, "the clients have begun", READY)
        yield found


def told(report: Report, what: str) -> Report:
    print(f"\n{what}: {report.words()}")
    return report


def go_on(clients: Load, requests: int = 96) -> None:
    """Wait until the clients have had so many more answers: twice as many as there are clients."""
    before = clients.done
    wait_for(lambda: clients.done >= before + requests, "the clients go on", READY)


@pytest.mark.parametrize(("exclusive", "switches"), [(False, 10), (True, 4)], ids=["both up", "exclusive"])
def test_switches_lose_nothing(opened: Any, exclusive: bool, switches: int) -> None:
    with opened(exclusive) as stack:
        first = active(stack)
        names = [SECOND, FIRST] if first == FIRST else [FIRST, SECOND]
        with load(stack) as clients:
            took = []
            for number in range(switches):
                took.append(switch(stack, names[number % 2]))
                go_on(clients)
        report = told(clients.report(), f"{switches} switches, exclusive: {exclusive}")
        print(f"  a switch took {min(took):.2f} to {max(took):.2f} s")
        assert not report.failed
        assert report.count("stream") > 50 and report.count("short") > 50


def test_a_killed_selector_is_not_missed(opened: Any) -> None:
    """Killed in the middle of a switch as well: the next one goes on with it."""
    with opened(False) as stack, load(stack) as clients:
        stack.kill("selector", signal.SIGKILL)
        go_on(clients)
        stack.start("selector")
        wait_for(lambda: active(stack), "the selector is back", READY)
        other = SECOND if active(stack) == FIRST else FIRST
        control(stack, "switch", engine=other)
        stack.kill("selector", signal.SIGKILL)
        stack.start("selector")
        wait_for(lambda: active(stack) == other, "the new selector has ended the switch", READY)
    assert not told(clients.report(), "the selector killed twice").failed


def test_a_reload_of_the_gateway_loses_nothing(opened: Any) -> None:
    took = []
    with opened(False) as stack, load(stack) as clients:
        for _ in range(3):
            before = gateway_workers(stack)
            os.kill(gateway_master(stack), signal.SIGUSR2)
            wait_for(lambda old=before: gateway_workers(stack) - old, "a new worker", 10)
            began = time.monotonic()
            wait_for(lambda: stack.status_of("/health") == 200, "the gateway takes requests", 10)
            took.append(time.monotonic() - began)
            go_on(clients)
    assert not told(clients.report(), "three reloads of the gateway").failed
    print(f"  the new process took requests {min(took):.2f} to {max(took):.2f} s after it was there")
    assert max(took) < HELD_UP, "the selector goes over to it at once, and not when the old one has ended"


def test_a_killed_gateway_costs_its_own_requests_only(opened: Any) -> None:
    with opened(False) as stack, load(stack) as clients:
        began = time.monotonic()
        for pid in (*gateway_workers(stack), gateway_master(stack)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stack.kill("gateway")
        time.sleep(0.1)  # RestartSec of its unit
        stack.start("gateway")
        wait_for(lambda: stack.status_of("/health") == 200, "requests are served again", 5)
        back = time.monotonic() - began
        go_on(clients)
    report = told(clients.report(), f"the gateway killed, back after {back:.2f} s")
    assert back < 2
    lost = [outcome for outcome in report.failed if not during(outcome, began, back)]
    assert not lost, "requests failed that were not open when the gateway died, nor sent while it was away"
    # At most one request of each client was open when it died; what comes next finds nobody until it is back.
    assert len([outcome for outcome in report.failed if outcome.began < began]) <= 48


def during(outcome: Outcome, began: float, seconds: float) -> bool:
    """Whether a request was open, or was sent, while the gateway was away."""
    return outcome.began < began + seconds and outcome.began + outcome.took >= began


def gateway_master(stack: Pair) -> int:
    """HAProxy's master process: the first of its two, seen from here."""
    return min(_gateway(stack))


def gateway_workers(stack: Pair) -> frozenset[int]:
    return frozenset(_gateway(stack) - {gateway_master(stack)})


def _gateway(stack: Pair) -> set[int]:
    found = set()
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdigit():
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"haproxy") and str(stack.home).encode() in b" ".join(words):
                    found.add(int(directory.name))
    return found
