"""One proxy at a time, alone on its CPU: started, warmed up, measured, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hal.errors import HalError

from .generator import PROXY_CPU, Generator, Requests, Streams, request
from .hal_gateway import TOKEN, start_selector
from .peers import Peer
from .usage import Usage, children, usage

BATCH = 10_000
"""Requests that CPU and memory are told for."""

CONNECTIONS = 64
FEW = (1, 32)
"""Connections for added latency."""

GAP = 40_000
"""Microseconds that 99 of 100 gaps between two events of a stream stay below: twice the upstream's."""

MOST_STREAMS = 3200
"""Where the search ends; the generator and its upstream can do no more on one CPU."""

FINE = 1.1
"""The search ends when the numbers that held and did not hold are this close."""

TRIES = 2
"""A number of streams has failed when it failed so often: something else may have taken the CPU."""


@dataclass(frozen=True)
class Run:
    """What one run of one proxy gave; times in microseconds, memory in bytes.

    `cpu` and `growth` are for 10,000 requests with 64 connections. `streams` is None where they were not
    looked for; `selector` where there is none.
    """

    rate: float
    cpu: float
    memory: int
    growth: float
    latency: dict[int, tuple[float, float]]
    streams: int | None
    busy: float
    selector: Usage | None


@contextmanager
def running(
    peer: Peer, port: int, work: Path, selector: list[str] | None
) -> Iterator[tuple[int, int | None]]:
    """The process numbers of a proxy and its selector while they run; all CPUs but one are closed to them.

    Raises:
        HalError: it does not answer.
    """
    log = work / f"{peer.key}.log"
    env = peer.env or {"PATH": os.environ["PATH"], "HOME": str(work)}
    argv = ["taskset", "-c", str(PROXY_CPU), *peer.argv]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    decider = None
    try:
        if selector:
            pinned = ["taskset", "-c", str(PROXY_CPU), *selector]
            decider = start_selector(pinned, work / "selector.log")
        _wait(peer, port, process, [log, *([work / "selector.log"] if selector else [])])
        yield process.pid, decider.pid if decider else None
    finally:
        if decider:
            decider.kill()
            decider.wait()
        _end(process)


def _wait(peer: Peer, port: int, process: subprocess.Popen[bytes], logs: list[Path]) -> None:
    end = time.monotonic() + peer.start_seconds
    data = request(port, TOKEN).partition(b"\r\n\r\n")[2]
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    reason = ""
    while time.monotonic() < end and process.poll() is None:
        try:
            with opener.open(asked, timeout=peer.start_seconds) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError) as error:
            reason = str(error)
        time.sleep(0.1)
    tail = [line for log in logs for line in log.read_text(errors="replace").splitlines()[-6:]]
    raise HalError(f"{peer.name} does not answer: {reason}", details=tuple(f"  | {line}" for line in tail))


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, for all below it as well: nothing of it may run while the next is measured."""
    for pid in reversed(children(process.pid)):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def measure(
    peer: Peer,
    port: int,
    generator: Generator,
    work: Path,
    seconds: float,
    selector: list[str] | None,
    streams: bool,
) -> Run:
    """Everything about one proxy.

    Raises:
        HalError: it does not start, or requests fail.
    """
    with running(peer, port, work, selector) as (pid, decider):
        asked = request(port, TOKEN)
        generator.requests(port, CONNECTIONS, 0.5, asked)
        before = usage(children(pid))
        scrape = threading.Timer(seconds / 2, _scrape, (peer, port))
        scrape.start()
        many, total = generator.counted(port, CONNECTIONS, seconds, asked)
        scrape.join()
        after = usage(children(pid))
        few = {count: generator.requests(port, count, seconds, asked) for count in FEW}
        held = most_streams(peer, port, generator) if streams else None
        return Run(
            rate=many.completed / many.seconds,
            cpu=(after.cpu - before.cpu) / total * BATCH,
            memory=after.memory,
            growth=(after.memory - before.memory) / total * BATCH,
            latency={count: (found.p50, found.p99) for count, found in few.items()},
            streams=held,
            busy=many.busy,
            selector=usage(children(decider)) if decider else None,
        )


def _scrape(peer: Peer, port: int) -> None:
    """Ask for the proxy's metrics, if it has any; what comes is of no interest here."""
    if peer.metrics:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{peer.metrics}", headers=headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=30) as answer:
            answer.read()


def direct(generator: Generator, seconds: float) -> dict[int, Requests]:
    """Without any proxy, by number of connections."""
    asked = request(generator.port, TOKEN)
    return {count: generator.requests(generator.port, count, seconds, asked) for count in (*FEW, CONNECTIONS)}


def most_streams(peer: Peer, port: int, generator: Generator) -> int:
    """The number of streams that a proxy holds: doubled until it does not, then halved towards it."""
    good, bad, count = 0, 0, peer.first_streams
    while True:
        if _held(port, count, generator):
            good = count
            if count >= MOST_STREAMS:
                return good
        else:
            bad = count
        if bad and bad <= max(good * FINE, good + 2):
            return good
        if bad == 0:
            count = min(good * 2, MOST_STREAMS)
        elif good == 0:
            count = bad // 2
        else:
            count = (good + bad) // 2
        if count == 0:
            return 0


STREAM_SECONDS = 3.0


def _held(port: int, count: int, generator: Generator) -> bool:
    for _ in range(TRIES):
        # Enough events for opening them all and for looking at them; what is left is cut off.
        events = int((count / 1000 + 30 + STREAM_SECONDS) * 50)
        found: Streams = generator.streams(port, count, STREAM_SECONDS, request(port, TOKEN, events=events))
        if found.complete and found.p99 < GAP:
            return True
        time.sleep(0.5)
    return False
