#!/usr/bin/python3 -IS
"""Starts llama.cpp's server in this process and tells systemd when it really answers.

Installed as /opt/llamacpp/bin/hal-llamacpp; takes its settings from the environment that systemd reads
out of /etc/hal/engines/llamacpp.env. systemd hears READY=1 when `/health` is 200 and `/v1/models`
lists the model, and sees a failure when the model cannot be read whole or the server stops listening.
No prompt is logged: llama.cpp's own log is cut down to errors.

Imports are few, and `site` is left out (-S): each costs time where the CPU is emulated.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any, NoReturn

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH120, PTH100 (pathlib costs)
SYSTEM_PACKAGES = "/usr/lib/python3/dist-packages"
"""Where Debian's python3-systemd lies; `-S` takes it off the path."""

STATE = "/run/hal/engines/llamacpp/state"
"""One line, `STATE MESSAGE`, for the selector; services/engine/report.py has the states."""

LOOPBACK = ("127.0.0.1", "::1")
MAGIC = b"GGUF"
CHUNK = 4 * 1024 * 1024
LOAD_BYTES_PER_SECOND = 2_000_000
"""Slowest load worth waiting for: a fifth of what an emulated CPU does."""
ANSWER_TIMEOUT = 10.0
READY_TIMEOUT = 60.0
WATCH_INTERVAL = 5.0

try:
    sys.path.append(SYSTEM_PACKAGES)
    from systemd.daemon import notify
except ImportError:  # run by hand: nobody listens

    def notify(status: str) -> bool:
        """Stand-in for systemd.daemon.notify."""
        return False


class LaunchError(Exception):
    """Why the engine cannot run, in one line."""


class UnableError(LaunchError):
    """Why it cannot, until somebody mends the machine, the image or the spec."""


