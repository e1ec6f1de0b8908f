"""The same inputs give the same bytes, whatever is around the build."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hal.build import ARTEFACTS
from hal.cache import Cache
from hal.models import Model
from hal.packs.build import model_pack
from hal.sandbox import Sandbox
from tests.build.builder import HAL, PROJECT, Builder


def test_two_builds_from_the_same_trees(warm: Builder, filled: Path) -> None:
    """Apart in time, path, working directory, umask, locale and zone; the path is an odd one."""
    spec = warm.spec()
    warm.build(spec)
    odd = warm.home / "an odd, place: with [all] of it"
    odd.mkdir()
    cache = odd / "cache"
    cache.symlink_to(warm.cache)
    environment = {**warm.environment(), "HAL_CACHE": str(cache), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *HAL, "build", str(spec), "--offline", "--out", "my out"],
        env=environment,
        cwd=odd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    second = Builder(odd, cache)
    second.target = odd / "my out/robust"
    assert second.digests() == warm.digests()
    modes = {path.name: path.stat().st_mode & 0o777 for path in second.target.iterdir()}
    assert set(modes.values()) == {0o644}


def test_a_pack_does_not_know_how_old_its_files_are(tools: Sandbox, tmp_path: Path) -> None:
    """Files may be older or younger than the lock, whose time every file of an image gets."""
    content = b"weights"
    digest = "4ba2d8fbd1b5ee97eb22e5d9a5d8a4d7ac0d5bd3ea3a9f9d0dc5dd1e6c1d2f4a"
    model = Model.model_validate(
        {
            "name": "tiny",
            "summary": "For a test.",
            "license": "none",
            "format": "gguf",
            "files": [
                {
                    "name": "tiny.gguf",
                    "size": len(content),
                    "sha256": digest,
                    "source": {"kind": "file", "path": "tiny.gguf"},
                }
            ],
        }
    )
    packs = []
    for age in (-1_000_000, 1_000_000):
        home = tmp_path / str(age)
        home.mkdir()
        file = home / "tiny.gguf"
        file.write_bytes(content)
        os.utime(file, (tools.epoch + age, tools.epoch + age))
        pack = model_pack(model, {digest: file}, tools, Cache(home / "cache"))
        packs.append(pack.path.read_bytes())
    assert packs[0] == packs[1]


@pytest.mark.slow
def test_two_builds_from_nothing(filled: Path, tmp_path: Path) -> None:
    """`hal repro`: nothing shared but the downloads; other time, path, umask, locale, zone, processors.

    The cache has the packs already, whose artifacts a plain build would not bring in.
    """
    built = subprocess.run([*HAL, "build", "starter", "--offline", "--out", str(tmp_path)])
    assert built.returncode == 0
    done = subprocess.run(
        [*HAL, "repro", "starter", "--offline"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == len(ARTEFACTS)
    assert not list((filled / "tmp").glob("repro.*"))
