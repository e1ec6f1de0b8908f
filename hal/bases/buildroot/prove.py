"""Proving a configuration: every line that was asked for is in what Kconfig makes of it.

Kconfig drops in silence what cannot be: a symbol that nobody defines, or whose dependencies are not met. Here
the lines that were asked for are compared with the `.config` that came out; what is missing is explained from
Kconfig's own tree (`hal.bases.buildroot.explain`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hal.bases.buildroot.make import EXTERNAL, OUTPUT, TOOLCHAIN
from hal.bases.buildroot.release import VERSION
from hal.errors import UsageError
from hal.sandbox import Bind

if TYPE_CHECKING:
    from hal.bases.buildroot.make import Make

EXPLAIN = Path(__file__).with_name("explain.py")

_SET = re.compile(r"([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# ([A-Za-z0-9_]+) is not set")


@dataclass(frozen=True)
class Line:
    """A line of a configuration, and where it comes from (`kernel[2]` of a spec, or a file).

    `value` is as in a .config, or None for a symbol that is to be off.
    """

    symbol: str
    value: str | None
    origin: str

    def __str__(self) -> str:
        return f"# {self.symbol} is not set" if self.value is None else f"{self.symbol}={self.value}"


@dataclass(frozen=True)
class Dropped:
    """A line that Kconfig did not take; `got` is what it made of the symbol, None: it is off or unknown."""

    line: Line
    got: str | None


def read_lines(text: str, origin: str) -> tuple[Line, ...]:
    """The lines of a defconfig or a fragment; comments and empty lines are none.

    Raises:
        UsageError: a line is neither.
    """
    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if match := _UNSET.fullmatch(line):
            found.append(Line(match[1], None, origin))
        elif not line or line.startswith("#"):
            continue
        elif match := _SET.fullmatch(line):
            found.append(Line(match[1], None if match[2] == "n" else match[2], origin))
        else:
            raise UsageError(
                f"{origin}, line {number}: {line!r} is no line of a configuration",
                'write SYMBOL=y, SYMBOL="text", SYMBOL=7 or # SYMBOL is not set',
            )
    return tuple(found)


def dropped(asked: Iterable[Line], config: str) -> list[Dropped]:
    """The lines that are not in the text of a `.config`. Of two lines for one symbol the later one counts."""
    values = {line.symbol: line.value for line in read_lines(config, ".config")}
    wanted = {line.symbol: line for line in asked}
    return [
        Dropped(line, values.get(line.symbol))
        for line in wanted.values()
        if values.get(line.symbol) != line.value
    ]


def refusal(what: str, found: Sequence[Dropped], reasons: Mapping[str, Sequence[str]]) -> UsageError:
    """The error that names every dropped line and why; `reasons` are by symbol."""
    details = []
    for item in found:
        got = "" if item.got is None else f" (it is {item.got})"
        details.append(f"  {item.line}{got}, from {item.line.origin}:")
        details += [f"    {reason}" for reason in reasons.get(item.line.symbol, ())]
    count = "1 line is" if len(found) == 1 else f"{len(found)} lines are"
    return UsageError(
        f"{what}: {count} not taken by Kconfig",
        "take the line out, or ask for what it depends on too",
        details=tuple(details),
    )


def explanation(
    make: Make,
    found: Sequence[Dropped],
    *,
    root: str,
    start: str,
    config: str,
    variables: Mapping[str, str],
    prefix: str = "",
) -> dict[str, list[str]]:
    """Why the lines were dropped, from the Kconfig tree at `root` (see `hal.bases.buildroot.explain`).

    Where kconfiglib cannot read that tree there is no reason: the symbols' names alone must do.
    """
    specification = importlib.util.find_spec("kconfiglib")
    if specification is None or specification.origin is None:
        return {}
    request = {
        "root": root,
        "start": start,
        "config": config,
        "variables": dict(variables),
        "prefix": prefix,
        "lines": [(item.line.symbol, item.line.value) for item in found],
    }
    library = Path(specification.origin)
    done = make.tools.run(
        ["python3", "/hal/explain.py", "/hal/lib"],
        binds=[
            *make.places.binds(),
            Bind(EXPLAIN, "/hal/explain.py"),
            Bind(library, f"/hal/lib/{library.name}"),
        ],
        input=json.dumps(request).encode(),
        check=False,
    )
    if done.returncode != 0:
        return {}
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


def buildroot_variables(config: str) -> dict[str, str]:
    """The environment that Buildroot's Kconfig files refer to; of the compiler, `.config` tells."""
    compilers = re.findall(r"^BR2_HOST_GCC_AT_LEAST_(\d+)=y$", config, re.MULTILINE)
    return {
        "CONFIG_": "",  # kconfiglib: what its .config has before the names
        "BASE_DIR": OUTPUT,
        "BR2_BASE_DIR": OUTPUT,
        "BR2_CONFIG": f"{OUTPUT}/.config",
        "BR2_EXTERNAL_HAL_PATH": EXTERNAL,
        "BR2_VERSION": VERSION,
        "BR2_VERSION_FULL": VERSION,
        "HOSTARCH": os.uname().machine,
        "HOST_GCC_VERSION": max(compilers, key=int, default=""),
        "SKIP_LEGACY": "",
    }


def kernel_variables(version: str) -> dict[str, str]:
    """The environment that the kernel's Kconfig files refer to; they ask the compiler what it can."""
    prefix = f"{TOOLCHAIN}/bin/x86_64-linux-"
    return {
        "ARCH": "x86_64",
        "SRCARCH": "x86",
        "KERNELVERSION": version,
        "CC": f"{prefix}gcc",
        "LD": f"{prefix}ld",
        "NM": f"{prefix}nm",
        "OBJCOPY": f"{prefix}objcopy",
        "AR": f"{prefix}ar",
        "HOSTCC": "gcc",
        "HOSTCXX": "g++",
        "CLANG_FLAGS": "",
        "RUSTC": "rustc",
        "BINDGEN": "bindgen",
        "PAHOLE": "pahole",
        "CC_VERSION_TEXT": "",
    }
