"""What a program and all its children take of the machine (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU seconds, of ended children too; resident bytes, what is shared counted once for each process."""

    cpu: float
    memory: int


def children(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def usage(pids: Iterable[int]) -> Usage:
    """The sum over processes."""
    cpu, memory = 0.0, 0
    for pid in pids:
        if fields := _stat(pid):
            cpu += _seconds(pid, fields)
            memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return Usage(cpu, memory)


def _seconds(pid: int, fields: list[str]) -> float:
    """User and system time; by the scheduler's account, in nanoseconds, where the kernel keeps one."""
    waited = int(fields[13]) + int(fields[14])
    own = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            own += int((task / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return (int(fields[11]) + int(fields[12]) + waited) / TICKS
    return own / 1e9 + waited / TICKS


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` on (there the third); empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
