"""Running programs inside a directory tree that is not the host's.

Every image tool (mkfs.erofs, ukify, QEMU, …) runs from hal's own tools tree, so that the host's
versions never reach the output. A `Sandbox` turns a command into a bubblewrap command line that
sees the tree's `/usr`, its own process and mount namespaces, no network unless asked, and only those
host paths that it is given, under the same names as on the host. The kernel removes its mounts and
processes with it, however hal ends.

As root the command runs as root. Otherwise it runs as root of a user namespace that maps the
caller's subordinate ids (`/etc/subuid`), so that files can belong to the users of the image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.run import ENVIRONMENT, Completed, run

HOST_NAME = "hal"
"""What programs see as the host's name; the real one must not reach the output."""

ROOT_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
"""A merged-/usr root, as in Debian since 12 (Debian policy 10.1, file-hierarchy(7))."""


@dataclass(frozen=True)
class Bind:
    """A host directory under another name inside: for programs whose output holds the paths they work in."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Sandbox:
    """A root tree to run programs from.

    `tree` holds `usr/` and `etc/`; `epoch` is the time (seconds since 1970) that reproducible tools
    write in place of the clock's (`SOURCE_DATE_EPOCH`).
    """

    tree: Path
    epoch: int

    def command(
        self,
        argv: Sequence[str],
        *,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        binds: Sequence[Bind] = (),
        devices: Sequence[Path] = (),
        host_devices: bool = False,
        network: bool = False,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The host command line that runs `argv` inside; paths keep their host names."""
        words = [
            *namespace(),
            "bwrap",
            *("--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--hostname", HOST_NAME, "--cap-add", "ALL", "--clearenv"),
        ]
        if not network:
            words.append("--unshare-net")
        for part in ("usr", "etc"):
            words += ["--ro-bind", str(self.tree / part), f"/{part}"]
        for name, target in ROOT_LINKS.items():
            words += ["--symlink", target, f"/{name}"]
        words += [
            "--proc",
            "/proc",
            "--ro-bind",
            "/sys",
            "/sys",
            "--tmpfs",
            "/tmp",
            "--tmpfs",
            "/run",
            "--dir",
            "/var/tmp",
        ]
        words += ["--dev-bind", "/dev", "/dev"] if host_devices else ["--dev", "/dev"]
        for device in devices:
            words += ["--dev-bind", str(device), str(device)]
        for path in readable:
            words += ["--ro-bind", str(path), str(path)]
        for path in writable:
            words += ["--bind", str(path), str(path)]
        for bind in binds:
            words += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
        variables = {
            "PATH": "/usr/sbin:/usr/bin",
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "SOURCE_DATE_EPOCH": str(self.epoch),
            **ENVIRONMENT,
            **(env or {}),
        }
        for name, value in variables.items():
            words += ["--setenv", name, value]
        words += ["--chdir", str(cwd or "/"), "--", *argv]
        return words

    def run(
        self,
        argv: Sequence[str],
        *,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        binds: Sequence[Bind] = (),
        host_devices: bool = False,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,
        check: bool = True,
        what: str | None = None,
    ) -> Completed:
        """Run `argv` inside to its end; see `hal.run.run` for the result and the errors."""
        command = self.command(
            argv,
            readable=readable,
            writable=writable,
            binds=binds,
            host_devices=host_devices,
            cwd=cwd,
            env=env,
        )
        return run(command, input=input, check=check, what=what or argv[0])


def namespace() -> list[str]:
    """What comes before a command when the caller is not root: a user namespace with all its ids."""
    if os.geteuid() == 0:
        return []
    return ["unshare", "--user", "--map-root-user", "--map-auto", "--"]
