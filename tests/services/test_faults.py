"""Faults, and what a real client sees of each: which error, after how long. `pytest -s` shows the figures.

Endpoints elsewhere (resets, certificates that do not verify) are in test_gateway_remotes.py.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.services.conftest import wait_for
from tests.services.pair import FIRST, SECOND, Pair, pair
from tests.services.switches import active, control, healthy
from tests.tiny_model import ANSWER, NAME

pytestmark = pytest.mark.slow

READY = 60.0
HELLO: Any = [{"role": "user", "content": "Hi"}]
AT_ONCE = 2.0
"""Seconds for what a client has to see at once; the machine has two CPUs for all of this."""

LIAR = """\
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def do_GET(self):
        names = [{"id": n, "object": "model"} for n in sys.argv[2].split(",") if n]
        data = json.dumps({"object": "list", "data": names}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if sys.argv[3] == "half":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b'9\\r\\ndata: {}\\n\\r\\n')
        self.close_connection = True
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""An engine that says that it is well and then never answers a question."""


@pytest.fixture
def stack(haproxy: Any, engine_pack: Path, tiny: Path) -> Iterator[Pair]:
    """Two real engines, the first one serving, the other one ready."""
    with opened(haproxy, engine_pack, tiny) as found:
        yield found


@contextmanager
def opened(
    haproxy: Any, engine_pack: Path, tiny: Path, unit: str = "", selector: str = "{wait: 30, drain: 3}"
) -> Iterator[Pair]:
    """The same; `unit` runs in the first engine's place, where `PORT` is its port."""
    with pair(haproxy, engine_pack, tiny, selector=selector) as found:
        for name in (FIRST, SECOND):  # room for answers that take a while
            own = found.home / "units" / name
            own.write_text(own.read_text().replace("CONTEXT_LENGTH=512", "CONTEXT_LENGTH=2048"))
        if unit:
            (found.home / "units" / FIRST).write_text(f"exec {unit.replace('PORT', port_of(found, FIRST))}\n")
        for name in ("control", "gateway", "selector"):
            found.start(name)
        wait_for(lambda: healthy(found, SECOND), "the second engine is up", READY)
        if not unit:
            wait_for(lambda: healthy(found, FIRST), "the first engine is up", READY)
            control(found, "switch", engine=FIRST)
            wait_for(lambda: active(found) == FIRST, "the first engine serves", READY)
        yield found


def port_of(stack: Pair, name: str) -> str:
    lines = stack.files[f"/etc/hal/engines/{name}.env"].content.splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("LLAMACPP_PORT="))


def liar(names: str, how: str) -> str:
    return shlex.join([sys.executable, "-c", LIAR, "PORT", names, how])


def client(stack: Pair, timeout: float = 60) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=timeout)


def chat(stack: Pair) -> str | None:
    answer = client(stack).chat.completions.create(model=NAME, messages=HELLO)
    return answer.choices[0].message.content


def pid_of(stack: Pair, name: str) -> int:
    return int((stack.home / "cgroup" / name / "pid").read_text())


def told(what: str, error: BaseException | None, seconds: float, more: str = "") -> None:
    cause = f" from {type(error.__cause__).__name__}" if error is not None and error.__cause__ else ""
    seen = f"{type(error).__name__}{cause}: {str(error)[:90]}" if error is not None else "no error"
    print(f"\n{what}: the client saw {seen} after {seconds:.2f} s{'; ' + more if more else ''}")


@contextmanager
def slowed(pid: int) -> Iterator[None]:
    """Let a process run a tenth of the time: the tiny model's answer is through before a client reads any."""
    done = threading.Event()

    def pulse() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not done.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.018)
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.002)

    thread = threading.Thread(target=pulse, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_an_engine_killed_in_the_middle_of_a_stream(stack: Pair) -> None:
    """The client gets an error at once, never a finished answer; the other engine answers the next one."""
    pid, killed, reasons = pid_of(stack, FIRST), 0.0, []
    with pytest.raises(openai.APIError) as seen, slowed(pid):
        asked = client(stack).completions
        for event in asked.create(model=NAME, prompt="Name", max_tokens=1900, stream=True):
            reasons += [choice.finish_reason for choice in event.choices if choice.finish_reason]
            if not killed:
                os.kill(pid, signal.SIGKILL)
                killed = time.monotonic()
    after = time.monotonic() - killed
    assert killed, "the stream ended before its engine was killed"
    began = time.monotonic()
    assert chat(stack) == ANSWER
    told("killed in mid-stream", seen.value, after, f"the next answer took {time.monotonic() - began:.2f} s")
    assert not reasons and after < AT_ONCE
    wait_for(lambda: active(stack) == SECOND, "the other engine serves", READY)


def test_what_has_not_reached_a_dead_engine_is_answered_by_another(stack: Pair) -> None:
    os.kill(pid_of(stack, FIRST), signal.SIGKILL)
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: chat(stack), range(16)))
    took = time.monotonic() - began
    told("16 requests after the engine's death", None, took, f"fail-over to {active(stack)}")
    assert answers == [ANSWER] * 16
    assert active(stack) == SECOND


