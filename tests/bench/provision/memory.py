"""What a process has needed. `getrusage` would do, but that of a child begins with its parent's memory."""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """The most resident memory that this process has had, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
