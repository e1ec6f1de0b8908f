"""Compiles system call filters for init scripts; runs in the tools tree, with a root tree as its argument.

systemd makes a filter of a unit's directives when it starts the unit. Where there is no systemd, each
/usr/lib/hal/filters/NAME.json of a root tree becomes NAME.bpf beside it, which setpriv(1) loads. Groups of
system calls are systemd's own, as `systemd-analyze syscall-filter` lists them; libseccomp writes the program.
"""

from __future__ import annotations

import ctypes
import errno
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

FILTERS = "usr/lib/hal/filters"

# seccomp(3) and /usr/include/seccomp.h
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
OPTIMIZE, BINARY_TREE = 8, 2

NEW_NAMESPACES = 0x7E020080
"""The flags of clone(2) that make namespaces (CLONE_NEW* in linux/sched.h)."""

PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


@cache
def groups() -> dict[str, list[str]]:
    """systemd's groups of system calls: what each lists, other groups among it."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[str]] = {}
    name = ""
    for line in listed.splitlines():
        word = line.strip()
        if line.startswith("@"):
            name = word
            found[name] = []
        elif line.startswith("    ") and not word.startswith("#"):
            found[name].append(word)
    return found


def expanded(words: Sequence[str]) -> set[str]:
    """System calls by name; `@group` stands for all of systemd's group."""
    found: set[str] = set()
    for word in words:
        found |= expanded(groups()[word]) if word.startswith("@") else {word}
    return found


def allowed(lines: Sequence[str]) -> set[str]:
    """The system calls of `SystemCallFilter=` lines (systemd.exec(5)): a list, then lists to take away."""
    found: set[str] = set()
    for line in lines:
        if line.startswith("~"):
            found -= expanded(line[1:].split())
        else:
            found |= expanded(line.split())
    return found


class Filter:
    """A filter in the making: what no rule allows fails with EPERM."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.library.seccomp_init.argtypes = [ctypes.c_uint32]
        self.context = ctypes.c_void_p(self.library.seccomp_init(ERRNO | errno.EPERM))
        self._checked(self.library.seccomp_attr_set(self.context, OPTIMIZE, BINARY_TREE))

    def rule(self, name: str, *comparisons: Comparison, action: int = ALLOW) -> None:
        """Allow a system call where all comparisons hold; one that this machine lacks is left out."""
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            array = (Comparison * len(comparisons))(*comparisons)
            self._checked(
                self.library.seccomp_rule_add_array(
                    self.context, ctypes.c_uint32(action), number, len(comparisons), array
                )
            )

    def write(self, path: Path) -> None:
        """Write the program, an array of struct sock_filter."""
        with path.open("wb") as file:
            self._checked(self.library.seccomp_export_bpf(self.context, file.fileno()))

    @staticmethod
    def _checked(result: int) -> None:
        if result < 0:
            raise OSError(-result, "libseccomp")


def compiled(data: dict[str, object]) -> Filter:
    """The filter that a rendered file describes; its keys are those of hal/render/filters.py."""
    calls, families = data["system_calls"], data["address_families"]
    assert isinstance(calls, list) and isinstance(families, list)
    # setpriv sets its capabilities once more after it has loaded the filter; there are none by then.
    names = allowed(calls) - {"unshare", "setns"} | {"capset"}
    made = Filter()
    special = {"clone", "clone3", "socket"}
    made.rule("clone", Comparison(0, MASKED_EQUAL, NEW_NAMESPACES, 0))
    # Its flags lie in memory, which a filter cannot see; C libraries then use clone.
    made.rule("clone3", action=ERRNO | errno.ENOSYS)
    for family in families:
        made.rule("socket", Comparison(0, EQUAL, FAMILIES[family], 0))
    if not data["write_and_execute"]:
        special |= {"mmap", "mprotect", "pkey_mprotect"}
        for protection in (0, PROT_WRITE, PROT_EXEC):
            made.rule("mmap", Comparison(2, MASKED_EQUAL, PROT_WRITE | PROT_EXEC, protection))
        for name in ("mprotect", "pkey_mprotect"):
            made.rule(name, Comparison(2, MASKED_EQUAL, PROT_EXEC, 0))
    for name in sorted(names - special):
        made.rule(name)
    return made


def main() -> int:
    """Compile every filter of the root tree that is given."""
    for path in sorted((Path(sys.argv[1]) / FILTERS).glob("*.json")):
        compiled(json.loads(path.read_text())).write(path.with_suffix(".bpf"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
