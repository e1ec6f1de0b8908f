"""The one gate through which hal runs other programs.

A command is a list of strings, gets an environment chosen here (not inherited wholesale), reads
nothing from the terminal, and dies with hal: the kernel sends it SIGKILL when hal's process ends,
however that happens, so that a killed build leaves nothing running.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from hal.errors import HalError

log = logging.getLogger("hal.run")

KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "USER", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")
"""What a program may know of the caller's environment; the rest would make output depend on the host."""

PACKAGES = {"bwrap": "bubblewrap", "dpkg-deb": "dpkg", "tar": "tar", "unshare": "util-linux"}
"""The Debian packages of the programs that a build takes from the host."""

FULL = re.compile("No space left on device|Disk full|Disk quota exceeded")
"""How programs say that a disk is full: strerror(3), and mtools in its own words."""

ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}

PR_SET_PDEATHSIG = 1
SETUP = ("bwrap: ", "unshare: ", "newuidmap: ", "newgidmap: ")
"""How an error begins that comes from making a sandbox and not from the program in it."""

STUCK_SECONDS = 2.0
"""How long a program may go on after it found the disk full."""

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


def _die_with(parent: int) -> None:
    """In a new child: die when the process `parent` does, at once if that has happened already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


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
        package = PACKAGES.get(argv[0])
        raise HalError(
            f"the program {argv[0]!r} is not installed",
            f"as root: apt-get install {package}" if package else "`hal doctor` says what this host lacks",
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
        preexec_fn=partial(_die_with, os.getpid()),  # system calls only: safe between fork and exec
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
        out, err = _communicate(process, input)
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


def _communicate(process: subprocess.Popen[bytes], input: bytes | None) -> tuple[bytes, bytes]:
    """A program's output to its end; one that says that the disk is full and then hangs is killed.

    mkfs.erofs 1.8 is such a program: after a failed write its threads wait for each other for ever.
    """
    while True:
        try:
            return process.communicate(input, timeout=STUCK_SECONDS)
        except subprocess.TimeoutExpired as waiting:
            input = None  # has been handed over
            if full((waiting.stderr or b"").decode(errors="replace")):
                process.kill()


def failure(done: Completed, what: str | None = None) -> HalError:
    """The error that explains a failed program: what was being done, its status, its last lines."""
    if full(done.stderr):
        message = f"{what or done.argv[0]}: no space is left on the device"
        return HalError(message, "free some space and run it again")
    status = done.returncode
    how = (
        f"was ended by {signal.Signals(-status).name}" if status < 0 else f"failed with exit status {status}"
    )
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-TAIL_LINES:]
    log.debug("failed command: %s", shlex.join(done.argv))
    return HalError(
        f"{what or done.argv[0]} {how}",
        "`hal doctor` says whether sandboxes can be made here" if done.stderr.startswith(SETUP) else None,
        details=tuple(f"  | {line[:TAIL_WIDTH]}" for line in lines),
    )


def full(stderr: str) -> bool:
    """Whether a program failed for want of space, by what it said."""
    return FULL.search(stderr) is not None