def report(state: str, message: str) -> None:
    """Say in the file how the engine is; without its directory (run by hand) there is none."""
    try:
        descriptor = os.open(f"{STATE}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # whatever the unit's UMask says: the selector reads it
            os.write(descriptor, f"{state} {message}\n".encode())
        finally:
            os.close(descriptor)
        os.rename(f"{STATE}.new", STATE)  # noqa: PTH104 (pathlib costs at start-up)
    except OSError:
        return


def setting(name: str) -> str:
    """The value of an environment variable that must be there."""
    try:
        return os.environ[f"LLAMACPP_{name}"]
    except KeyError:
        raise UnableError(
            f"LLAMACPP_{name} is not set: it belongs in /etc/hal/engines/llamacpp.env"
        ) from None


def number(name: str, least: int) -> int:
    """The value of an environment variable that must be a whole number of at least `least`."""
    text = setting(name)
    if not text.isdecimal() or int(text) < least:
        raise UnableError(f"LLAMACPP_{name}={text}: must be a whole number, {least} or more")
    return int(text)


def read_whole(path: str) -> int:
    """Read the model once from end to end and return its size in bytes.

    This makes dm-verity check every block now: with the file mapped, a damaged block would kill the
    process at the first request that touches it. What was read stays in the page cache for the load.
    """
    if not os.path.isabs(path):  # noqa: PTH117
        raise UnableError(f"LLAMACPP_MODEL={path}: must be an absolute path")
    buffer = bytearray(CHUNK)
    done = 0
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            while count := file.readinto(buffer):
                if done == 0 and not buffer.startswith(MAGIC):
                    raise UnableError(f"{path}: not a GGUF file")
                if done // (16 * CHUNK) != (done + count) // (16 * CHUNK):
                    notify(f"STATUS=reading the model, {done * 100 // size} %\nEXTEND_TIMEOUT_USEC=60000000")
                done += count
    except OSError as error:
        hint = " (damaged? the kernel's log names dm-verity or fs-verity then)" if done else ""
        raise UnableError(f"cannot read the model {path}: {error.strerror}{hint}") from None
    if done == 0:
        raise UnableError(f"{path}: the file is empty")
    return done


def parameters(llama: Any, host: str, port: int, path: str) -> Any:
    """llama.cpp's parameters for a quiet server on loopback that fetches nothing."""
    found = llama.CommonParams()
    parallel = number("PARALLEL", 1)
    threads = number("THREADS", 0) or len(os.sched_getaffinity(0))
    found.hostnames = [host]
    found.port = port
    found.model.path = path
    found.model_alias = {setting("ALIAS")}
    found.n_parallel = parallel
    found.n_ctx = number("CONTEXT_LENGTH", 1) * parallel  # llama.cpp divides it among the slots
    found.cpuparams.n_threads = threads
    found.cpuparams_batch.n_threads = threads
    found.offline = True
    found.ui = False
    found.endpoint_slots = False  # would show prompts
    found.cors_origins = "null"  # no web page may call the engine past its user
    found.verbosity = 1  # errors only: the levels above could tell of requests
    found.cache_ram_mib = 0  # no copies of finished prompts in memory (the default keeps 8 GiB)
    found.cache_idle_slots = False
    found.fit_params = False  # would load the model once more to measure it
    found.warmup = False  # the weights have just been read; a warm-up costs seconds on an emulated CPU
    return found


def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET over loopback.

    Raises:
        OSError: nobody listens, or no whole answer within ANSWER_TIMEOUT.
    """
    with socket.create_connection((host, port), timeout=ANSWER_TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(b" ", 2)
    if len(fields) < 2 or not fields[1].isdigit():
        raise OSError(f"{path}: no HTTP answer")
    return int(fields[1]), body


def wait_until_listed(host: str, port: int, alias: str) -> None:
    """Return when health is 200 and the model is listed; refuse after READY_TIMEOUT."""
    import json

    deadline = time.monotonic() + READY_TIMEOUT
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            status, _ = get(host, port, "/health")
            listed_status, body = get(host, port, "/v1/models")
            names = [entry["id"] for entry in json.loads(body)["data"]] if listed_status == 200 else []
            if status == 200 and alias in names:
                return
            reason = f"health is {status}, models are {names}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error)
        time.sleep(0.1)
    raise LaunchError(f"the server does not serve {alias}: {reason}")


def on_stop(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM and SIGINT: leave through `main`, which stops the server."""
    raise SystemExit(0)


def serve() -> None:
    """Run until stopped.

    Raises:
        LaunchError: the model or the server cannot be used.
    """
    host, port = setting("HOST"), number("PORT", 1)
    if host not in LOOPBACK:
        raise UnableError(f"LLAMACPP_HOST={host}: engines listen on loopback only")
    path, alias, marker = setting("MODEL"), setting("ALIAS"), setting("MARKER")
    if marker and not os.path.exists(marker):  # noqa: PTH110 (pathlib costs)
        raise LaunchError(f"the model {alias} has not arrived; `hal-provision status` says how far it is")
    report("starting", f"reading the model {alias}")
    size = read_whole(path)
    report("starting", f"loading {alias} ({size // 1_000_000} MB)")
    budget = 60 + size // LOAD_BYTES_PER_SECOND
    notify(f"STATUS=loading {alias} ({size // 1_000_000} MB)\nEXTEND_TIMEOUT_USEC={budget}000000")

    sys.path.insert(0, f"{HOME}/lib")
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(xllamacpp, host, port, path))  # returns when the model is loaded
    except RuntimeError as error:
        raise LaunchError(f"llama.cpp cannot serve {path} on {host} port {port}: {error}") from None
    wait_until_listed(host, port, alias)
    report("ready", f"serving {alias}")
    notify(f"READY=1\nSTATUS=serving {alias}")
    watch(host, port)
    del server


def watch(host: str, port: int) -> NoReturn:
    """Return never: wait for SIGTERM, or refuse when nobody listens any more.

    A slow answer is no death: all CPUs may be busy with a long prompt.
    """
    while True:
        time.sleep(WATCH_INTERVAL)
        try:
            socket.create_connection((host, port), timeout=ANSWER_TIMEOUT).close()
        except TimeoutError:
            continue
        except OSError as error:
            raise LaunchError(f"the server stopped listening: {error.strerror}") from None


def main() -> int:
    """Exit status 0 when asked to stop, 1 with one line on stderr otherwise."""
    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    try:
        serve()
    except SystemExit:
        report("stopped", "stopped")
        raise
    except LaunchError as refusal:
        report("unable" if isinstance(refusal, UnableError) else "failed", str(refusal))
        notify(f"STATUS={refusal}")
        print(f"hal-llamacpp: {refusal}", file=sys.stderr, flush=True)
        return 1
    finally:
        notify("STOPPING=1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
