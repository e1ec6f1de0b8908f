"""Specs that are wrong, in pieces, and how all of their problems must be told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hal.engines import available_engines
from hal.errors import EXIT_USAGE
from hal.models import available_models
from hal.profiles import profile_names
from hal.spec.loading import SpecError, parse_spec

HEAD = "appliance: {name: a, version: 1.0.0}\n"
ENGINES = "engines: [llamacpp]\n"
MODELS = "models: [smollm2-135m]\n"
STARTER = HEAD + ENGINES + MODELS
SHA = "a" * 64
TINY = f"{{name: t.gguf, size: 3, sha256: {SHA}, source: {{kind: file, path: t.gguf}}}}"
INLINE = HEAD + ENGINES + "models:\n  - name: tiny\n    format: gguf\n    files:\n      - "
OTHER_TOKEN = "b" * 64
KNOWN = f"engines: {', '.join(available_engines())}"
KNOWN_MODELS = f"models: {', '.join(available_models())}"
KNOWN_PROFILES = f"profiles: {', '.join(profile_names())}"
NO_LAMACPP = "there is no engine 'lamacpp' (did you mean llamacpp?); engines: " + ", ".join(
    available_engines()
)
MODELS_THERE = "models: " + ", ".join(available_models())

JARGON = re.compile(r"pydantic|valid (dictionary|tuple|string)|instance of|Input should|Traceback|tuple|dict")
"""Words of the libraries underneath, which no user should have to know."""


def assert_told(text: str, expected: list[str], directory: Path) -> None:
    """Every problem of a spec is told, each with its line, in plain words; `directory` has a file t.gguf."""
    (directory / "t.gguf").write_bytes(b"abc")
    file = directory / "appliance.yaml"
    with pytest.raises(SpecError) as caught:
        parse_spec(text, file)
    error = caught.value
    told = [line.removeprefix(f"{file}:").replace(str(directory), "DIR") for line in error.details]
    assert told == sorted(expected, key=lambda line: int(line.partition(":")[0])), told
    assert not JARGON.search(" ".join(told))
    assert error.exit_code == EXIT_USAGE
    assert error.message.startswith(f"{file} is not a valid spec: {len(expected)} problem")