def test_a_request_in_a_dying_engine_is_not_sent_again(stack: Pair) -> None:
    """What may have killed one engine must not reach the next."""
    with ThreadPoolExecutor(1) as pool, slowed(pid_of(stack, FIRST)):
        asked = pool.submit(
            lambda: client(stack).completions.create(model=NAME, prompt="Name", max_tokens=100_000)
        )
        # llama.cpp computes until its context is full: long enough to be hit.
        wait_for(lambda: current(stack, FIRST) > 0 or asked.done(), "the request is in the engine")
        os.kill(pid_of(stack, FIRST), signal.SIGKILL)
        killed = time.monotonic()
        error = asked.exception(60)
    after = time.monotonic() - killed
    if error is None:
        pytest.skip("the answer was there before the engine could be killed")
    told("killed while it computed", error, after)
    assert isinstance(error, openai.InternalServerError) and error.status_code == 502
    assert error.code == "engine_failed" and after < AT_ONCE
    assert requests_of(stack, SECOND) == 0


def test_a_hung_engine(stack: Pair) -> None:
    """It accepts and never answers: the selector gives it up, and cuts what is left in it after the drain."""
    os.kill(pid_of(stack, FIRST), signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(openai.APIError) as seen:
            chat(stack)
        after = time.monotonic() - began
        again = time.monotonic()
        assert chat(stack) == ANSWER
        told("hung", seen.value, after, f"the next answer took {time.monotonic() - again:.2f} s")
        assert active(stack) == SECOND
        assert "no answer within" in str(control(stack, "explain"))
        # Three probes of 5 s, pauses of 2 s, and a drain of 3 s.
        assert after < 35
    finally:
        os.kill(pid_of(stack, FIRST), signal.SIGCONT)


@pytest.mark.parametrize("how", ["never", "half"])
def test_an_engine_that_lies_about_its_health(haproxy: Any, engine_pack: Path, tiny: Path, how: str) -> None:
    """Each answer is an error of its own at once; a switch, which a person asks for, ends it."""
    with opened(haproxy, engine_pack, tiny, liar(NAME, how)) as stack:
        control(stack, "switch", engine=FIRST)
        wait_for(lambda: active(stack) == FIRST, "the liar serves", READY)
        began = time.monotonic()
        with pytest.raises(openai.APIError) as seen:
            if how == "half":
                for _ in client(stack).chat.completions.create(model=NAME, messages=HELLO, stream=True):
                    pass
            else:
                chat(stack)
        after = time.monotonic() - began
        assert after < AT_ONCE
        if how == "never":
            assert isinstance(seen.value, openai.InternalServerError) and seen.value.code == "engine_failed"
        control(stack, "switch", engine=SECOND)
        wait_for(lambda: active(stack) == SECOND, "the honest one serves", READY)
        assert chat(stack) == ANSWER
        told(f"lies about its health ({how})", seen.value, after)


def test_an_engine_whose_model_is_missing(haproxy: Any, engine_pack: Path, tiny: Path) -> None:
    """It never gets requests, and its status says why; a switch to it is refused and nothing is lost."""
    with opened(haproxy, engine_pack, tiny, liar("another", "never")) as stack:
        wait_for(lambda: active(stack) == SECOND, "the other engine serves", READY)
        assert chat(stack) == ANSWER
        wait_for(lambda: "tiny is not listed" in str(control(stack, "explain")), "the reason is told")
        began = time.monotonic()
        control(stack, "switch", engine=FIRST)
        assert chat(stack) == ANSWER
        told("model missing, and a switch to it", None, time.monotonic() - began)
        assert control(stack, "status")["active"] == SECOND


def counters(stack: Pair, name: str) -> dict[str, str]:
    """HAProxy's own figures of an engine's server (management guide, "show stat")."""
    import socket

    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(stack.home / "run/hal/gateway/admin.sock"))
        admin.sendall(b"show stat\n")
        data = b""
        while chunk := admin.recv(65536):
            data += chunk
    rows = [line.split(",") for line in data.decode().splitlines() if line]
    found = next(row for row in rows if row[:2] == ["engines", name])
    return dict(zip(rows[0], found, strict=False))


def current(stack: Pair, name: str) -> int:
    return int(counters(stack, name)["scur"])


def requests_of(stack: Pair, name: str) -> int:
    return int(counters(stack, name)["req_tot"])
