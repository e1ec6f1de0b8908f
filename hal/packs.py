"""Packs: an engine's runtime or a model's weights as one read-only image with its hash tree.

A pack is made from verified files only, is cached by the digest of what went in, and is known to the
appliance by its root hash. Making the same pack twice gives the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hal.cache import Cache
from hal.engines import Engine
from hal.erofs import mkfs_command
from hal.errors import HalError
from hal.identifiers import named_uuid, salt
from hal.models import Model
from hal.packref import PackRef, pack_label
from hal.sandbox import Sandbox
from hal.trees import cached_tree, file_digests, inputs_digest
from hal.verity import append_tree

RECIPE = "1"
"""Changes when the way packs are made changes, so that cached packs are made anew."""

IMAGE = "pack.erofs"
REFERENCE = "pack.json"

PROJECT = Path(__file__).resolve().parent.parent
"""Where the launchers named by engine files lie (`services/…`)."""


@dataclass(frozen=True)
class Pack:
    """A finished pack: how the appliance refers to it, and the image file (EROFS, then its hash tree)."""

    ref: PackRef
    path: Path


def engine_pack(engine: Engine, wheels: Mapping[str, Path], tools: Sandbox, cache: Cache) -> Pack:
    """The pack of an engine's runtime: its wheels unpacked under `lib/`, and hal's launcher.

    `wheels` maps the sha256 of each wheel to its file.
    """
    launchers = [(PROJECT / file.source, file) for file in engine.files]
    try:
        digests = file_digests(source for source, _ in launchers)
    except OSError as error:
        raise HalError(
            f"{error.filename}: {error.strerror}", f"{engine.name}.yaml names it under `files`"
        ) from error
    inputs = [*sorted(wheels), *digests, *(f"{file.path} {file.mode}" for _, file in launchers)]

    def fill(tree: Path) -> None:
        for wheel in wheels.values():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(tree / "lib")
        for source, file in launchers:
            target = tree / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(int(file.mode, 8))
        tools.run(
            [
                *("python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
                *("-s", str(tree), "-p", f"/opt/{engine.name}"),
                str(tree / "lib"),
            ],
            writable=[tree],
            what="compiling the engine's Python files",
        )

    return _pack("engine", engine.name, f"/opt/{engine.name}", "lz4", inputs, fill, tools, cache)


def model_pack(model: Model, files: Mapping[str, Path], tools: Sandbox, cache: Cache) -> Pack:
    """The pack of a model's weights. `files` maps sha256 to the verified file for each of its files.

    Weights are stored as they are: they do not compress, and an engine maps them straight from disk.
    """
    inputs = [f"{file.sha256} {file.name}" for file in model.files]

    def fill(tree: Path) -> None:
        for file in model.files:
            target = tree / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(files[file.sha256], target)
            except OSError:
                shutil.copyfile(files[file.sha256], target)

    return _pack("model", model.name, f"/srv/models/{model.name}", "none", inputs, fill, tools, cache)


def _pack(
    kind: Literal["engine", "model"],
    name: str,
    mountpoint: str,
    compression: str,
    inputs: Sequence[str],
    fill: Callable[[Path], None],
    tools: Sandbox,
    cache: Cache,
) -> Pack:
    def make(home: Path) -> None:
        tree = home / "tree"
        tree.mkdir()
        fill(tree)
        image = home / IMAGE
        uuid = named_uuid(f"{kind}-{name}", "pack")
        command = mkfs_command(image, tree, uuid, tools.epoch, compression)
        tools.run([*command[:-2], "--all-root", *command[-2:]], writable=[home], what=f"packing {name}")
        shutil.rmtree(tree)
        verity = append_tree(image, salt(f"{kind}-{name}", "pack"), tools)
        label = pack_label(kind, name, verity.root_hash)
        ref = PackRef(kind, name, label, **asdict(verity), mountpoint=mountpoint)
        (home / REFERENCE).write_text(json.dumps(asdict(ref), indent=1) + "\n")

    digest = inputs_digest(RECIPE, kind, name, compression, str(tools.epoch), *inputs)
    home = cached_tree(cache, "pack", digest, make)
    return Pack(PackRef(**json.loads((home / REFERENCE).read_text())), home / IMAGE)
