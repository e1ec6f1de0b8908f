"""The stand-in in an archive of the official layout: `bin/ollama` and `lib/ollama/…`, as `.tgz`."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in.py")


def write(path: Path, wheel: Path) -> Path:
    """Write the archive to `path`, with the llama.cpp `wheel` in it; equal inputs give equal bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, 0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
        zipfile.ZipFile(wheel) as members,
    ):
        _add(archive, "bin/ollama", STAND_IN.read_bytes(), 0o755)
        for member in sorted(members.infolist(), key=lambda member: member.filename):
            if not member.is_dir():
                _add(archive, f"lib/ollama/{member.filename}", members.read(member), 0o755)
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
