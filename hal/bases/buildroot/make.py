"""Running Buildroot's make: in a sandbox with fixed paths, watched, and ended whole when hal ends.

Inside the sandbox everything has one name whatever the host calls it, so that what is built holds no path
of the host's, and ccache finds its objects again from any cache directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.bases.buildroot.progress import Course, Output, failed_first, read_timed, without_noise
from hal.cache import remove_tree
from hal.errors import HalError
from hal.progress import Reporter
from hal.run import environment, full, spawn
from hal.sandbox import Bind, Sandbox

TREE = "/hal/buildroot"
EXTERNAL = "/hal/external"
SERVICES = "/hal/services"
OUTPUT = "/hal/output"
CONFIG = "/hal/config"
DOWNLOADS = "/hal/dl"
CCACHE = "/hal/ccache"
TOOLCHAIN = "/hal/toolchain"
SOURCES = "/hal/sources"
"""The names inside the sandbox."""

HOST_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
"""What a download needs of the host: its name servers and the certificate authorities that it trusts."""

TAIL = 12
"""Lines of a failed package's log that an error shows."""

WIDTH = 300
PATIENCE = 20.0
"""Seconds that make gets to end by itself once it was told to."""


@dataclass(frozen=True)
class Places:
    """The host's directories of a build. `toolchain` and `sources` may be missing."""

    tree: Path
    external: Path
    services: Path
    output: Path
    config: Path
    downloads: Path
    ccache: Path
    toolchain: Path | None = None
    sources: Path | None = None

    def binds(self) -> list[Bind]:
        """What the sandbox sees of them."""
        found = [
            Bind(self.tree, TREE),
            Bind(self.external, EXTERNAL),
            Bind(self.services, SERVICES),
            Bind(self.output, OUTPUT, writable=True),
            Bind(self.config, CONFIG),
            Bind(self.downloads, DOWNLOADS, writable=True),
            Bind(self.ccache, CCACHE, writable=True),
        ]
        if self.toolchain is not None:
            found.append(Bind(self.toolchain, TOOLCHAIN))
        if self.sources is not None:
            found.append(Bind(self.sources, SOURCES))
        return found

    def logs(self) -> Path:
        """Where each package's output is kept."""
        return self.output / "logs"

    def on_host(self, path: str) -> Path:
        """The host's path for one of Buildroot's: inside the sandbox, or relative to its tree or output."""
        for bind in self.binds():
            if path == bind.target or path.startswith(f"{bind.target}/"):
                return bind.source / path[len(bind.target) :].lstrip("/")
        return self.output / path if path.startswith("build/") else self.tree / path


