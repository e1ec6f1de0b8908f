"""Packs: an engine's runtime or a model's weights as one read-only image with its hash tree.

A pack is made from verified files only, is cached by the digest of what went in, and is known to the
appliance by its root hash. Making the same pack twice gives the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hal.cache import Cache
from hal.engines import Engine, EngineFile
from hal.errors import HalError
from hal.image.erofs import mkfs_command
from hal.image.identifiers import named_uuid, salt
from hal.image.verity import append_tree
from hal.models import Model
from hal.packs.reference import PackRef, pack_label
from hal.packs.runtime import RuntimePart, fill_tree
from hal.run import failure
from hal.sandbox import Sandbox
from hal.trees import cached_tree, file_digests, inputs_digest

RECIPE = "3"
"""Changes when the way packs are made changes, so that cached packs are made anew."""

IMAGE = "pack.erofs"
REFERENCE = "pack.json"
SIZES = "sizes.json"
"""Bytes of an engine's files before and after trimming."""

FILES = "files.json"
"""A model's files, in order: the digest and the name of each."""

_SHARES = 8
"""Processes that compile a pack's modules."""

PROJECT = Path(__file__).resolve().parents[2]
"""Where the launchers named by engine files lie (`services/…`)."""


@dataclass(frozen=True)
class Pack:
    """A finished pack: how the appliance refers to it, and the image file (EROFS, then its hash tree)."""

    ref: PackRef
    path: Path


def engine_pack(engine: Engine, parts: Sequence[RuntimePart], tools: Sandbox, cache: Cache) -> Pack:
    """The pack of an engine's runtime: its artifacts unpacked and trimmed, and hal's launcher."""
    launchers = _launchers(engine)
    inputs = _engine_inputs(engine, parts)

    def fill(tree: Path) -> None:
        before, after = fill_tree(tree, engine, parts, tools)
        (tree.parent / SIZES).write_text(json.dumps({"before": before, "after": after}) + "\n")
        for source, file in launchers:
            target = tree / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(int(file.mode, 8))
        _require_program(engine, tree)
        compile_modules(tree, engine.name, tools)

    return _pack("engine", engine.name, f"/opt/{engine.name}", engine.compression, inputs, fill, tools, cache)


def engine_pack_is_cached(engine: Engine, parts: Sequence[RuntimePart], epoch: int, cache: Cache) -> bool:
    """Whether the pack is there already, so that none of its artifacts has to be (`epoch`: inputs')."""
    digest = _digest("engine", engine.name, engine.compression, epoch, _engine_inputs(engine, parts))
    return cache.tree("pack", digest).exists()


def _launchers(engine: Engine) -> list[tuple[Path, EngineFile]]:
    return [(PROJECT / file.source, file) for file in engine.files]


def _engine_inputs(engine: Engine, parts: Sequence[RuntimePart]) -> list[str]:
    """All that an engine's pack follows from."""
    launchers = _launchers(engine)
    try:
        digests = file_digests(source for source, _ in launchers)
    except OSError as error:
        raise HalError(
            f"{error.filename}: {error.strerror}", f"{engine.name}.yaml names it under `files`"
        ) from error
    return [
        *sorted(f"{part.into} {part.sha256}" for part in parts),
        *digests,
        *(f"{file.path} {file.mode}" for _, file in launchers),
        *(entry.model_dump_json() for entry in (*engine.aliases, *engine.leave_out, *engine.strip)),
    ]


def _digest(kind: str, name: str, compression: str, epoch: int, inputs: Sequence[str]) -> str:
    return inputs_digest(RECIPE, kind, name, compression, str(epoch), *inputs)


def _require_program(engine: Engine, tree: Path) -> None:
    """Refuse a pack whose engine could not start: a wrong archive, or a layout that has changed."""
    program = engine.command[0]
    path = tree / program.removeprefix(f"/opt/{engine.name}/")
    if program.startswith(f"/opt/{engine.name}/") and not os.access(path, os.X_OK):
        raise HalError(
            f"the pack of {engine.name} has no program {path.relative_to(tree)}",
            f"its artifact is not the release archive that {engine.name}.yaml expects",
        )


