"""Output directories of Buildroot: what is known of one, and what is taken away before make goes on in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hal.bases.buildroot import packages
from hal.bases.buildroot.progress import begun, step_seconds
from hal.cache import remove_tree
from hal.trees import file_digests, inputs_digest

TABLE = "packages.json"
TIMES = "times.json"
MARK = "building"
"""Files in an output directory: what its packages were made from, how long each took, and that make runs."""

BEFORE_BUILDING = ("extract", "rsync", "patch", "configure")
"""Steps that cannot be done a second time in the directory that they were cut off in."""


@contextlib.contextmanager
def marked(output: Path) -> Iterator[None]:
    """While make runs: a mark that is still there afterwards says that hal was killed, and make with it."""
    mark = output / MARK
    mark.touch()
    try:
        yield
    finally:
        log = output / "build" / "build-time.log"
        if log.exists():
            took = step_seconds(log.read_text(errors="replace").splitlines())
            write(output / TIMES, json.dumps(times(output) | took, indent=0))
        # After a failure or Ctrl-C too: make has ended by itself.
        mark.unlink()


def clear(output: Path, old: packages.Table, stale: packages.Stale) -> None:
    """Take away what is stale in an output directory, and what an earlier build has left half done.

    Where that build was killed, what it was compiling may hold half an object file: that package is unpacked
    anew, and ccache has what was whole. After a failure or Ctrl-C make goes on where it was.
    """
    build, unclean = output / "build", (output / MARK).exists()
    gone = {*stale.rebuilt, *stale.removed}
    log = build / "build-time.log"
    for name, step in begun(log.read_text(errors="replace").splitlines() if log.exists() else ()).items():
        if name in old and (step in BEFORE_BUILDING or (unclean and step == "build")):
            gone.add(name)
    for name in gone:
        remove_tree(build / old[name].directory)
        remove_tree(output / "per-package" / name)
    if stale.configure_kernel and packages.LINUX not in gone:
        for stamp in (build / old[packages.LINUX].directory).glob(".stamp_*"):
            if stamp.name not in (".stamp_downloaded", ".stamp_extracted", ".stamp_patched"):
                stamp.unlink()


def table(output: Path) -> packages.Table:
    """What the packages of an output directory were made from; empty where that is not known."""
    try:
        return packages.from_json((output / TABLE).read_text())
    except (OSError, ValueError):
        return {}


def times(output: Path) -> dict[str, float]:
    """How long steps took in earlier builds: in this directory, or else in the newest one that says."""
    others = sorted(output.parent.glob(f"output-*/{TIMES}"), key=lambda path: path.stat().st_mtime)
    found: dict[str, float] = {}
    for path in (*others, output / TIMES):
        try:
            found |= json.loads(path.read_text())
        except (OSError, ValueError):
            continue
    return found


def unbuilt(output: Path, info: Mapping[str, Any]) -> list[str]:
    """The packages of a build that are not installed yet; virtual ones take no time."""
    return [
        name
        for name, entry in info.items()
        if entry["type"] in ("target", "host")
        and not entry["virtual"]
        and not (output / entry["stamp_dir"] / ".stamp_installed").exists()
    ]


def content(path: Path) -> str:
    """The digest of a file, or of all files below a directory; of neither an empty one."""
    if path.is_file():
        return file_digests([path])[0]
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else []
    return inputs_digest(*(str(file.relative_to(path)) for file in files), *file_digests(files))


def write(path: Path, text: str) -> None:
    """Write a file, unless it has that text already: make goes by times."""
    if not path.exists() or path.read_text() != text:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.replace(path)
