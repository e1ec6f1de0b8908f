"""The root image: a base tree, hal's services and the rendered files, packed as EROFS with its hash tree.

The base is never copied: the kernel lays the new files over it (overlayfs) in the sandbox, and mkfs.erofs
reads the result. That is why a change of configuration costs a second and not a build.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.cache import Cache, disk_error
from hal.image.erofs import mkfs_command
from hal.image.identifiers import named_uuid, salt
from hal.image.verity import Verity, write_tree
from hal.render import Rendered
from hal.sandbox import Sandbox
from hal.trees import cached_tree, file_digests, inputs_digest

FILTERS = Path(__file__).with_name("syscall_filters.py")
SERVICES = Path(__file__).resolve().parents[2] / "services"
INSTALLED = "usr/lib/hal/services"
"""Where the services' Python packages lie in the appliance."""

RECIPE = "1"

PACK = """\
set -eu
base=$1 services=$2 files=$3 work=$4 filters=$5; shift 5
mkdir -p "$work/merged" "$work/overlay"
# Mount options cannot hold every path (a comma, a colon): they get plain names instead.
ln -s "$services" /tmp/services; ln -s "$base" /tmp/base; ln -s "$files" /tmp/files; ln -s "$work" /tmp/work
options=lowerdir=/tmp/services:/tmp/base,upperdir=/tmp/files,workdir=/tmp/work/overlay
mount -t overlay overlay -o "$options" "$work/merged"
systemd-sysusers --root="$work/merged"
[ ! -d "$work/merged/usr/lib/hal/filters" ] || python3 -I "$filters" "$work/merged"
exec "$@"
"""
"""Lays the three trees over each other, makes the services' users and filters, and packs the result."""


@dataclass(frozen=True)
class RootImage:
    """A packed root: the image, its hash tree in a file of its own, and what opens it."""

    image: Path
    tree: Path
    verity: Verity


def root_image(
    base: Path,
    rendered: Rendered,
    *,
    mountpoints: Sequence[str],
    seed: str,
    compression: str,
    directory: Path,
    tools: Sandbox,
    services: Path,
) -> RootImage:
    """Pack the root into `directory` (`root.erofs`, `root.verity`).

    `mountpoints` are directories to be there, empty, for the packs; `services` is their `services_tree`.
    """
    files, work = directory / "files", directory / "work"
    write_files(rendered, files)
    for mountpoint in mountpoints:
        (files / mountpoint.lstrip("/")).mkdir(parents=True, exist_ok=True)
    work.mkdir()
    image = directory / "root.erofs"
    mkfs = mkfs_command(image, work / "merged", named_uuid(seed, "root"), tools.epoch, compression)
    tools.run(
        ["sh", "-c", PACK, "pack", str(base), str(services), str(files), str(work), str(FILTERS), *mkfs],
        readable=[base, services, FILTERS],
        writable=[directory],
        what="packing the root image",
    )
    # overlayfs leaves a directory without permissions; only the sandbox can always remove it.
    tools.run(["rm", "-rf", str(work), str(files)], writable=[directory], what="cleaning up")
    tree = directory / "root.verity"
    return RootImage(image, tree, write_tree(image, tree, salt(seed, "root"), tools))


def write_files(rendered: Rendered, directory: Path) -> None:
    """Write rendered files (regular files with their modes, symbolic links) under `directory`.

    Raises:
        HalError: the directory cannot be written, or its disk is full.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, file in rendered.items():
            path = directory / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.kind == "symlink":
                path.symlink_to(file.content)
            else:
                path.write_text(file.content)
                path.chmod(file.mode)
    except OSError as error:
        raise disk_error(error, directory, "give `--out`") or error from error


def services_tree(tools: Sandbox, cache: Cache, *, provisioner: bool) -> Path:
    """hal's services as they lie in the appliance, with compiled Python files that never go stale.

    An image whose models are all in it has no `provisioner`.
    """
    elsewhere = ("llamacpp", "init", *(() if provisioner else ("provisioner",)))
    sources = sorted(
        path
        for path in SERVICES.rglob("*.py")
        if path.relative_to(SERVICES).parts[0] not in elsewhere and "__pycache__" not in path.parts
    )
    names = [str(path.relative_to(SERVICES)) for path in sources]
    digest = inputs_digest(RECIPE, str(tools.epoch), *names, *file_digests(sources))

    def make(tree: Path) -> None:
        for source, name in zip(sources, names, strict=True):
            target = tree / INSTALLED / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o644)
        tools.run(
            [
                *("python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
                *("-s", str(tree), "-p", "/", str(tree)),
            ],
            writable=[tree],
            what="compiling the services",
        )

    return cached_tree(cache, "services", digest, make)
