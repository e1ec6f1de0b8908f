"""The appliance's services on this machine: rendered files, the real HAProxy, selector and llama.cpp.

Only paths and ports differ from the appliance. Each part is a process that a test may kill.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hal.cache import Cache
from hal.image.root import write_files
from hal.lock.file import load_lock
from hal.render import Rendered, render
from hal.sandbox import Sandbox
from hal.spec.loading import parse_spec
from tests import tiny_model
from tests.services.gateways import Gateway, GatewayMaker, Recorder, free_port, running, wait_for

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"

DEADLINE = 20.0
"""Seconds for anything here to happen; natively it takes a tenth of one."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def haproxy(tools: Sandbox) -> Callable[[Path], list[str]]:
    """The command that runs the appliance's HAProxy with a configuration."""

    def command(config: Path) -> list[str]:
        argv = ["haproxy", "-Ws", "-f", str(config)]
        return tools.command(argv, writable=[config.parents[3]], network=True)

    return command


@pytest.fixture(scope="session")
def engine_pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """llama.cpp's pack as a directory: our launcher and the wheel out of hal's cache."""
    if platform.machine() != "x86_64":
        pytest.skip("the lock has the wheel for x86_64 only")
    pinned = load_lock().wheel("xllamacpp")
    wheel = Cache().find(pinned.sha256, pinned.size)
    if wheel is None:
        pytest.skip("xllamacpp is not in hal's cache: `make image` fetches it")
    pack = tmp_path_factory.mktemp("pack")
    (pack / "bin").mkdir()
    shutil.copy(ROOT / "services/llamacpp/launcher.py", pack / "bin/hal-llamacpp")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(pack / "lib")
    yield pack
    shutil.rmtree(pack)  # 100 MB


@pytest.fixture(scope="session")
def open_gateway(haproxy: Callable[[Path], list[str]], tools: Sandbox) -> GatewayMaker:
    """Starts the real gateway of a spec alone: `with open_gateway(spec) as gateway`."""

    def opened(spec: str, **options: Any) -> AbstractContextManager[Gateway]:
        return running(spec, haproxy, tools, **options)

    return opened


@pytest.fixture(scope="module")
def engine() -> Iterator[Recorder]:
    """A stand-in for the engine of a gateway; one for all tests of a file."""
    with Recorder() as found:
        yield found


class Stack:
    """The services of one appliance. `start` and `kill` take "gateway", "selector" and "engine"."""

    def __init__(self, home: Path, files: Rendered, commands: dict[str, list[str]], port: int) -> None:
        self.home = home
        self.files = files
        self.commands = commands
        self.port = port
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(home / "notify"))
        self.notified.settimeout(DEADLINE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{STAND_INS}:{ROOT}",
            "NOTIFY_SOCKET": str(self.home / "notify"),
            **(self.engine_environment() if name == "engine" else {}),
        }
        log = (self.home / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            self.commands[name], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )

    def engine_environment(self) -> dict[str, str]:
        text = self.files["/etc/hal/engines/llamacpp.env"].content
        variables = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
        return variables | {"LLAMACPP_MODEL": str(self.home / "tiny.gguf")}

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(DEADLINE)

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def get(self, path: str, method: str = "GET", **options: Any) -> Any:
        """An httpx answer, or None while nobody listens."""
        import httpx

        try:
            return httpx.request(method, f"{self.url}{path}", timeout=DEADLINE, **options)
        except httpx.TransportError:
            return None

    def status_of(self, path: str, **options: Any) -> int:
        answer = self.get(path, **options)
        return 0 if answer is None else int(answer.status_code)

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        self.notified.close()


StackMaker = Callable[..., AbstractContextManager[Stack]]


@pytest.fixture(scope="session")
def make_stack(haproxy: Callable[[Path], list[str]], engine_pack: Path, tiny: Path) -> StackMaker:
    """Makes the stack of a small spec; nothing is started yet."""

    @contextmanager
    def make(variant: str = "debug", tokens: str = "[]", wait: int = 1) -> Iterator[Stack]:
        # Not pytest's directory: the path of a unix socket may have 107 bytes.
        home = Path(tempfile.mkdtemp(prefix="hal-stack-"))
        port, engine_port = free_port(), free_port()
        shutil.copy(tiny, home / "tiny.gguf")
        content = tiny.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        loaded = parse_spec(
            f"""\
appliance: {{name: stack, version: '1'}}
engines: [{{llamacpp: {{port: {engine_port}, settings: {{context_length: 512}}}}}}]
models:
  - name: tiny
    format: gguf
    files:
      - {{name: tiny.gguf, size: {len(content)}, sha256: {digest}, source: {{kind: file, path: tiny.gguf}}}}
gateway: {{port: {port}, tls: false, tokens: {tokens}}}
selector: {{wait: {wait}}}
variant: {variant}
""",
            home / "spec.yaml",
        )
        files = render(loaded, [])
        write_files(files, home)
        for directory in ("run/hal/gateway", "run/hal/selector", "run/hal/control", "var/lib/hal/selector"):
            (home / directory).mkdir(parents=True)
        config, selector = home / "etc/hal/gateway/haproxy.cfg", home / "etc/hal/selector.json"
        for path in (config, selector):
            text = path.read_text()
            for top in ("/etc/hal", "/run/hal", "/var/lib/hal"):
                text = text.replace(top, f"{home}{top}")
            path.write_text(text.replace(f':::{port}}}" v4v6', f'127.0.0.1:{port}}}"'))
        program = "import sys; from services.selector.daemon import main; sys.exit(main(sys.argv[1]))"
        commands = {
            "gateway": haproxy(config),
            "selector": [sys.executable, "-c", program, str(selector)],
            "engine": [sys.executable, "-I", str(engine_pack / "bin/hal-llamacpp")],
        }
        stack = Stack(home, files, commands, port)
        try:
            yield stack
        finally:
            stack.close()
            shutil.rmtree(home)

    return make


@pytest.fixture(scope="module")
def stack(make_stack: StackMaker) -> Iterator[Stack]:
    """A running debug appliance's services, ready."""
    with make_stack() as made:
        for name in ("gateway", "selector", "engine"):
            made.start(name)
        wait_for(lambda: made.status_of("/health") == 200, "the gateway is healthy")
        yield made
