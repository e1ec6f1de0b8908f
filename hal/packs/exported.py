"""Packs outside of the cache: written to a directory, looked at, verified, and taken into another cache.

An exported pack is a directory with `pack.erofs` (the file system, then its hash tree), `pack.json` (how an
appliance refers to it) and `export.json` (the digest of what it was made from, and its sizes).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal.cache import Cache, disk_error
from hal.errors import HalError
from hal.image.verity import BLOCK
from hal.packs.build import FILES, IMAGE, REFERENCE, SIZES, Pack, model_digest
from hal.packs.reference import PackRef, pack_label
from hal.sandbox import Sandbox
from hal.trees import cached_tree

EXPORT = "export.json"
SCHEMA = 1


@dataclass(frozen=True)
class ExportedPack:
    """A pack in a directory. `inputs` is the digest of what it was made from: its name in a cache.

    `files` are a model's, in order: the digest and the name of each.
    """

    ref: PackRef
    image: Path
    inputs: str
    unpacked: Mapping[str, int]
    files: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the image with its hash tree."""
        return self.image.stat().st_size


def described(pack: Pack) -> ExportedPack:
    """A pack in the cache, with all that is known of it."""
    sizes = pack.path.with_name(SIZES)
    unpacked = json.loads(sizes.read_text()) if sizes.exists() else {}
    inputs = pack.path.parent.name.partition("-")[2]
    listed = pack.path.with_name(FILES)
    files = json.loads(listed.read_text()) if listed.exists() else []
    return ExportedPack(pack.ref, pack.path, inputs, unpacked, _files(files))


def _files(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(digest), str(name)) for digest, name in rows)


def export_pack(pack: Pack, directory: Path) -> None:
    """Write a pack to a directory that is empty or not there yet.

    Raises:
        HalError: it holds something already, or cannot be written.
    """
    if directory.exists() and any(directory.iterdir()):
        raise HalError(f"{directory} is not empty", "give a directory that is empty or not there yet")
    found = described(pack)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pack.path, directory / IMAGE)
        shutil.copyfile(pack.path.with_name(REFERENCE), directory / REFERENCE)
        about: dict[str, Any] = {"schema": SCHEMA, "inputs": found.inputs, "unpacked": dict(found.unpacked)}
        about |= {"files": found.files} if found.files else {}
        (directory / EXPORT).write_text(json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise disk_error(error, directory, "give") or error from error


def read_exported(directory: Path) -> ExportedPack:
    """An exported pack as its directory describes it; nothing of the image is checked yet.

    Raises:
        HalError: the directory holds no exported pack.
    """
    try:
        ref = PackRef(**json.loads((directory / REFERENCE).read_text()))
        about: dict[str, Any] = json.loads((directory / EXPORT).read_text())
        if about["schema"] != SCHEMA:
            raise ValueError(f"schema {about['schema']}, this hal reads {SCHEMA}")
        places = {"engine": f"/opt/{ref.name}", "model": f"/srv/models/{ref.name}"}
        if ref.mountpoint != places.get(ref.kind) or ref.label != pack_label(
            ref.kind, ref.name, ref.root_hash
        ):
            raise ValueError(f"{REFERENCE} has a label or a mount point that is not its name's")
        files = _files(about.get("files", []))
        found = ExportedPack(ref, directory / IMAGE, str(about["inputs"]), dict(about["unpacked"]), files)
        if found.size <= ref.data_blocks * BLOCK:
            raise ValueError(f"{IMAGE} is cut off")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HalError(f"{directory}: no exported pack: {error}", "`hal pack export` writes one") from None
    return found


def verify(pack: ExportedPack, tools: Sandbox, root_hash: str | None = None) -> None:
    """Check every block of a pack against its root hash, or against `root_hash` where one is known.

    Raises:
        HalError: the pack is another one, or was altered.
    """
    wanted = (root_hash or pack.ref.root_hash).lower()
    if wanted != pack.ref.root_hash:
        raise HalError(f"{pack.image}: its root hash is {pack.ref.root_hash}, not {wanted}")
    done = tools.run(
        [
            *("veritysetup", "verify", "--no-superblock", "--hash=sha256"),
            f"--data-block-size={BLOCK}",
            f"--hash-block-size={BLOCK}",
            f"--data-blocks={pack.ref.data_blocks}",
            f"--hash-offset={pack.ref.data_blocks * BLOCK}",
            f"--salt={pack.ref.salt}",
            *(str(pack.image), str(pack.image), wanted),
        ],
        readable=[pack.image],
        check=False,
    )
    if done.returncode != 0:
        raise HalError(
            f"{pack.image}: altered: it does not fit its root hash {wanted}",
            "export it again; do not use this copy",
        )


def verify_files(pack: ExportedPack, tools: Sandbox, cache: Cache) -> None:
    """Check that a model's pack holds the files that it says, and is called what they make it.

    It is unpacked for that, in the cache.

    Raises:
        HalError: it is not so, or it was made for another lock.
    """
    if model_digest(pack.ref.name, pack.files, tools.epoch) != pack.inputs:
        raise HalError(
            f"{pack.image}: made by another hal, or by another lock",
            "make it with this one: `hal pack model`",
        )
    with cache.temporary("unpacked") as work:
        content = work / "content"
        tools.run(
            ["fsck.erofs", f"--extract={content}", "--no-preserve", str(pack.image)],
            readable=[pack.image],
            writable=[work],
            what=f"unpacking {pack.image}",
        )
        there = {str(path.relative_to(content)) for path in content.rglob("*") if not path.is_dir()}
        for digest, name in pack.files:
            path = content / name
            if path.is_symlink() or not path.is_file() or _sha256(path) != digest:
                raise HalError(f"{pack.image}: {name} is another file than it says", "do not use this copy")
    if extra := there - {name for _, name in pack.files}:
        raise HalError(f"{pack.image}: it holds {min(extra)}, which it does not name", "do not use this copy")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def import_pack(pack: ExportedPack, tools: Sandbox, cache: Cache, root_hash: str | None = None) -> Path:
    """Take a verified pack into the cache, where builds find it in place of what it was made from.

    That an engine's pack was made from what its digest says is the word of whoever exported it; `root_hash`,
    heard from them by another way, makes sure that it is theirs. A model's files are held against their own.

    Raises:
        HalError: it was altered, is another one than `root_hash` says, or holds other files than it says.
    """
    verify(pack, tools, root_hash)
    if pack.ref.kind == "model":
        verify_files(pack, tools, cache)

    def fill(tree: Path) -> None:
        shutil.copyfile(pack.image, tree / IMAGE)
        if pack.files:
            (tree / FILES).write_text(json.dumps(pack.files) + "\n")
        for name in (REFERENCE, SIZES):
            source = pack.image.with_name(name)
            if source.exists():
                shutil.copyfile(source, tree / name)
        if pack.unpacked:
            (tree / SIZES).write_text(json.dumps(dict(pack.unpacked)) + "\n")

    return cached_tree(cache, "pack", pack.inputs, fill) / IMAGE
