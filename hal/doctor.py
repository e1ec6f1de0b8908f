"""What this host has and lacks for building and booting, and the command that mends each lack.

A check is a function of a `Host`, which holds the few facts and probes that it may ask for, so that
every finding is tested without a machine that has the defect.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hal.cache import default_root
from hal.errors import HalError
from hal.fetch.debian_mirror import find_mirror
from hal.lock.debian import KEYRING
from hal.run import Completed, run
from hal.sandbox import Sandbox

State = Literal["ok", "note", "missing"]
"""`note`: hal works, with a limit that `meaning` names. `missing`: a build fails."""

PYTHON_NEEDED = (3, 11)
SPACE_NEEDED = 3_000_000_000
"""Bytes for a first build: downloads, the tools and base trees, packs and the disk image."""

SUBORDINATE_IDS = 65_536
"""The ids of an image's users, 0 to 65,535 (Debian policy 9.2.2), are mapped to as many of the caller's."""

PERSISTENT_SETTING = "/etc/sysctl.d/60-hal.conf"


@dataclass(frozen=True)
class Finding:
    """A line of the diagnosis: what was looked at, its state, what that means, the command that mends it."""

    name: str
    state: State
    meaning: str
    mend: str | None = None


@dataclass(frozen=True)
class Host:
    """What a check may ask of a machine.

    `root` is where its files are looked up, `which` says whether a program is on the PATH, `run` runs one,
    `accessible` tells whether a path can be read and written, `free` gives the free bytes where a path is.
    """

    root: Path
    cache: Path
    euid: int
    user: str
    python: tuple[int, int, int]
    which: Callable[[str], bool]
    run: Callable[[Sequence[str]], Completed]
    accessible: Callable[[Path], bool]
    free: Callable[[Path], int]

    def text(self, path: str) -> str | None:
        """The content of a file below `root`, stripped; None when it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def as_root(self, command: str) -> str:
        """The command as this caller types it to run it as root."""
        return command if self.euid == 0 else f"sudo {command}"

    def install(self, package: str) -> str:
        """The command that installs a Debian package."""
        return self.as_root(f"apt-get install {package}")


def this_host() -> Host:
    """The machine that hal runs on."""
    version = sys.version_info
    return Host(
        root=Path("/"),
        cache=default_root(),
        euid=os.geteuid(),
        user=_user_name(os.geteuid()),
        python=(version.major, version.minor, version.micro),
        which=lambda name: shutil.which(name) is not None,
        run=lambda argv: run(argv, check=False),
        accessible=lambda path: os.access(path, os.R_OK | os.W_OK),
        free=lambda path: shutil.disk_usage(path).free,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # containers may run as an id that no account has
        return str(uid)


def diagnose(host: Host | None = None) -> list[Finding]:
    """Every finding about a host, in the order in which they are worth mending."""
    host = host or this_host()
    return [finding for check in CHECKS if (finding := check(host)) is not None]


def python(host: Host) -> Finding:
    """hal's own interpreter."""
    version = ".".join(map(str, host.python))
    if host.python[:2] < PYTHON_NEEDED:
        needed = ".".join(map(str, PYTHON_NEEDED))
        meaning = f"{version}: hal needs {needed} or newer"
        return Finding("python", "missing", meaning, host.install("python3"))
    return Finding("python", "ok", version)


def package_tools(host: Host) -> Finding:
    """The two programs that unpack Debian packages into the tools tree."""
    lacking = [name for name in ("dpkg-deb", "tar") if not host.which(name)]
    if lacking:
        packages = " ".join("dpkg" if name == "dpkg-deb" else name for name in lacking)
        meaning = f"{' and '.join(lacking)} not found: no Debian package can be unpacked"
        return Finding("dpkg-deb, tar", "missing", meaning, host.install(packages))
    return Finding("dpkg-deb, tar", "ok", "Debian packages can be unpacked")


def bubblewrap(host: Host) -> Finding:
    """The program that runs image tools in namespaces of their own."""
    if not host.which("bwrap"):
        meaning = "bwrap not found: no image tool can run"
        return Finding("bubblewrap", "missing", meaning, host.install("bubblewrap"))
    return Finding("bubblewrap", "ok", "installed")


def uidmap(host: Host) -> Finding | None:
    """Without root: the program that maps a range of the caller's ids."""
    if host.euid == 0:
        return None
    if not host.which("newuidmap"):
        meaning = "newuidmap not found: without root, ids cannot be mapped"
        return Finding("uidmap", "missing", meaning, host.install("uidmap"))
    return Finding("uidmap", "ok", "installed")


def subordinate_ids(host: Host) -> Finding | None:
    """Without root: the ids that stand for the image's users (subuid(5), subgid(5))."""
    if host.euid == 0:
        return None
    name = "subordinate ids"
    files = ("/etc/subuid", "/etc/subgid")
    lacking = [file for file in files if _largest_range(host.text(file), host) < SUBORDINATE_IDS]
    if lacking:
        meaning = f"{' and '.join(lacking)} give {host.user} fewer than {SUBORDINATE_IDS:,} ids"
        ranges = "--add-subuids 100000-165535 --add-subgids 100000-165535"
        return Finding(name, "missing", meaning, host.as_root(f"usermod {ranges} {host.user}"))
    return Finding(name, "ok", f"{host.user} has a range of at least {SUBORDINATE_IDS:,}")


def _largest_range(text: str | None, host: Host) -> int:
    """The most ids that one line `USER:FIRST:COUNT` gives to the caller."""
    rows = [line.split(":") for line in (text or "").splitlines()]
    mine = [row for row in rows if row[0] in (host.user, str(host.euid))]
    return max((int(row[2]) for row in mine if len(row) == 3 and row[2].isdigit()), default=0)


def namespaces(host: Host) -> Finding | None:
    """Whether a sandbox, exactly as builds use it, can run a program."""
    if not host.which("bwrap") or (host.euid != 0 and not host.which("newuidmap")):
        return None  # the findings above say so
    name = "namespaces"
    try:
        done = host.run(Sandbox(Path("/"), 0).command(["true"]))
    except HalError as error:
        return Finding(name, "missing", error.message, host.install("util-linux"))
    if done.returncode == 0:
        return Finding(name, "ok", "a sandbox can be made")
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    for setting, forbids, value in USER_NAMESPACE_SETTINGS:
        if host.euid != 0 and host.text(f"/proc/sys/{setting.replace('.', '/')}") == forbids:
            change = f"echo {setting}={value} | {host.as_root(f'tee {PERSISTENT_SETTING}')}"
            return Finding(
                name,
                "missing",
                f"{setting}={forbids} forbids user namespaces to those who are not root ({said})",
                f"{change} && {host.as_root('sysctl --system')}",
            )
    if host.euid == 0:
        mend = "in a container: start it with --privileged, or build outside it"
    else:
        mend = "run hal as root, or allow user namespaces on this machine"
    return Finding(name, "missing", f"no sandbox can be made ({said})", mend)


USER_NAMESPACE_SETTINGS = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 23.10 and newer
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels before 5.10
    ("user.max_user_namespaces", "0", "65536"),  # hardening guides
)
"""Kernel settings that forbid user namespaces: name, the value that does, the one that allows them."""


