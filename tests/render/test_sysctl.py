"""The kernel's settings: one file for both init systems, which hal-init and sysctl.d(5) read alike."""

from __future__ import annotations

import re
from pathlib import Path

from hal.render import Rendered, render
from hal.render.sysctl import COMMON, PATH, settings
from hal.spec.loading import LoadedSpec, parse_spec
from tests.render.conftest import PACKS

READ_AT_ONCE = 16384
"""Bytes of the file that hal-init takes (services/init/hardening.c)."""


def test_every_line_is_a_setting_with_its_reason(files: Rendered) -> None:
    lines = files[PATH].content.splitlines()
    made = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"-?[a-z0-9_]+(\.[a-z0-9_]+)+ = [!-~]+", line) for line in made)
    assert all(lines[number - 1].startswith("# ") for number, line in enumerate(lines) if line in made)
    keys = [line.lstrip("-").partition(" ")[0] for line in made]
    assert len(keys) == len(set(keys)) == len(COMMON) + 2
    assert len(files[PATH].content) < READ_AT_ONCE


def test_modules_are_closed_last() -> None:
    for variant in ("production", "debug"):
        assert list(settings(variant))[-1].key == "kernel.modules_disabled"


def test_only_tracing_differs_in_a_debug_image() -> None:
    production, debug = ({one.key: one.value for one in settings(name)} for name in ("production", "debug"))
    assert {key for key in production if production[key] != debug[key]} == {"kernel.yama.ptrace_scope"}


def test_init_scripts_have_the_same_file(production: LoadedSpec) -> None:
    text = (
        "appliance: {name: prod, version: 2.0.0}\ninit: sysv\nengines: [llamacpp]\nmodels: [smollm2-135m]\n"
        f"gateway: {{tokens: [{{name: alice, sha256: {'2b' * 32}}}]}}\n"
    )
    assert render(parse_spec(text, Path("prod.yaml")), PACKS)[PATH] == render(production, PACKS)[PATH]