@dataclass(frozen=True)
class Make:
    """make, as Buildroot is run with it."""

    places: Places
    tools: Sandbox
    program: str = "make"

    def command(self, targets: Sequence[str], *, jobs: int = 1, network: bool = False) -> list[str]:
        """The host command line that makes `targets`."""
        variables = {"FORCE_UNSAFE_CONFIGURE": "1"}  # as root of a sandbox; host tools refuse that otherwise
        binds = self.places.binds()
        if network:
            binds.append(Bind(self._settings(), "/etc"))
            variables |= {name: value for name, value in environment().items() if name.endswith("_proxy")}
        return self.tools.command(
            [
                # Without hal's time Buildroot takes its own, which is the release's.
                *("env", "--unset=SOURCE_DATE_EPOCH"),
                *(self.program, "-C", TREE, "--no-print-directory", "--output-sync=recurse", f"-j{jobs}"),
                *(f"O={OUTPUT}", f"BR2_EXTERNAL={EXTERNAL}", *targets),
            ],
            binds=binds,
            network=network,
            env=variables,
        )

    def _settings(self) -> Path:
        """A copy of the tools' `/etc` with what a download needs of the host's, beside the output."""
        place = self.places.output.with_name(f"{self.places.output.name}.etc")
        remove_tree(place)
        shutil.copytree(self.tools.tree / "etc", place, symlinks=True)
        for file in HOST_FILES:
            if Path(file).exists():
                (place / Path(file).relative_to("/etc")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place / Path(file).relative_to("/etc"))
        return place

    def text(self, *targets: str, what: str) -> str:
        """What making `targets` prints on standard output; for those that take seconds.

        Raises:
            HalError: it failed; the error has its last lines.
        """
        process = spawn(self.command(targets), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate()
        except BaseException:
            end(process)
            raise
        if process.returncode != 0:
            raise _failed(what, (err or out).decode(errors="replace").splitlines(), None)
        return out.decode(errors="replace")

    def watched(
        self,
        targets: Sequence[str],
        *,
        step: str,
        reporter: Reporter,
        course: Course,
        jobs: int,
        network: bool = False,
    ) -> None:
        """Make `targets` and tell how far it is; every package's output goes to its own log.

        Raises:
            HalError: a package failed: its name, its own last lines and where its log is.
        """
        logs = self.places.logs()
        logs.mkdir(parents=True, exist_ok=True)
        times = self.places.output / "build" / "build-time.log"
        read = times.stat().st_size if times.exists() else 0
        command = self.command(targets, jobs=jobs, network=network)
        process = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_session=True)
        output = Output()
        written: dict[str, list[str]] = {}
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(step, reporter, course, done, read), daemon=True)
        watcher.start()
        try:
            assert process.stdout is not None
            with (logs / "make.log").open("a") as whole:
                for raw in process.stdout:
                    line = raw.decode(errors="replace")
                    whole.write(line)
                    package = output.hear(line)
                    if package is not None:
                        _log(logs, package, line, written)
            process.wait()
        except BaseException:
            end(process)
            raise
        finally:
            done.set()
            watcher.join()
        if process.returncode != 0:
            raise self._failure(step, output, written)

    def _watch(
        self, step: str, reporter: Reporter, course: Course, done: threading.Event, position: int
    ) -> None:
        """Follow build-time.log from a position on, and tell the reporter."""
        times = self.places.output / "build" / "build-time.log"
        rest, last = "", ""
        while True:
            ended = done.wait(0.5)
            with contextlib.suppress(OSError), times.open(errors="replace") as file:
                file.seek(position)
                new = file.read()
                position += len(new.encode())
                *lines, rest = (rest + new).split("\n")
                for line in lines:
                    timed = read_timed(line)
                    if timed is not None:
                        course.hear(timed)
            words = course.words(time.time())
            if words != last and (course.running or last):
                reporter.status(step, words)
                last = words
            if ended:
                return

    def _failure(self, step: str, output: Output, written: Mapping[str, list[str]]) -> HalError:
        failure = failed_first(output.failures)
        if failure is None or failure.directory is None:
            return _failed(step, output.tail, self.places.logs() / "make.log")
        package = min(
            (name for name in written if failure.directory.startswith(f"{name}-")),
            key=lambda name: len(failure.directory or "") - len(name),
            default=failure.directory,
        )
        log = self.places.logs() / f"{package}.log"
        return _failed(f"{step}: {failure.step} {package}", written.get(package, output.tail), log)


def _log(logs: Path, package: str, line: str, written: dict[str, list[str]]) -> None:
    """Add a line to a package's log, which begins anew with each run."""
    if package not in written:
        written[package] = []
        (logs / f"{package}.log").unlink(missing_ok=True)
    written[package] = [*written[package][-199:], line]
    with (logs / f"{package}.log").open("a") as file:
        file.write(line)


def _failed(what: str, lines: Sequence[str], log: Path | None) -> HalError:
    told = without_noise(lines)
    if full("\n".join(told)):
        return HalError(f"{what}: no space is left on the device", "free some space and run it again")
    return HalError(
        f"{what} failed",
        None if log is None else f"all of what it said is in {log}",
        details=tuple(f"  | {line[:WIDTH]}" for line in told[-TAIL:]),
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End make with all that it started: first as Ctrl-C would, so that no half-written file stays.

    The sandbox's own processes are left out at first: with them the rest would be killed at once.
    """
    for child in _descendants(process.pid):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{child}/comm").read_text().strip()
            if name not in ("bwrap", "unshare"):
                os.kill(child, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _descendants(pid: int) -> Iterator[int]:
    """A process and all below it, by what proc(5) says of every process' parent."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    left = [pid]
    while left:
        process = left.pop()
        yield process
        left += children.get(process, ())