def debian_mirror(host: Host) -> Finding:
    """Where Debian packages come from."""
    try:
        found = find_mirror(host.root)
    except HalError as error:
        mend = f"{host.install('mmdebstrap')}, or set HAL_DEBIAN_MIRROR=URL"
        return Finding("Debian mirror", "missing", error.message, mend)
    return Finding("Debian mirror", "ok", f"{found.main}, from {found.chosen_by}")


def keyring(host: Host) -> Finding:
    """The keys of Debian's archive. Pinned packages are checked by their sha256 and need none."""
    if host.text(str(KEYRING)) is None:
        meaning = "not installed: `hal lock` and successors of packages that are gone need it"
        return Finding("Debian keyring", "note", meaning, host.install("debian-archive-keyring"))
    return Finding("Debian keyring", "ok", "package lists can be verified")


def apt(host: Host) -> Finding:
    """The program that reads Debian's signed package lists."""
    if not host.which("apt-get"):
        meaning = "apt-get not found: `hal lock` and successors of packages that are gone need it"
        return Finding("apt", "note", meaning, "run `hal lock` on a Debian or Ubuntu host")
    if not any(host.which(name) for name in ("gpgv", "sqv")):  # apt uses either, see apt-secure(8)
        meaning = "neither gpgv nor sqv found: apt cannot check signatures"
        return Finding("apt", "note", meaning, host.install("gpgv"))
    return Finding("apt", "ok", "`hal lock` can resolve packages")


def cache_directory(host: Host) -> Finding:
    """The cache: writable, with room for a first build."""
    name = "cache"
    place = next(path for path in (host.cache, *host.cache.parents) if path.exists())
    if not place.is_dir() or not host.accessible(place):
        mend = "export HAL_CACHE=/a/directory/of/yours"
        return Finding(name, "missing", f"{host.cache}: cannot be written", mend)
    free = host.free(place)
    room = f"{free / 1e9:.1f} GB are free"
    if free >= SPACE_NEEDED:
        return Finding(name, "ok", f"{host.cache}: {room}")
    meaning = f"{host.cache}: {room}, a first build needs {SPACE_NEEDED / 1e9:.0f} GB"
    mend = "free some space, or export HAL_CACHE=/a/directory/on/a/larger/disk"
    return Finding(name, "note" if (host.cache / "trees").is_dir() else "missing", meaning, mend)


def kvm(host: Host) -> Finding:
    """Hardware virtualisation: the processor has it and the caller may use the device.

    The device alone says little: where the processor's flag is hidden, guests hang in their first code.
    """
    flags = re.findall(r"^flags\s*:.*$", host.text("/proc/cpuinfo") or "", re.MULTILINE)
    if not any({"vmx", "svm"} & set(line.split()) for line in flags):
        meaning = "the processor offers no virtualisation: appliances boot emulated, slower"
        return Finding("kvm", "note", meaning)
    device = host.root / "dev/kvm"
    if not device.exists():
        meaning = "/dev/kvm is not there: appliances boot emulated, slower"
        return Finding("kvm", "note", meaning, host.as_root("modprobe -a kvm kvm_intel kvm_amd"))
    if not host.accessible(device):
        meaning = f"{host.user} may not use /dev/kvm: appliances boot emulated, slower"
        return Finding("kvm", "note", meaning, host.as_root(f"usermod --append --groups kvm {host.user}"))
    return Finding("kvm", "ok", "appliances boot with hardware virtualisation")


def ssh_client(host: Host) -> Finding:
    """The client that looks into debug appliances."""
    if not host.which("ssh"):
        meaning = "ssh not found: debug appliances and `hal test` need it"
        return Finding("ssh", "note", meaning, host.install("openssh-client"))
    return Finding("ssh", "ok", "debug appliances can be entered")


CHECKS: tuple[Callable[[Host], Finding | None], ...] = (
    python,
    package_tools,
    bubblewrap,
    uidmap,
    subordinate_ids,
    namespaces,
    debian_mirror,
    keyring,
    apt,
    cache_directory,
    kvm,
    ssh_client,
)
