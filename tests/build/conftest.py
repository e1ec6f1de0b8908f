"""A filled cache for builds that are disturbed: killed, interrupted, out of space."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.sandbox import Sandbox
from tests.build.builder import HAL, PROJECT, Builder, error_lines, linked_cache


@pytest.fixture(scope="session")
def filled(tools: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache, with all that a build of `starter` needs."""
    out = tmp_path_factory.mktemp("filled")
    done = subprocess.run(
        [*HAL, "build", "starter", "--offline", "--out", str(out)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"the cache is not filled (`make image` does it): {error_lines(done.stderr)[0]}")
    return Cache().root


@pytest.fixture
def builder(filled: Path, tmp_path: Path) -> Callable[[Callable[[str], bool]], Builder]:
    """Makes a builder whose cache has all downloads and those trees whose names are accepted."""

    def make(trees: Callable[[str], bool]) -> Builder:
        return Builder(tmp_path, linked_cache(tmp_path, filled, trees))

    return make


@pytest.fixture
def warm(builder: Callable[[Callable[[str], bool]], Builder]) -> Builder:
    """A builder whose cache has every tree: a build takes a second or two."""
    return builder(lambda name: True)
