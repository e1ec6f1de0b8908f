"""The process around a virtual machine, with small programs in QEMU's place."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hal.errors import HalError
from hal.machine.command import Accelerator, ApplianceFiles, Forward, Machine
from hal.machine.qemu import Deadline, VirtualMachine, banner_probe, check_port_free, free_port, http_probe

FAKE = f"""#!{sys.executable}
import json, os, signal, socket, sys, time
argv = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
seen = {{"argv": argv, "tmpdir": os.environ.get("TMPDIR"), "pid": os.getpid()}}
json.dump(seen, open(here + "/call.new", "w"))
os.rename(here + "/call.new", here + "/call.json")
options = [v for v in argv if v.startswith(("file,id=serial0", "socket,id=qmp0"))]
path = {{v.split(",")[1]: v.partition("path=")[2].partition(",")[0] for v in options}}
serial = open(path["id=serial0"], "a")
"""

EXITS_EARLY = """
for line in range(40): print(f"serial line {line}", file=serial)
print("qemu: no such device", file=sys.stderr)
sys.exit(3)
"""

HANGS = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("kernel is up", file=serial, flush=True)
while True: time.sleep(60)
"""

WAITS = """
while True: time.sleep(60)
"""

WITH_CHILD = """
child = os.fork()
if child: print(child, file=serial, flush=True)
while True: time.sleep(60)
"""

SPEAKS_QMP = """
listener = socket.socket(socket.AF_UNIX); listener.bind(path["id=qmp0"]); listener.listen()
while True:
    stream = listener.accept()[0].makefile("rw")
    print('{"QMP": {}}', file=stream, flush=True)
    for line in stream:
        command = json.loads(line)["execute"]
        print('{"event": "RTC_CHANGE"}', file=stream)
        print('{"return": {}}', file=stream, flush=True)
        print("qmp", command, file=serial, flush=True)
        if command in ("quit", "system_powerdown"): sys.exit(0)
"""


@pytest.fixture
def fake(tmp_path: Path):
    def make(behaviour: str) -> str:
        program = tmp_path / "qemu"
        program.write_text(FAKE + behaviour)
        program.chmod(0o755)
        return str(program)

    return make


def machine(tmp_path: Path, program: str, *ports: int, **options: object) -> VirtualMachine:
    files = ApplianceFiles(tmp_path / "disk.img", tmp_path / "vmlinuz", tmp_path / "initrd", "quiet")
    shape = Machine(forwards=tuple(Forward(port, 7001) for port in ports))
    log = tmp_path / "out" / "serial.log"
    return VirtualMachine(shape, files, Accelerator.TCG, serial_log=log, program=program, **options)  # type: ignore[arg-type]


def call(tmp_path: Path) -> dict:
    deadline = Deadline.after(10)
    while not (tmp_path / "call.json").exists():
        assert not deadline.expired, "the program was never run"
        time.sleep(0.01)
    return json.loads((tmp_path / "call.json").read_text())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_recorded_command_is_the_printed_one_and_nothing_is_left(tmp_path, fake) -> None:
    program = fake(WAITS)
    with machine(tmp_path, program) as vm:
        seen = call(tmp_path)
        assert shlex.split(vm.command) == [program, *seen["argv"]]
        assert Path(seen["tmpdir"]).is_dir()
        assert seen["tmpdir"] != "/tmp"  # QEMU would take /var/tmp instead, whatever is there
        assert is_running(seen["pid"])
    assert not is_running(seen["pid"])
    assert not Path(seen["tmpdir"]).exists()
    assert (tmp_path / "out" / "serial.log").exists()


def test_an_early_end_shows_stderr_and_the_serial_logs_end(tmp_path, fake) -> None:
    with machine(tmp_path, fake(EXITS_EARLY)) as vm, pytest.raises(HalError) as error:
        vm.wait(lambda: False, Deadline.after(20), "the gateway")
    assert "ended (exit status 3) before the gateway was ready" in error.value.message
    assert "serial.log" in (error.value.hint or "")
    assert "  | qemu: no such device" in error.value.details
    assert error.value.details[-30:] == tuple(f"  | serial line {n}" for n in range(10, 40))


def test_a_deadline_passes_and_a_deaf_program_is_killed(tmp_path, fake, monkeypatch) -> None:
    monkeypatch.setattr("hal.machine.qemu.STOP_SECONDS", 0.3)
    with machine(tmp_path, fake(HANGS)) as vm:
        pid = call(tmp_path)["pid"]
        vm.wait(lambda: "kernel is up" in vm.serial(), Deadline.after(10), "the kernel")
        with pytest.raises(HalError, match="the gateway was not ready after 0 s") as error:
            vm.wait(lambda: False, Deadline.after(0.2), "the gateway")
    assert "  | kernel is up" in error.value.details
    assert not is_running(pid)


