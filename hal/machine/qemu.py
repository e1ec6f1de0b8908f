"""The process that runs a virtual machine: started, watched, and always cleaned up."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from hal.errors import HalError
from hal.machine.command import (
    LINK,
    QEMU,
    Accelerator,
    ApplianceFiles,
    Machine,
    Tpm,
    TpmModel,
    qemu_command,
    swtpm_command,
)
from hal.run import spawn

POLL_SECONDS = 0.05
PROBE_SECONDS = 2.0
"""How long an answer may take: an emulated guest may be busy for that long and still be well."""

TRY_SECONDS = 0.2
"""How long a connection is waited for alone."""

STOP_SECONDS = 5.0
"""How long QEMU gets to close its files before it is killed; it needs milliseconds."""

TAIL_LINES = 30

Probe = Callable[[], bool]


class Wrap(Protocol):
    """Turns a command into one that runs from the tools tree; `writable` are the paths that it may write."""

    def __call__(self, argv: Sequence[str], *, writable: Sequence[Path], network: bool) -> list[str]: ...


def on_host(argv: Sequence[str], *, writable: Sequence[Path], network: bool) -> list[str]:
    """The wrap that wraps nothing: the host's own programs."""
    return list(argv)


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock by which something must have happened."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float, accelerator: Accelerator | None = None) -> Deadline:
        """So many seconds from now, stretched by what the accelerator costs."""
        stretched = seconds * (accelerator.deadline_factor if accelerator else 1.0)
        return cls(time.monotonic() + stretched, stretched)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining == 0.0


def http_probe(
    port: int,
    path: str = "/health",
    *,
    accepts: Callable[[int], bool] | None = None,
    tls: bool = False,
) -> Probe:
    """Ready when an HTTP request to the host's loopback is answered with a status that `accepts` (200).

    With `tls` whatever certificate comes is taken: it is made at boot, and nothing secret is sent.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()

    def probe() -> bool:
        first = _first_tls_answer if tls else _first_answer
        answer = first(port, request, len(b"HTTP/1.1 200"))
        found = re.fullmatch(rb"HTTP/1\.[01] (\d{3})", answer)
        if found is None:
            return False
        status = int(found[1])
        return accepts(status) if accepts else status == 200

    return probe


def banner_probe(port: int, banner: bytes = b"SSH-") -> Probe:
    """Ready when a connection is greeted with `banner`. A connection alone says nothing: QEMU's user
    network accepts it on the guest's behalf before the guest listens."""
    return lambda: _first_answer(port, b"", len(banner)) == banner


def _first_answer(port: int, request: bytes, size: int) -> bytes:
    """The first `size` bytes that any of several connections brings, each `TRY_SECONDS` after the one before.

    A connection made before the guest has its network is not answered for seconds after it has: QEMU's user
    network drops what it cannot deliver and says it again late. Empty when nobody answers in PROBE_SECONDS.
    """
    end = time.monotonic() + PROBE_SECONDS
    with contextlib.ExitStack() as stack:
        connections: list[socket.socket] = []
        try:
            while (left := end - time.monotonic()) > 0:
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), left))
                connection.sendall(request)
                connections.append(connection)
                answered, _, _ = select.select(connections, [], [], min(TRY_SECONDS, left))
                for connection in answered:
                    if answer := connection.recv(size, socket.MSG_WAITALL):
                        return answer
                    connections.remove(connection)
                if not connections:
                    break  # closed without an answer: nobody listens in the guest
        except OSError:
            pass
    return b""


def _first_tls_answer(port: int, request: bytes, size: int) -> bytes:
    """As `_first_answer`, over TLS: one connection after the other, as a handshake waits for answers."""
    import ssl  # only images that speak TLS need it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    end = time.monotonic() + PROBE_SECONDS
    while (left := end - time.monotonic()) > 0:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), left) as plain,
                context.wrap_socket(plain) as connection,
            ):
                connection.settimeout(left)
                connection.sendall(request)
                answer = b""
                while len(answer) < size and (chunk := connection.recv(size - len(answer))):
                    answer += chunk
                return answer
        except ConnectionError:
            break  # nobody listens, in the guest or here
        except OSError:
            continue
    return b""