def compile_modules(tree: Path, name: str, tools: Sandbox) -> None:
    """Write the .pyc files of a pack's Python modules, the same bytes each time.

    What a .pyc holds depends on what its process has loaded and compiled before (marshal writes references
    by their counts), so that compileall's own workers (`-j`), which take files as they come, give other bytes
    each time. Here Python's own modules come first, in one process, then fixed shares of the packages side
    by side. No process imports (`-S`: .pth files) or writes anything but what it is told to compile.
    """
    what = "compiling the engine's Python files"

    def run(share: Sequence[Path]) -> None:
        done = tools.run(
            [
                *(_python(tree), "-S", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"),
                *("-s", str(tree), "-p", f"/opt/{name}"),
                *map(str, share),
            ],
            writable=[tree],
            env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
            what=what,
        )
        # Status 1: some file is not for this Python (a template, a later version's syntax), as ever.
        if done.returncode not in (0, 1):
            raise failure(done, what)

    packages, *own = _modules(tree)
    for folder in own:
        run([tree / folder])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, _shares(_entries(tree / packages))))


def _entries(folder: Path) -> list[Path]:
    """The packages and single modules of a folder of modules; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return [entry for entry in sorted(folder.iterdir()) if entry.is_dir() or entry.suffix == ".py"]


def _shares(entries: Sequence[Path]) -> list[list[Path]]:
    """Packages in shares of about the same size, the same ones on every machine."""
    sized = sorted((sum(file.stat().st_size for file in entry.rglob("*.py")), entry) for entry in entries)
    shares: list[list[Path]] = [[] for _ in range(_SHARES)]
    totals = [0] * _SHARES
    for size, entry in reversed(sized):
        least = totals.index(min(totals))
        shares[least].append(entry)
        totals[least] += size + 1
    return [share for share in shares if share]


def _python(tree: Path) -> str:
    """The Python that will run a pack's modules: its own, or the tools tree's, which is the root's."""
    own = sorted(tree.glob("python/usr/bin/python3.*"))
    return str(own[0]) if own else "python3"


def _modules(tree: Path) -> list[str]:
    """The folders of a pack that hold Python modules."""
    return [
        str(path.relative_to(tree)) for path in [tree / "lib", *sorted(tree.glob("python/usr/lib/python3.*"))]
    ]


def model_pack(model: Model, files: Mapping[str, Path], tools: Sandbox, cache: Cache) -> Pack:
    """The pack of a model's weights. `files` maps sha256 to the verified file for each of its files.

    Weights are stored as they are: they do not compress, and an engine maps them straight from disk.
    """
    inputs = _model_inputs(model)

    def fill(tree: Path) -> None:
        listed = [[file.sha256, file.name] for file in model.files]
        (tree.parent / FILES).write_text(json.dumps(listed) + "\n")
        for file in model.files:
            target = tree / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(files[file.sha256], target)
            except OSError:
                shutil.copyfile(files[file.sha256], target)

    return _pack("model", model.name, f"/srv/models/{model.name}", "none", inputs, fill, tools, cache)


def model_pack_is_cached(model: Model, epoch: int, cache: Cache) -> bool:
    """Whether the pack is there already, so that none of the model's files has to be (`epoch`: inputs')."""
    files = [(file.sha256, file.name) for file in model.files]
    return cache.tree("pack", model_digest(model.name, files, epoch)).exists()


def _model_inputs(model: Model) -> list[str]:
    """All that a model's pack follows from."""
    return model_inputs([(file.sha256, file.name) for file in model.files])


def model_inputs(files: Sequence[tuple[str, str]]) -> list[str]:
    """All that the pack of these files, as digests and names in order, follows from."""
    return [FILES, *(f"{sha256} {name}" for sha256, name in files)]


def model_digest(name: str, files: Sequence[tuple[str, str]], epoch: int) -> str:
    """What a model's pack is called in a cache (`epoch`: inputs')."""
    return _digest("model", name, "none", epoch, model_inputs(files))


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

    digest = _digest(kind, name, compression, tools.epoch, inputs)
    home = cached_tree(cache, "pack", digest, make)
    ref = PackRef(**json.loads((home / REFERENCE).read_text()))
    if (ref.kind, ref.name, ref.mountpoint) != (kind, name, mountpoint):  # an import that lied
        raise HalError(f"{home}: the pack of {ref.name}, not of {name}", "remove it from the cache")
    return Pack(ref, home / IMAGE)
