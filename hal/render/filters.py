"""System call filters for init scripts: what the units have, for hal/image/syscall_filters.py to compile."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hal.render.files import RenderedFile, origin
from hal.render.sandbox import Exemption, sandbox
from hal.spec.loading import LoadedSpec

DIRECTORY = "/usr/lib/hal/filters"
RECIPE = "1"
"""Changes when hal/image/syscall_filters.py makes other filters of the same data."""


def filter_path(name: str) -> str:
    """The compiled filter of a service."""
    return f"{DIRECTORY}/{name}.bpf"


def filter_file(
    loaded: LoadedSpec, name: str, exemptions: Mapping[str, Exemption]
) -> dict[str, RenderedFile]:
    """The description of a service's filter, out of the same directives as its unit would have."""
    values: dict[str, list[str]] = {}
    for directive in sandbox(exemptions):
        values.setdefault(directive.name, []).extend(directive.value.split("\n"))
    data = {
        "generated": origin(loaded),
        "recipe": RECIPE,
        "system_calls": values["SystemCallFilter"],
        "address_families": values["RestrictAddressFamilies"][0].split(),
        "write_and_execute": values["MemoryDenyWriteExecute"] != ["yes"],
    }
    return {f"{DIRECTORY}/{name}.json": RenderedFile(json.dumps(data, indent=2) + "\n")}
