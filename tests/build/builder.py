"""Builds as a user starts them: the `hal` command in a process of its own, with its own cache and output."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hal.build import ARTEFACTS, MANIFEST

PROJECT = Path(__file__).resolve().parents[2]
HAL = (sys.executable, "-m", "hal.cli")

SPEC = """\
appliance: {{name: robust, version: 1.0.0}}
variant: debug
engines:
  - llamacpp: {{settings: {{context_length: {context}}}}}
models: [smollm2-135m]
"""
"""The starter profile with one value to change, so that every build has something to do."""


class Builder:
    """One cache and one output directory, and the builds that use them. Networks are never asked."""

    def __init__(self, home: Path, cache: Path) -> None:
        self.home = home
        self.cache = cache
        self.out = home / "out"
        self.target = self.out / "robust"
        self._context = 1000

    def spec(self) -> Path:
        """A spec that was not built before."""
        self._context += 1
        path = self.home / f"{self._context}.yaml"
        path.write_text(SPEC.format(context=self._context))
        return path

    def argv(self, spec: Path, *options: str) -> list[str]:
        return [*HAL, "build", str(spec), "--offline", "--out", str(self.out), *options]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HAL_CACHE": str(self.cache), "PYTHONPATH": str(PROJECT)}

    def start(self, spec: Path, *options: str) -> subprocess.Popen[str]:
        """Begin a build in a session of its own, as a terminal's foreground job has its own group."""
        return subprocess.Popen(
            self.argv(spec, *options),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def build(self, spec: Path, *options: str) -> str:
        """A build to its end, which must be good; what it said on standard error."""
        process = self.start(spec, *options)
        _, said = process.communicate()
        assert process.returncode == 0, said
        return said

    def digests(self) -> dict[str, str]:
        """The sha256 of every file of the output."""
        return {path.name: _digest(path) for path in sorted(self.target.iterdir())}

    def is_complete(self) -> bool:
        """Whether the output is all there and what its manifest says."""
        manifest = json.loads((self.target / MANIFEST).read_text())
        found = self.digests()
        return found.keys() == set(ARTEFACTS) and all(
            artefact.get("sha256", found[name]) == found[name]
            and (self.target / name).stat().st_size == artefact["size"]
            for name, artefact in manifest["artefacts"].items()
        )

    def debris(self) -> list[str]:
        """What lies where only work under way may lie."""
        places = [self.cache / "tmp", self.out / ".work/tmp", *self.out.glob(".work/*.old")]
        return [str(path) for place in places if place.exists() for path in place.iterdir()]

    def forget_trees(self) -> None:
        """Empty the cache of all that was made, keeping what was fetched."""
        shutil.rmtree(self.cache / "trees", ignore_errors=True)

    def left_running(self) -> list[str]:
        """Command lines of processes that know this place, mounts and loop devices there."""
        found = []
        for path in (self.cache, self.out):
            name = os.fsencode(path)
            for process in Path("/proc").glob("[0-9]*"):
                command = _read(process / "cmdline")
                if name in command and process.name != str(os.getpid()):
                    found.append(command.replace(b"\0", b" ").decode(errors="replace")[:200])
            mounts = _read(Path("/proc/self/mountinfo")).splitlines()
            found += [line.decode() for line in mounts if name in line]
            loops = Path("/sys/block").glob("loop*/loop/backing_file")
            found += [str(loop) for loop in loops if name in _read(loop)]
        return found


def linked_cache(home: Path, filled: Path, trees: Callable[[str], bool]) -> Path:
    """A new cache with the downloads of `filled` and those of its trees whose name `trees` accepts."""
    cache = home / "cache"
    for blob in (filled / "blobs").rglob("*"):
        target = cache / blob.relative_to(filled)
        if blob.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            _link(blob, target)
    (cache / "trees").mkdir(parents=True)
    for tree in (filled / "trees").iterdir():
        if trees(tree.name):
            (cache / "trees" / tree.name).symlink_to(tree)
    return cache


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition becomes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def error_lines(stderr: str) -> Sequence[str]:
    """What a user reads of a failure: from the error on, without the steps before it."""
    lines = stderr.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("error:")), len(lines))
    return lines[first:]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile
        return b""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
