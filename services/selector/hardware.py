"""What the machine has, against what each engine takes.

The selector's sandbox hides devices and /proc; hal-control, which runs as root, writes down once what there
is, as lines of a word and its values (`/usr/lib/hal/control`):

    memory KIB              MemTotal of /proc/meminfo
    nvidia COUNT            device nodes /dev/nvidia0, /dev/nvidia1, …
    amd COUNT               graphics cards of AMD's driver, where there is /dev/kfd
    intel COUNT             graphics cards and accelerators of Intel's drivers
    vram KIND BYTES         memory of one of them, where a driver says it (amdgpu in /sys, nvidia-smi)

Reasons only speak of what is known: an engine fits where nobody can tell.
"""

from __future__ import annotations

from typing import NamedTuple

from .config import EngineConfig, Needs

LARGEST_FILE = 65536
MIB = 1 << 20

NAMES = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}


class Hardware(NamedTuple):
    """Bytes of memory, how many GPUs of each make, and the memory of those that tell; 0 where not known."""

    memory: int = 0
    gpus: tuple[tuple[str, int], ...] = ()
    vram: tuple[tuple[str, int], ...] = ()
    known: bool = False

    def count(self, kind: str) -> int:
        """GPUs of a make."""
        return sum(count for name, count in self.gpus if name == kind)

    def memories(self, kind: str) -> list[int]:
        """Bytes of each GPU of a make that tells, largest first."""
        return sorted((size for name, size in self.vram if name == kind), reverse=True)


def parse(text: str) -> Hardware:
    """The hardware in hal-control's file; lines that are not understood count as not there."""
    memory, gpus, vram = 0, [], []
    for line in text.splitlines():
        match line.split():
            case ["memory", kib] if _number(kib):
                memory = int(kib) * 1024
            case [("nvidia" | "amd" | "intel") as kind, count] if _number(count):
                gpus.append((kind, int(count)))
            case ["vram", ("nvidia" | "amd" | "intel") as kind, size] if _number(size):
                vram.append((kind, int(size)))
    return Hardware(memory, tuple(gpus), tuple(vram), bool(memory or gpus))


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def read(path: str) -> Hardware:
    """The hardware as hal-control found it; nothing known where it has not said."""
    if not path:
        return Hardware()
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 (pathlib costs at start-up)
            return parse(file.read(LARGEST_FILE))
    except OSError:
        return Hardware()


def lacking(needs: Needs, hardware: Hardware) -> str:
    """Why an engine cannot run on this machine; empty where it can, or nobody can tell."""
    if not hardware.known:
        return ""
    if hardware.memory and needs.memory > hardware.memory:
        return f"it takes {_size(needs.memory)} of memory, and the machine has {_size(hardware.memory)}"
    if not needs.gpu:
        return ""
    make, there = NAMES[needs.gpu], hardware.count(needs.gpu)
    if there == 0:
        others = ", ".join(f"{count} of {NAMES[kind]}" for kind, count in hardware.gpus if count)
        return f"there is no {make} GPU" + (f" (but {others})" if others else "")
    if there < needs.gpus:
        return f"it takes {needs.gpus} {make} GPUs, and there are {there}"
    told = hardware.memories(needs.gpu)
    # Only where every card tells: the one that does not might be the one that has room.
    if needs.vram and len(told) >= there:
        room = sum(told[: needs.gpus or there])
        if needs.vram > room:
            return f"it takes {_size(needs.vram)} of GPU memory, and there are {_size(room)}"
    return ""


def fits(engines: tuple[EngineConfig, ...], hardware: Hardware) -> dict[str, str]:
    """For each engine, why it cannot run here; empty where it can. An endpoint elsewhere takes nothing."""
    return {engine.name: lacking(engine.needs, hardware) if engine.managed else "" for engine in engines}


def words(hardware: Hardware) -> str:
    """The hardware in a line for people."""
    if not hardware.known:
        return "not known: hal-control has not said"
    parts = [f"{_size(hardware.memory)} of memory"] if hardware.memory else []
    for kind, count in hardware.gpus:
        if count:
            told = hardware.memories(kind)
            sizes = f" with {', '.join(_size(size) for size in told)}" if told else ", their memory not known"
            parts.append(f"{count} {NAMES[kind]} GPU{'s' if count > 1 else ''}{sizes}")
    if not any(count for _, count in hardware.gpus):
        parts.append("no GPU")
    return ", ".join(parts)


def _size(count: int) -> str:
    if count >= 1024 * MIB:
        return f"{count / (1024 * MIB):.1f} GiB"
    return f"{count // MIB} MiB"
