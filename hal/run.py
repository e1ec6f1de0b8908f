"""The one gate through which hal runs other programs.

A command is a list of strings, gets an environment chosen here (not inherited wholesale), reads
nothing from the terminal, and dies with hal: the kernel sends it SIGKILL when hal's process ends,
however that happens, so that a killed build leaves nothing running.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hal.errors import HalError

log = logging.getLogger("hal.run")

KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "USER", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")
"""What a program may know of the caller's environment; the rest would make output depend on the host."""

ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}

PR_SET_PDEATHSIG = 1
TAIL_LINES = 12
TAIL_WIDTH = 300
"""How much of a failed program's output an error shows: lines, and characters of each."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Completed:
    """A program that has ended: its exit status and what it printed (text, or empty if not captured)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that programs get: a few variables of the caller, a fixed locale and zone, `extra`."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, **ENVIRONMENT, **(extra or {})}


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program and return at once.

    Raises:
        HalError: the program is not installed.
    """
    log.debug("+ %s", shlex.join(argv))
    env = environment(env)
    if shutil.which(argv[0], path=env.get("PATH")) is None:
        raise HalError(
            f"the program {argv[0]!r} is not installed", "`hal doctor` names the package that holds it"
        )
    return subprocess.Popen(
        list(argv),
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=new_session,
        preexec_fn=_die_with_parent,  # a prctl, which is safe between fork and exec
    )


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: bytes | None = None,
    pass_fds: Sequence[int] = (),
    check: bool = True,
    what: str | None = None,
) -> Completed:
    """Run a program to its end and return what it printed.

    `what` names the step in words for the error ("packing the root image"); the default is the
    program's name.

    Raises:
        HalError: the program is missing, or `check` is set and it failed; the error holds the
            command's last lines.
    """
    process = spawn(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
    )
    try:
        out, err = process.communicate(input)
    except BaseException:
        process.kill()
        process.wait()
        raise
    done = Completed(
        tuple(argv), process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )
    if check and done.returncode != 0:
        raise failure(done, what)
    return done


def failure(done: Completed, what: str | None = None) -> HalError:
    """The error that explains a failed program: what was being done, its status, its last lines."""
    status = done.returncode
    how = (
        f"was ended by {signal.Signals(-status).name}" if status < 0 else f"failed with exit status {status}"
    )
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-TAIL_LINES:]
    log.debug("failed command: %s", shlex.join(done.argv))
    return HalError(
        f"{what or done.argv[0]} {how}",
        "no space is left on the device: free some and run it again"
        if any("No space left on device" in line for line in lines)
        else None,
        details=tuple(f"  | {line[:TAIL_WIDTH]}" for line in lines),
    )
