"""The real HAProxy with a rendered configuration, alone: tests make servers ready, engines are stand-ins.

Only paths and ports differ from the appliance.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hal.image.root import write_files
from hal.render import render
from hal.sandbox import Sandbox
from hal.spec.loading import parse_spec

DEADLINE = 20.0
TOPS = ("/etc/hal", "/run/hal", "/var/lib/hal", "/usr/lib/hal/gateway")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """The first true value of `condition`; fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"after {deadline:g} s still not: {what}")


def digest(token: str) -> str:
    """A token's SHA-256, as specs have it."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass
class Answer:
    """What a client got: the whole bytes, split."""

    raw: bytes
    seconds: float = 0.0

    @property
    def status(self) -> int:
        """0: no HTTP answer came."""
        words = self.raw.split(b" ", 2)
        return int(words[1]) if len(words) > 2 and words[0].startswith(b"HTTP/1.") else 0

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def code(self) -> str:
        """An error's code, in either API's shape."""
        data = json.loads(self.body)
        return str(data["error"]["code"] if isinstance(data["error"], dict) else data["code"])


Serve = Callable[[socket.socket, bytes], None]


def plain(connection: socket.socket, request: bytes) -> None:
    """Answers 200 at once."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


@dataclass
class Recorder:
    """A stand-in for an engine: keeps every byte that it is sent, connection by connection."""

    port: int = field(default_factory=free_port)
    serve: Serve = plain
    seen: list[bytearray] = field(default_factory=list)
    open: int = 0
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Recorder:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *ignored: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    @property
    def bytes(self) -> bytes:
        return b"".join(bytes(each) for each in self.seen)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            record = bytearray()
            self.seen.append(record)
            threading.Thread(target=self._talk, args=(connection, record), daemon=True).start()

    def _talk(self, connection: socket.socket, record: bytearray) -> None:
        self.open += 1
        with connection, contextlib.suppress(OSError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            while True:
                request = b""
                while not whole(request):
                    chunk = connection.recv(65536)
                    if not chunk:
                        self.open -= 1
                        return
                    record += chunk
                    request += chunk
                self.serve(connection, request)
        self.open -= 1


def whole(request: bytes) -> bool:
    """Whether a request is complete, by its Content-Length."""
    head, end, body = request.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= (int(lengths[0].split(b":")[1]) if lengths else 0)


class Gateway:
    """A running gateway."""

    def __init__(self, home: Path, port: int, argv: list[str]) -> None:
        self.home, self.port, self.argv = home, port, argv
        self.start()

    def start(self) -> None:
        log = (self.home / "gateway.log").open("ab")
        self.process = subprocess.Popen(
            self.argv, env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        wait_for(self._listens, "the gateway listens")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return self.path("/run/hal/gateway/admin.sock").exists()

    @property
    def log(self) -> str:
        return (self.home / "gateway.log").read_text()

    def path(self, name: str) -> Path:
        """A path of the appliance, on this machine."""
        return self.home / name.lstrip("/")

    def admin(self, *commands: str) -> str:
        """The answer of the runtime API."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(DEADLINE)
            admin.connect(str(self.path("/run/hal/gateway/admin.sock")))
            admin.sendall(("; ".join(commands) + "\n").encode())
            answer = b""
            while chunk := admin.recv(65536):
                answer += chunk
        return answer.decode().strip()

    def ready(self, *servers: str) -> None:
        """Make servers ready, and let requests go on."""
        names = [*servers, "switch/serving"]
        assert self.admin(*(f"set server {name} state ready" for name in names)) == ""

    def send(self, data: bytes, seconds: float = DEADLINE) -> Answer:
        """All that comes back for these bytes until the connection ends or nothing more comes in time."""
        started = time.monotonic()
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(seconds)
            with contextlib.suppress(OSError):
                connection.sendall(data)
            with contextlib.suppress(OSError):
                while chunk := connection.recv(65536):
                    answer += chunk
        return Answer(answer, time.monotonic() - started)

    def ask(
        self,
        path: str = "/v1/models",
        *,
        token: str = "",
        method: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        seconds: float = DEADLINE,
    ) -> Answer:
        """One request on a connection of its own."""
        lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "Host: gateway"]
        lines += ["Connection: close"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(body)}"] if body is not None else []
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""), seconds)

    def resident(self) -> int:
        """Memory of all its processes in kB, what they share counted once (proc(5), smaps_rollup: Pss)."""
        total = 0
        for directory in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not directory.name.isdigit() or str(self.home).encode() not in (
                    command := (directory / "cmdline").read_bytes()
                ):
                    continue
                if command.startswith(b"haproxy\0"):
                    lines = (directory / "smaps_rollup").read_text().splitlines()
                    total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total


def later(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start some work; what is given back waits for its result."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(DEADLINE * 2)
        return found[0]

    return result


GatewayMaker = Callable[..., AbstractContextManager[Gateway]]

SPEC = """\
appliance: {{name: alone, version: '1'}}
variant: {variant}
engines: {engines}
models: [smollm2-135m]
disk: {{state: 1G}}
{more}
gateway:
  port: {port}
  tls: {tls}
{gateway}
"""


@contextmanager
def running(
    gateway: str,
    haproxy: Callable[[Path], list[str]],
    tools: Sandbox,
    *,
    engines: str = "[llamacpp]",
    variant: str = "debug",
    tls: bool = False,
    more: str = "",
    files: dict[str, str] | None = None,
    change: Callable[[str], str] = lambda text: text,
) -> Iterator[Gateway]:
    """The gateway of a spec whose `gateway:` has these further lines; `change` may alter haproxy.cfg.

    `files` lie in its home (`{home}` in the spec) before it starts.
    """
    # Not pytest's directory: the path of a unix socket may have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="hal-gw-"))
    try:
        for name, content in (files or {}).items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(content)
        port = free_port()
        text = SPEC.format(
            variant=variant, engines=engines, port=port, tls=str(tls).lower(), gateway=gateway, more=more
        )
        config = write(text.replace("{home}", str(home)), home, port, change)
        if tls:
            make_key(home, tools)
        found = Gateway(home, port, haproxy(config))
        try:
            yield found
        finally:
            found.stop()
    finally:
        shutil.rmtree(home)


def write(spec: str, home: Path, port: int, change: Callable[[str], str] = lambda text: text) -> Path:
    """Render a spec below `home`, with paths moved there and on loopback; the path of haproxy.cfg."""
    write_files(render(parse_spec(spec, home / "spec.yaml"), []), home)
    for directory in ("run/hal/gateway", "run/hal/selector", "run/hal/credentials"):
        (home / directory).mkdir(parents=True, exist_ok=True)
    config = home / "etc/hal/gateway/haproxy.cfg"
    for path in (config, home / "usr/lib/hal/gateway-key"):
        if path.exists():
            content = path.read_text().replace("/run/credentials/hal-gateway.service", "/run/hal/credentials")
            for top in TOPS:
                content = content.replace(top, f"{home}{top}")
            path.write_text(change(content.replace(f':::{port}}}" v4v6', f'127.0.0.1:{port}}}"')))
    return config


def make_key(home: Path, tools: Sandbox) -> None:
    """What the appliance does before it starts its gateway."""
    tools.run(["sh", str(home / "usr/lib/hal/gateway-key")], writable=[home])