def test_an_exception_in_the_block_ends_the_machine(tmp_path, fake) -> None:
    with pytest.raises(KeyboardInterrupt), machine(tmp_path, fake(WAITS)):
        pid = call(tmp_path)["pid"]
        raise KeyboardInterrupt
    assert not is_running(pid)


def test_quit_and_power_button_go_over_qmp(tmp_path, fake) -> None:
    program = fake(SPEAKS_QMP)
    with machine(tmp_path, program) as vm:
        scratch = Path(call(tmp_path)["tmpdir"])
        vm.wait((scratch / "qmp").exists, Deadline.after(10), "the monitor")
        assert vm.power_down(Deadline.after(10)) == 0
        assert vm.serial().split() == ["qmp", "qmp_capabilities", "qmp", "system_powerdown"]
    (tmp_path / "call.json").unlink()
    with machine(tmp_path, program) as vm:
        scratch = Path(call(tmp_path)["tmpdir"])
        vm.wait((scratch / "qmp").exists, Deadline.after(10), "the monitor")
    assert vm.serial().split()[-1] == "quit"


def test_the_cable_is_pulled_and_the_power_cut(tmp_path, fake) -> None:
    with machine(tmp_path, fake(SPEAKS_QMP)) as vm:
        scratch = Path(call(tmp_path)["tmpdir"])
        vm.wait((scratch / "qmp").exists, Deadline.after(10), "the monitor")
        vm.set_link(False)
        vm.wait(lambda: vm.serial().split()[-1:] == ["set_link"], Deadline.after(10), "the command")
    (tmp_path / "call.json").unlink()
    with machine(tmp_path, fake(WAITS)) as vm:
        pid = call(tmp_path)["pid"]
        vm.cut_power()
        assert not is_running(pid)


def test_a_power_cut_ends_what_was_just_being_started(tmp_path, fake) -> None:
    with machine(tmp_path, fake(WITH_CHILD)) as vm:
        vm.wait(lambda: vm.serial().endswith("\n"), Deadline.after(10), "the child")
        vm.cut_power()
        ended = Deadline.after(10)
        while is_running(int(vm.serial())):
            assert not ended.expired, "a child was left"
            time.sleep(0.01)


def test_wait_end_says_when_it_still_runs(tmp_path, fake) -> None:
    with machine(tmp_path, fake(WAITS)) as vm, pytest.raises(HalError, match="still runs after"):
        vm.wait_end(Deadline.after(0.1))


def test_a_taken_port_is_refused_before_the_start(tmp_path, fake) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(HalError) as error, machine(tmp_path, fake(WAITS), port):
            pass
    assert error.value.message == f"port {port} is taken on this host"
    assert "--port" in (error.value.hint or "")
    assert not (tmp_path / "call.json").exists()
    check_port_free(port)


def test_a_missing_qemu(tmp_path) -> None:
    with pytest.raises(HalError, match="not installed"), machine(tmp_path, "qemu-that-is-not-there"):
        pass


def test_the_wrap_is_told_what_may_be_written(tmp_path, fake) -> None:
    told = {}

    def wrap(argv: Sequence[str], *, writable: Sequence[Path], network: bool) -> list[str]:
        told.update(argv=list(argv), writable=list(writable), network=network)
        return ["env", "WRAPPED=1", *argv]

    with machine(tmp_path, fake(WAITS), wrap=wrap):
        scratch = Path(call(tmp_path)["tmpdir"])
    assert told["network"] is True
    assert scratch in told["writable"]
    assert tmp_path / "out" / "serial.log" in told["writable"]
    assert tmp_path / "disk.img" not in told["writable"]  # a snapshot: the image stays as it is


def test_deadlines_are_stretched_by_the_accelerator() -> None:
    assert Deadline.after(10).seconds == 10
    assert Deadline.after(10, Accelerator.TCG).seconds == 10 * Accelerator.TCG.deadline_factor
    assert Deadline.after(0).expired
    assert 9 < Deadline.after(10).remaining <= 10


def test_http_probe() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert http_probe(server.server_port)()
        assert not http_probe(server.server_port, "/v1/models")()
        assert http_probe(server.server_port, "/v1/models", accepts=lambda status: status == 503)()
        server.shutdown()
    assert not http_probe(free_port())()


def test_a_probe_does_not_wait_for_a_lost_connection() -> None:
    """QEMU's user network accepts connections before the guest has its network, and never answers them."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_the_second() -> None:
            lost, _ = server.accept()
            second, _ = server.accept()
            with lost, second:
                second.recv(1000)
                second.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                lost.recv(1000)

        threading.Thread(target=answer_the_second, daemon=True).start()
        started = time.monotonic()
        assert http_probe(server.getsockname()[1])()
        assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(("sent", "ready"), [(b"SSH-2.0-OpenSSH\r\n", True), (b"", False), (b"HTTP", False)])
def test_banner_probe(sent: bytes, ready: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(sent)

        threading.Thread(target=greet, daemon=True).start()
        assert banner_probe(server.getsockname()[1])() is ready
