"""A process of the engine: started, asked how it is, told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

from .config import LaunchError

STATUS_BASE = 128
"""A shell's status for a process that a signal ended (POSIX, "Exit Status for Commands")."""

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""A program that is executed inherits what is ignored; engines expect the default."""


class Child:
    """A running program. It leads a process group of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    @classmethod
    def start(cls, argv: list[str], environment: dict[str, str], directory: str) -> Child:
        """Start `argv` in `directory` (empty: where the launcher is).

        Raises:
            LaunchError: the program cannot be executed.
        """
        told, tells = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(argv, environment, directory, tells)
        os.close(tells)
        with os.fdopen(told, "rb") as pipe:
            reason = pipe.read().decode(errors="replace")  # ends when the program runs
        if reason:
            os.waitpid(pid, 0)
            raise LaunchError(reason)
        return cls(pid)

    def poll(self) -> int | None:
        """The exit status once it has ended (128 and the signal's number where one ended it)."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else STATUS_BASE - code
        return self.status

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill it with what it has started, unless that left its process group; the init system ends that."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.status is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.status = STATUS_BASE + signal.SIGKILL


def _become(argv: list[str], environment: dict[str, str], directory: str, tells: int) -> NoReturn:
    """In the new process: turn into the program, or tell why not."""
    what = directory
    try:
        os.setpgid(0, 0)
        if directory:
            os.chdir(directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        what = argv[0]
        os.execve(argv[0], argv, environment)
    except OSError as error:
        os.write(tells, f"cannot start {what}: {error.strerror}".encode())
    finally:
        os._exit(127)
