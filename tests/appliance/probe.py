"""Runs inside a production appliance as root, looks at everything, and tells it on the serial line as JSON.

A production image has no way in, so tests build one of theirs with this program added (see probing.py); all
else is what production has. It only looks and tries: what that should find is in test_hardening.py.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import http.client
import json
import os
import resource
import signal
import ssl
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "HAL-PROBE"
CHUNK = 600
SETTINGS = Path("/usr/lib/sysctl.d/hal.conf")
SKIPPED = ("/proc", "/sys")
LIBC = ctypes.CDLL(None, use_errno=True)
FINIT_MODULE, INIT_MODULE, KEXEC_LOAD, IOPL, CAPSET = 313, 175, 246, 172, 126
CAPABILITIES_3 = struct.pack("II", 0x20080522, 0)
PTRACE_ATTACH = 16


def text(path: str | Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def processes() -> Iterator[tuple[int, dict[str, str]]]:
    """The processes that are no kernel threads, with the fields of their status."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and text(entry / "cmdline"):
            fields = dict(line.split(":", 1) for line in text(entry / "status").splitlines() if ":" in line)
            yield int(entry.name), {key: value.strip() for key, value in fields.items()}


def sockets() -> dict[str, list[str]]:
    """The sockets that wait for somebody, by protocol: address:port in the kernel's hexadecimal."""
    found = {}
    for name in ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"):
        rows = [line.split() for line in text(f"/proc/net/{name}").splitlines()[1:]]
        found[name] = sorted(row[1] for row in rows if not name.startswith("tcp") or row[3] == "0A")
    unix = [line.split() for line in text("/proc/net/unix").splitlines()[1:]]
    found["abstract"] = sorted(row[7] for row in unix if len(row) > 7 and row[7].startswith("@"))
    return found


def files() -> dict[str, list[str]]:
    """Files that change the user, and those that all may write, of every file system but the kernel's own."""
    found: dict[str, list[str]] = {"setuid": [], "capable": [], "writable": []}
    stack = ["/"]
    while stack:
        directory = stack.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode) or entry.path in SKIPPED:
                continue
            kind = stat.filemode(status.st_mode)[0]
            if stat.S_ISREG(status.st_mode):
                if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                    found["setuid"].append(entry.path)
                with contextlib.suppress(OSError):
                    if "security.capability" in os.listxattr(entry.path):
                        found["capable"].append(entry.path)
            if status.st_mode & stat.S_IWOTH:
                sticky = "t" if status.st_mode & stat.S_ISVTX else ""
                found["writable"].append(f"{kind}{sticky} {entry.path}")
            if stat.S_ISDIR(status.st_mode):
                stack.append(entry.path)
    return {name: sorted(paths) for name, paths in found.items()}


def syscall(number: int, *arguments: Any) -> str:
    """What a system call says: the name of its error, or "done"."""
    ctypes.set_errno(0)
    if LIBC.syscall(number, *arguments) < 0:
        return errno.errorcode.get(ctypes.get_errno(), "?")
    return "done"


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "done"


def reading(path: str) -> str:
    def act() -> None:
        with Path(path).open("rb") as file:
            file.read(1)

    return attempt(act)


def writing(path: str, value: str) -> str:
    return attempt(lambda: Path(path).write_text(value))


def attempts() -> dict[str, str]:
    """What root tries against the kernel, and what comes of it."""
    module = os.memfd_create("module")
    os.write(module, b"\x7fELF")
    return {
        "load a module": syscall(FINIT_MODULE, module, b"", 0),
        "load a module from memory": syscall(INIT_MODULE, b"\x7fELF", 4, b""),
        "open modules again": writing("/proc/sys/kernel/modules_disabled", "0"),
        "start another kernel": syscall(KEXEC_LOAD, 0, 0, 0, 0),
        "ports": syscall(IOPL, 3),
        "/dev/mem": reading("/dev/mem"),
        "/dev/port": reading("/dev/port"),
        "/proc/kcore": reading("/proc/kcore"),
        "open lockdown": writing("/sys/kernel/security/lockdown", "none"),
        "look into a process": attempt(lambda: attached(1)),
        "write the root": writing("/usr/lib/hal/x", "x"),
        "mount the root writable": mounted_writable(),
    }


