"""What an engine pack's tree is made of: artifacts unpacked into it, and what is taken out again.

Everything that is done to an upstream file is said in the engine's YAML, with its reason: `leave_out`,
`strip`, `aliases`. The rest of a wheel or a Debian package is there as it came.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hal.engines import Engine, WheelAlias
from hal.errors import HalError
from hal.sandbox import Sandbox
from hal.tools import unpack

LIB = "lib"
"""The folder that wheels are unpacked into."""

_BATCH = 64
"""Files that one `strip` gets."""


@dataclass(frozen=True)
class RuntimePart:
    """One artifact of an engine pack: the verified file, its digest, and the folder that it goes into."""

    kind: Literal["wheel", "deb", "archive"]
    file: Path
    sha256: str
    into: str


def fill_tree(tree: Path, engine: Engine, parts: Sequence[RuntimePart], tools: Sandbox) -> tuple[int, int]:
    """Unpack all parts into `tree` and take out what the engine's file says.

    Returns the bytes of all files before and after.
    """
    refuse_collisions(_of("wheel", parts), [path for entry in engine.leave_out for path in entry.paths])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda part: unpack_wheel(part.file, tree / part.into), _of("wheel", parts)))
    for into in dict.fromkeys(part.into for part in _of("deb", parts)):
        (tree / into).mkdir(parents=True, exist_ok=True)
        unpack([part.file for part in _of("deb", parts) if part.into == into], tree / into)
    for part in _of("archive", parts):
        unpack_archive(part.file, tree / part.into, tools)
    for alias in engine.aliases:
        add_alias(tree / LIB, alias)
    before = tree_size(tree)
    for entry in engine.leave_out:
        leave_out(tree, entry.paths)
    strip(tree, [path for entry in engine.strip for path in entry.paths], tools)
    return before, tree_size(tree)


def _of(kind: str, parts: Iterable[RuntimePart]) -> list[RuntimePart]:
    return [part for part in parts if part.kind == kind]


def unpack_wheel(wheel: Path, directory: Path) -> None:
    """Unpack a wheel as an installer would, without its scripts, headers and data.

    Source: the binary distribution format, "Installing a wheel distribution"; the parts of `NAME.data/` that
    belong among the modules are `purelib` and `platlib`.
    """
    with zipfile.ZipFile(wheel) as archive:
        for member, name in _members(archive):
            target = directory / name
            if not target.resolve().is_relative_to(directory.resolve()):
                raise HalError(f"{wheel.name}: {member.filename} would lie outside of the pack")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            target.chmod(0o755 if member.external_attr >> 16 & 0o111 else 0o644)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """The files of a wheel that belong among the modules, each with its path there."""
    for member in archive.infolist():
        top, _, rest = member.filename.partition("/")
        name = member.filename
        if top.endswith(".data"):
            place, _, name = rest.partition("/")
            if place not in ("purelib", "platlib"):
                continue
        if not member.is_dir() and name:
            yield member, name


def refuse_collisions(wheels: Sequence[RuntimePart], ignored: Sequence[str]) -> None:
    """Two wheels may bring the same file only with the same content, or where it is left out (`ignored`).

    An installer lets the last one win; here they are unpacked side by side, and a mixture of both would run.

    Raises:
        HalError: two wheels bring different files to the same place.
    """
    left_out = _pattern(ignored)
    owners: dict[str, tuple[Path, tuple[int, int]]] = {}
    for part in wheels:
        with zipfile.ZipFile(part.file) as archive:
            for member, name in _members(archive):
                path, content = f"{part.into}/{name}", (member.CRC, member.file_size)
                other, known = owners.setdefault(path, (part.file, content))
                if content != known and not left_out.fullmatch(path):
                    both = f"{_wheel_name(other)} and {_wheel_name(part.file)}"
                    raise HalError(
                        f"{both} both bring {path}, with different content",
                        "require versions in hal/inputs.yaml that go together, and run `hal lock`",
                    )


def _wheel_name(file: Path) -> str:
    """NAME-VERSION of a wheel, which lies in the cache under its digest."""
    with zipfile.ZipFile(file) as archive:
        infos = (name.partition("/")[0] for name in archive.namelist())
        return next(
            (info.removesuffix(".dist-info") for info in infos if info.endswith(".dist-info")), file.name
        )


def unpack_archive(archive: Path, directory: Path, tools: Sandbox) -> None:
    """Unpack a release archive with the layout that it has: nothing is left out and no level is taken away.

    tar(1) sees by itself how it is compressed, and refuses members that would lie outside.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tools.run(
        ["tar", "--extract", "--no-same-owner", f"--file={archive}", f"--directory={directory}"],
        readable=[archive],
        writable=[directory],
        what=f"unpacking {archive.name}",
    )


def add_alias(lib: Path, alias: WheelAlias) -> None:
    """Give a wheel's metadata a second name; nothing is done where the wheel is not there."""
    for info in lib.glob(f"{_normal(alias.wheel)}-*.dist-info"):
        version = f"{info.name.removesuffix('.dist-info').partition('-')[2]}+{alias.local}"
        copy = lib / f"{_normal(alias.name)}-{version}.dist-info"
        copy.mkdir()
        text = (info / "METADATA").read_text()
        text = re.sub(r"^Name: .*$", f"Name: {alias.name}", text, count=1, flags=re.MULTILINE)
        text = re.sub(r"^Version: .*$", f"Version: {version}", text, count=1, flags=re.MULTILINE)
        (copy / "METADATA").write_text(text)


def _normal(project: str) -> str:
    """A project's name as it stands in file names."""
    return re.sub(r"[-_.]+", "_", project).lower()


def leave_out(tree: Path, patterns: Sequence[str]) -> None:
    """Remove the files and folders that match."""
    for path in list(matching(tree, patterns)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def matching(tree: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """The topmost files and folders of a tree that match one of the patterns, sorted.

    `*` stands for any characters of one name, `**/` for any folders.
    """
    if not patterns:
        return
    wanted = _pattern(patterns)
    for directory, folders, files in os.walk(tree):
        here = Path(directory)
        found = {
            name for name in (*folders, *files) if wanted.fullmatch(str((here / name).relative_to(tree)))
        }
        folders[:] = sorted(name for name in folders if name not in found)
        yield from (here / name for name in sorted(found))


def _pattern(patterns: Sequence[str]) -> re.Pattern[str]:
    """What matches any of the patterns; without patterns, nothing but the empty path."""
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns))


def _expression(pattern: str) -> str:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    return "".join(words.get(part, re.escape(part)) for part in parts)


def strip(tree: Path, patterns: Sequence[str], tools: Sandbox) -> None:
    """Take symbols that only debuggers read out of shared objects (strip(1), --strip-unneeded)."""
    files = [str(path) for path in matching(tree, patterns) if path.is_file() and not path.is_symlink()]
    for start in range(0, len(files), _BATCH):
        tools.run(
            ["strip", "--strip-unneeded", "--enable-deterministic-archives", *files[start : start + _BATCH]],
            writable=[tree],
            what="stripping the engine's shared objects",
        )


def tree_size(tree: Path) -> int:
    """Bytes of all files in a tree, links not followed."""
    return sum(
        (Path(directory) / name).lstat().st_size for directory, _, files in os.walk(tree) for name in files
    )
