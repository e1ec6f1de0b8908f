#!/usr/bin/env python3
"""Installs files that hal has rendered: install_rendered.py RENDERED SPEC TREE PATTERN...

RENDERED/SPEC/LAYERS names the layers of a spec, directories beside it; each path is in one of them. A
pattern is a path in the image without its first slash, where `*` stands for anything, `/` too. What a
layer's LINKS names becomes a symbolic link; a filter of system calls (`NAME.bpf.txt`, a line for each
instruction) becomes what setpriv(1) loads.

Says on standard error what is wrong and exits with 1 where a pattern fits nothing, unless it ends in `?`.
"""

from __future__ import annotations

import fnmatch
import struct
import sys
from pathlib import Path

INSTRUCTION = struct.Struct("<HBBI")
"""struct sock_filter (linux/filter.h): code, jump if true, jump if false, operand."""

SUFFIX = ".bpf.txt"


def filter_program(text: str) -> bytes:
    """The bytes of a filter that is written as text."""
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return b"".join(INSTRUCTION.pack(*(int(word, 0) for word in line)) for line in lines)


def read(rendered: Path, spec: str) -> tuple[dict[str, Path], dict[str, str]]:
    """A spec's files by their path in the image, and its symbolic links with their targets."""
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    for layer in (rendered / spec / "LAYERS").read_text().split():
        directory = rendered / layer
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            if path.is_file() and name not in ("CMDLINE", "LAYERS", "LINKS"):
                files[name] = path
        if (directory / "LINKS").exists():
            for line in (directory / "LINKS").read_text().splitlines():
                name, target = line.split()
                links[name.lstrip("/")] = target
    return files, links


def install(source: Path, target: Path) -> None:
    """Install one file."""
    if source.name.endswith(SUFFIX):
        target = target.with_name(target.name.removesuffix(".txt"))
        content = filter_program(source.read_text())
    else:
        content = source.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    target.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)


def main() -> int:
    """Install what the patterns name."""
    rendered, spec, tree, *patterns = sys.argv[1:]
    try:
        files, links = read(Path(rendered), spec)
    except OSError as error:
        print(f"hal: there is no rendered spec {spec!r} in {rendered}: {error.strerror}", file=sys.stderr)
        return 1
    for pattern in patterns:
        wanted = pattern.removesuffix("?")
        chosen = [name for name in (*files, *links) if fnmatch.fnmatchcase(name, wanted)]
        if not chosen and not pattern.endswith("?"):
            print(f"hal: the spec {spec!r} has no {wanted}: render it again", file=sys.stderr)
            return 1
        for name in chosen:
            target = Path(tree) / name
            if name in files:
                install(files[name], target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.symlink_to(links[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