def check_port_free(port: int) -> None:
    """
    Raises:
        HalError: something on this host listens on the port already, or this user may not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise HalError(
                    f"port {port} is taken on this host", "choose another with `--port`"
                ) from error
            raise HalError(
                f"port {port} of this host cannot be used: {error.strerror}", "choose another with `--port`"
            ) from error


def free_port() -> int:
    """A TCP port of the loopback that nothing uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class VirtualMachine:
    """A running machine, as a context: it ends with the block, whatever happens in it.

        with VirtualMachine(machine, files, accelerator, serial_log=path, wrap=tools.wrap) as vm:
            vm.wait(http_probe(7001), Deadline.after(30, accelerator), "the gateway")

    `tpm_state`, a directory, adds a TPM whose state persists there.
    """

    def __init__(
        self,
        machine: Machine,
        files: ApplianceFiles,
        accelerator: Accelerator,
        *,
        serial_log: Path,
        wrap: Wrap = on_host,
        tpm_state: Path | None = None,
        program: str = QEMU,
    ) -> None:
        self.accelerator = accelerator
        self.serial_log = serial_log
        self._machine = machine
        self._files = files
        self._wrap = wrap
        self._tpm_state = tpm_state
        self._program = program
        self._scratch: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._swtpm: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def uptime(self) -> float:
        """Seconds since QEMU was started."""
        return time.monotonic() - self._started

    @property
    def command(self) -> str:
        """The command that was run, to be pasted into a shell."""
        return shlex.join(self._argv)

    def wait(self, ready: Probe, deadline: Deadline, what: str) -> float:
        """Waits until the probe says yes; the seconds since QEMU's start.

        Raises:
            HalError: the machine ended, or the deadline passed; with the end of the serial log.
        """
        while not ready():
            self.check(what)
            if deadline.expired:
                raise HalError(
                    f"{what} was not ready after {deadline.seconds:.0f} s",
                    f"the whole serial log is {self.serial_log}",
                    details=self._last_lines(),
                )
            time.sleep(POLL_SECONDS)
        return self.uptime

    def check(self, awaited: str = "anything") -> None:
        """
        Raises:
            HalError: the machine has ended by itself.
        """
        if self._process is None or self._process.poll() is None:
            return
        status = self._process.returncode
        raise HalError(
            f"the virtual machine ended (exit status {status}) before {awaited} was ready",
            f"the whole serial log is {self.serial_log}",
            details=self._last_lines(),
        )

    def wait_end(self, deadline: Deadline) -> int:
        """Waits until the guest has powered off (or panicked); QEMU's exit status.

        Raises:
            HalError: it still runs at the deadline.
        """
        assert self._process is not None, "the machine was never started"
        try:
            return self._process.wait(deadline.remaining)
        except subprocess.TimeoutExpired:
            raise HalError(
                f"the virtual machine still runs after {deadline.seconds:.0f} s", details=self._last_lines()
            ) from None

    def power_down(self, deadline: Deadline) -> int:
        """Presses the power button and waits for the guest to shut down; QEMU's exit status."""
        self._qmp("system_powerdown")
        return self.wait_end(deadline)

    def set_link(self, up: bool) -> None:
        """Plugs the network cable in, or pulls it out."""
        self._qmp("set_link", name=LINK, up=up)

    def cut_power(self) -> None:
        """Ends QEMU without a word to the guest: what the guest had not flushed to its disk is gone."""
        assert self._process is not None, "the machine was never started"
        _kill(self._process)

    def serial(self) -> str:
        """What the guest has written to its serial port so far."""
        try:
            return self.serial_log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """Ends QEMU and what belongs to it, kindly where it listens, and removes the temporary files."""
        for process in (self._process, self._swtpm):
            if process is None or process.poll() is not None:
                continue
            if process is self._process and self._quit(process):
                continue
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(process)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _start(self) -> None:
        for forward in self._machine.forwards:
            check_port_free(forward.host)
        # Sockets need short paths; QEMU's temporary overlay needs room, which /tmp may not have.
        self._scratch = Path(tempfile.mkdtemp(prefix="hal-vm-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.serial_log.parent.mkdir(parents=True, exist_ok=True)
        self.serial_log.write_bytes(b"")
        machine = replace(self._machine, serial_log=self.serial_log, monitor=self._scratch / "qmp")
        if self._tpm_state is not None:
            machine = replace(machine, tpm=self._start_tpm(machine.tpm, self._tpm_state))
        self._argv = qemu_command(machine, self._files, self.accelerator, program=self._program)
        writable = [self._scratch, self.serial_log, *([self._files.disk] if machine.keep_state else [])]
        if self._files.firmware and self._files.firmware.variables:
            writable.append(self._files.firmware.variables)
        with (self._scratch / "stderr").open("wb") as stderr:
            self._started = time.monotonic()
            self._process = spawn(
                self._wrap(self._argv, writable=writable, network=True),
                env={"TMPDIR": str(self._scratch)},  # where QEMU puts the overlay of `snapshot=on`
                stdout=stderr,
                stderr=stderr,
                new_session=True,
            )

    def _start_tpm(self, tpm: Tpm | None, state: Path) -> Tpm:
        assert self._scratch is not None
        state.mkdir(parents=True, exist_ok=True)
        path = self._scratch / "tpm"
        argv = self._wrap(swtpm_command(state, path), writable=[self._scratch, state], network=False)
        with (self._scratch / "stderr").open("wb") as stderr:
            self._swtpm = spawn(argv, stdout=stderr, stderr=stderr, new_session=True)
        deadline = Deadline.after(STOP_SECONDS)
        while not path.exists():
            if self._swtpm.poll() is not None or deadline.expired:
                raise HalError("the TPM emulator did not start", details=self._last_lines())
            time.sleep(POLL_SECONDS)
        return Tpm(path, tpm.model if tpm else TpmModel.CRB)

    def _quit(self, process: subprocess.Popen[bytes]) -> bool:
        with contextlib.suppress(OSError, ValueError, HalError, subprocess.TimeoutExpired):
            self._qmp("quit")
            process.wait(STOP_SECONDS)
            return True
        return False

    def _qmp(self, command: str, **arguments: Any) -> None:
        """One command of QEMU's machine protocol (docs/interop/qmp-spec.rst)."""
        assert self._scratch is not None, "the machine was never started"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STOP_SECONDS)
            connection.connect(str(self._scratch / "qmp"))
            with connection.makefile("rw") as stream:
                stream.readline()  # the greeting
                for name, given in (("qmp_capabilities", {}), (command, arguments)):
                    stream.write(json.dumps({"execute": name, "arguments": given}) + "\n")
                    stream.flush()
                    for line in stream:
                        answer = json.loads(line)
                        if "error" in answer:
                            raise HalError(f"QEMU refused {name}: {answer['error'].get('desc', '')}")
                        if "return" in answer:
                            break  # events come in between

    def _last_lines(self) -> tuple[str, ...]:
        lines: list[str] = []
        if self._scratch is not None and (self._scratch / "stderr").exists():
            lines += (self._scratch / "stderr").read_text(errors="replace").splitlines()[-TAIL_LINES:]
        lines += self.serial().splitlines()[-TAIL_LINES:]
        return tuple(f"  | {line.rstrip()}" for line in lines)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its session: a sandbox that is still being set up does not die with its parent."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
