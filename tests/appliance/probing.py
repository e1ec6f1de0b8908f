"""Production images of the tests' own: with a program that looks around inside, or altered on purpose.

What is added or changed comes in where rendered files become a root, so that all else is built as ever: the
root's hash tree, the command line that names it, the UKI and the measurements.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hal import build
from hal.render.files import PROGRAM, RenderedFile, link
from hal.render.systemd import UNITS
from tests.appliance import probe
from tests.appliance.conftest import Appliance

Change = Callable[[dict[str, RenderedFile]], None]

SOURCE = Path(probe.__file__).read_text()
PLACE = "/usr/lib/hal/probe.py"
UNIT = f"""\
[Unit]
DefaultDependencies=no
After=hal-gateway.service
[Service]
ExecStart=/usr/bin/python3 -I {PLACE}
StandardOutput=journal+console
StandardError=journal+console
"""
SCRIPT = f'#!/bin/sh\n[ "$1" = start ] && /usr/bin/python3 -I {PLACE} >/dev/console 2>&1 </dev/null &\n'


def add_probe(files: dict[str, RenderedFile]) -> None:
    """Let an image look at itself."""
    files[PLACE] = RenderedFile(SOURCE, PROGRAM)
    if f"{UNITS}/appliance.target" in files:
        files[f"{UNITS}/probe.service"] = RenderedFile(UNIT)
        files[f"{UNITS}/appliance.target.wants/probe.service"] = link("../probe.service")
    else:
        files["/etc/init.d/S99probe"] = RenderedFile(SCRIPT, PROGRAM)


@contextmanager
def altered(change: Change) -> Iterator[None]:
    """Images that are built meanwhile have their rendered files changed."""
    honest = build.render

    def render(*arguments: Any) -> dict[str, RenderedFile]:
        files = dict(honest(*arguments))
        change(files)
        return files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "render", render)
        yield


def told(appliance: Appliance, seconds: float = 150) -> dict[str, Any]:
    """What the probe found, once it has told all of it."""
    parts: dict[int, str] = {}

    def complete() -> bool:
        found = re.findall(rf"{probe.MARK} (\d+)/(\d+) ([A-Za-z0-9+/=]+)\r?\n", appliance.vm.serial())
        parts.update((int(number), part) for number, _, part in found)
        return bool(found) and len(parts) == int(found[0][1])

    appliance.vm.wait(complete, appliance.deadline(seconds), "the probe")
    report: dict[str, Any] = json.loads(base64.b64decode("".join(parts[number] for number in sorted(parts))))
    return report
