"""A disk that fills up: two lines that say so, and the last good output as it was."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.build.builder import PROJECT, Builder, error_lines

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")

WITHIN = """
mount -t tmpfs -o size={size} tmpfs {place}
cp -a --sparse=always {content}/. {place}
df --output=avail -B1 {place} >&2
{python} -m hal.cli build {spec} --offline --out {out} >&2 || echo "exit $?"
cd {place}
find . -type f -path './{kept}/*' -exec sha256sum {{}} +
"""
"""Runs in a mount namespace of its own, which takes the small disk with it."""


@dataclass(frozen=True)
class Outcome:
    """How a build on a small disk ended: exit code, standard error, sha256 of the files that must stay."""

    code: int
    said: str
    kept: dict[str, str]


def build_on_small_disk(
    builder: Builder, spec: Path, *, place: Path, size: int, content: Path, kept: str
) -> Outcome:
    """Build with `place` being a disk of `size` bytes that holds a copy of `content` from the start."""
    values = {"place": place, "content": content, "python": sys.executable, "spec": spec, "out": builder.out}
    script = WITHIN.format(size=size, kept=kept, **{k: shlex.quote(str(v)) for k, v in values.items()})
    done = subprocess.run(
        ["unshare", "--mount", "--", "sh", "-euc", script],
        env=builder.environment(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    codes = [int(row[1]) for row in rows if row[0] == "exit"]
    return Outcome(
        codes[0] if codes else 0,
        done.stderr,
        {Path(row[1]).name: row[0] for row in rows if row[0] != "exit"},
    )


def check_words(outcome: Outcome) -> None:
    lines = error_lines(outcome.said)
    assert outcome.code == 1, outcome.said
    assert len(lines) <= 2, outcome.said
    assert "space is left on the device" in lines[0] or "are needed and" in lines[0]
    assert lines[1].startswith("hint: free some")
    assert "Traceback" not in outcome.said


@pytest.mark.parametrize(
    "room",
    [0, 150, *(pytest.param(room, marks=pytest.mark.slow) for room in (3, 40, 90, 230))],
    ids=lambda megabytes: f"{megabytes} MB free",
)
def test_the_disk_of_the_output(warm: Builder, room: int) -> None:
    """It fills while files are written, the root is packed, the UKI made, the disk assembled."""
    warm.build(warm.spec())
    before, spec = warm.digests(), warm.spec()
    used = sum(path.stat().st_blocks * 512 for path in warm.out.rglob("*"))
    good = warm.home / "good"
    warm.out.rename(good)
    warm.out.mkdir()
    outcome = build_on_small_disk(
        warm, spec, place=warm.out, size=used + room * 1_000_000, content=good, kept="robust"
    )
    check_words(outcome)
    assert outcome.kept == before
    assert warm.left_running() == []


@pytest.mark.parametrize(
    ("there", "room"),
    [
        pytest.param((), 1, id="nothing", marks=pytest.mark.slow),
        pytest.param((), 40, id="some tools"),
        pytest.param(("tools",), 10, id="no base", marks=pytest.mark.slow),
        pytest.param(("tools", "base"), 5, id="no kernel", marks=pytest.mark.slow),
        pytest.param(("tools", "base", "kernel", "initrd"), 60, id="no packs"),
    ],
)
def test_the_disk_of_the_cache(
    builder: Callable[[Callable[[str], bool]], Builder], warm: Builder, there: tuple[str, ...], room: int
) -> None:
    """It fills while packages are unpacked, the base is installed, packs are made."""
    warm.build(warm.spec())
    before, spec = warm.digests(), warm.spec()
    real = warm.home / "elsewhere"
    warm.cache.rename(real)
    skeleton = warm.home / "skeleton"
    (skeleton / "trees").mkdir(parents=True)
    for tree in (real / "trees").iterdir():
        if tree.name.rpartition("-")[0] in there:
            (skeleton / "trees" / tree.name).symlink_to(tree.readlink())
    (skeleton / "blobs").symlink_to(real / "blobs")
    warm.cache.mkdir()
    outcome = build_on_small_disk(
        warm, spec, place=warm.cache, size=(room + 1) * 1_000_000, content=skeleton, kept="nothing"
    )
    check_words(outcome)
    assert warm.digests() == before
    assert warm.left_running() == []


def test_downloads_that_cannot_fit_are_not_begun(warm: Builder) -> None:
    empty = warm.home / "empty"
    empty.mkdir()
    spec = warm.spec()
    size = 20_000_000
    place = warm.home / "small"
    place.mkdir()
    small = Builder(warm.home, place)
    outcome = build_on_small_disk(small, spec, place=place, size=size, content=empty, kept="nothing")
    check_words(outcome)
    assert "MB are needed and 20 MB are free" in outcome.said
    assert json.dumps(outcome.kept) == "{}"