def attached(pid: int) -> None:
    if LIBC.ptrace(PTRACE_ATTACH, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def mounted_writable() -> str:
    done = subprocess.run(["mount", "-o", "remount,rw", "/"], capture_output=True)
    return "done" if done.returncode == 0 and not os.statvfs("/").f_flag & os.ST_RDONLY else "EROFS"


def crash() -> dict[str, object]:
    """A process that dies as one with a dump would, with all that it could do to get one."""
    directory = Path("/var/tmp/crash")
    directory.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.chdir(directory)
        os.kill(os.getpid(), signal.SIGSEGV)
    _, status = os.waitpid(child, 0)
    time.sleep(1)
    left = sorted(path.name for path in directory.iterdir())
    return {"signal": os.WTERMSIG(status), "left": left, "pattern": text("/proc/sys/kernel/core_pattern")}


def seen_by(pid: int, status: dict[str, str]) -> list[int]:
    """The users of the processes that a service sees in its own /proc."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        uids: list[int] = []
        with contextlib.suppress(OSError):
            spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "user")]
            for space in spaces:
                with contextlib.suppress(OSError):  # the user namespace that one is in cannot be entered
                    os.setns(space, 0)
            with contextlib.suppress(OSError):  # nor may one give groups up in one of systemd's
                os.setgroups([])
            gid, uid = int(status["Gid"].split()[0]), int(status["Uid"].split()[0])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            if not int(status["CapEff"], 16):
                syscall(CAPSET, CAPABILITIES_3, bytes(24))  # as a service of root's that gave all of them up
            uids = sorted({entry.stat().st_uid for entry in Path("/proc").iterdir() if entry.name.isdigit()})
        os.write(writer, json.dumps(uids).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return list(json.loads(answer or "[]"))


def terminals() -> list[str]:
    """Processes with a controlling terminal (proc_pid_stat(5), tty_nr), or with one as their input."""
    found = []
    for pid, status in processes():
        terminal = text(f"/proc/{pid}/stat").rpartition(")")[2].split()[4:5] not in ([], ["0"])
        with contextlib.suppress(OSError):
            terminal |= Path(f"/proc/{pid}/fd/0").readlink().name.startswith(("tty", "console", "hvc"))
        if terminal and pid not in (1, os.getpid()):  # the kernel gave PID 1 its console
            found.append(status["Name"])
    return sorted(found)


def settings() -> dict[str, str | None]:
    """Each kernel setting of the appliance as it is now; None where the kernel has none of this name."""
    found: dict[str, str | None] = {}
    for line in text(SETTINGS).splitlines():
        if line and not line.startswith("#"):
            key = line.lstrip("-").partition("=")[0].strip()
            path = Path("/proc/sys", key.replace(".", "/"))
            found[key] = text(path).strip() if path.exists() else None
    return found


def services() -> list[dict[str, Any]]:
    """Each process with its user, its bounds and what it sees of others."""
    return [
        {
            "name": status["Name"],
            "pid": pid,
            "uid": int(status["Uid"].split()[0]),
            "bounding": int(status["CapBnd"], 16),
            "core": next(
                line.split()[4:6] for line in text(f"/proc/{pid}/limits").splitlines() if "core" in line
            ),
            "sees": seen_by(pid, status),
        }
        for pid, status in processes()
        if pid != os.getpid()
    ]


def names(directory: str) -> list[str]:
    """Everything under a directory, by its path."""
    root = Path(directory)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*")) if root.exists() else []


def units() -> list[str]:
    """systemd's units and the state of each file, where there is systemd."""
    if not Path("/run/systemd/system").exists():
        return []
    done = subprocess.run(
        ["systemctl", "list-unit-files", "--no-legend", "--no-pager"], capture_output=True, text=True
    )
    return sorted(" ".join(line.split()[:2]) for line in done.stdout.splitlines())


def lockdown() -> str:
    if not Path("/sys/kernel/security/lockdown").exists():
        subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=False)
    return text("/sys/kernel/security/lockdown").strip()


def answered(path: str, status: int) -> bool:
    context = ssl._create_unverified_context()
    try:
        connection = http.client.HTTPSConnection("127.0.0.1", 7001, timeout=20, context=context)
        connection.request("GET", path)
        return connection.getresponse().status == status
    except OSError:
        return False


def wait() -> None:
    """Until an engine serves and the attestor has been asked, so that everything runs that ever will."""
    for path, status in (("/health", 200), ("/attestation", 400)):
        for _ in range(120):
            if answered(path, status):
                break
            time.sleep(1)


def main() -> None:
    wait()
    found = {
        "lockdown": lockdown(),
        "sockets": sockets(),
        "services": services(),
        "terminals": terminals(),
        "settings": settings(),
        "files": files(),
        "attempts": attempts(),
        "crash": crash(),
        "command line": text("/proc/cmdline").strip(),
        "hostname": os.uname().nodename,
        "users": text("/etc/passwd") + text("/etc/shadow") + text("/etc/group"),
        "root's home": names("/root"),
        "credentials": names("/run/credentials"),
        "given units": names("/run/systemd/system") + names("/run/systemd/system.control"),
        "generated": names("/run/systemd/generator") + names("/run/systemd/generator.early"),
        "units": units(),
        "EFI variables": names("/sys/firmware/efi/efivars"),
        "environment": sorted(text("/proc/1/environ").split("\0")),
        "mounts": sorted({" ".join(line.split()[1:4]) for line in text("/proc/1/mounts").splitlines()}),
        "python": sys.version.split()[0],
    }
    encoded = base64.b64encode(json.dumps(found).encode()).decode()
    parts = [encoded[start : start + CHUNK] for start in range(0, len(encoded), CHUNK)]
    with open("/dev/ttyS0", "w") as line:  # noqa: PTH123
        for number, part in enumerate(parts, start=1):
            line.write(f"\n{MARK} {number}/{len(parts)} {part}\n")
            line.flush()


if __name__ == "__main__":
    main()
