"""The kernel and the initrd of an appliance.

The kernel is Debian's own, taken out of its package, or the one that Buildroot has built. The initrd holds
hal's static init (`services/init`), the modules it inserts and their list, nothing else: it opens the root
by the hash on the command line, or stops.
"""

from __future__ import annotations

import lzma
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hal.cache import Cache
from hal.errors import HalError
from hal.lock.file import DebianPackage
from hal.sandbox import Sandbox
from hal.tools import unpack
from hal.trees import cached_tree, file_digests, inputs_digest

INIT_SOURCES = Path(__file__).resolve().parents[2] / "services" / "init"
MODULES_TABLE = INIT_SOURCES / "modules.yaml"
RECIPE = "1"
"""Changes when the way the initrd is made changes, so that cached ones are made anew."""

COMPILE = ("gcc-14", "-specs=/usr/lib/x86_64-linux-musl/musl-gcc.specs", "-static", "-Os", "-Wall", "-Wextra")
KERNEL_HEADERS = ("-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu")
"""musl brings no kernel headers; Debian's come after its own."""


@dataclass(frozen=True)
class Kernel:
    """A kernel: image, release (`uname -r`) and the directory of its modules, None where all is built in.

    A `silent` one has no driver for a serial port: all that it could say goes to `ttynull`.
    """

    image: Path
    release: str
    modules: Path | None
    silent: bool = False


def kernel(packages: Sequence[DebianPackage], blobs: Mapping[str, Path], cache: Cache) -> Kernel:
    """The kernel out of its Debian package, unpacked if the cache does not have it."""
    images = [package for package in packages if package.package.startswith("linux-image-")]
    blob = [blobs[package.sha256] for package in images]
    digest = inputs_digest("kernel", *sorted(package.sha256 for package in images))
    tree = cached_tree(cache, "kernel", digest, lambda fresh: unpack(blob, fresh))
    (image,) = (tree / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    return Kernel(image, release, tree / "usr/lib/modules" / release)


def initrd(kernel: Kernel, tee: str, tools: Sandbox, cache: Cache) -> Path:
    """The initrd for a kernel and a TEE: a cpio archive with fixed times, owners and order."""
    sources = sorted(INIT_SOURCES.glob("*.[ch]"))
    inputs = file_digests([*sources, MODULES_TABLE, kernel.image])
    table = yaml.safe_load(MODULES_TABLE.read_text())["modules"]

    def make(home: Path) -> None:
        tree = home / "tree"
        for directory in ("dev", "proc", "sys", "sysroot", "lib"):
            (tree / directory).mkdir(parents=True)
        _compile(sources, tree / "init", tools)
        lines = []
        for module in modules(kernel.modules, table, tee) if kernel.modules else ():
            name = f"lib/{module.name}.ko"
            (tree / name).write_bytes(module.content)
            lines.append(f"{'?' if module.optional else ''}/{name}\n")
        (tree / "modules").write_text("".join(lines))
        _archive(tree, home / "initrd", tools)

    return (
        cached_tree(cache, "initrd", inputs_digest(RECIPE, tee, str(tools.epoch), *inputs), make) / "initrd"
    )


@dataclass(frozen=True)
class Module:
    """A kernel module, uncompressed; an optional one may be absent or refuse its device."""

    name: str
    content: bytes
    optional: bool


def modules(directory: Path, table: Sequence[Mapping[str, object]], tee: str) -> list[Module]:
    """The modules that a table asks for, each behind those it depends on, without those built in.

    `table` rows have `name`, and may have `optional` and `tee` (only in images for that TEE). The order is
    the table's; dependencies are what the modules themselves say (`depends=` of the section .modinfo).

    Raises:
        HalError: a module that is not optional is neither built in nor there.
    """
    files = {_module_name(path): path for path in sorted(directory.rglob("*.ko*"))}
    built_in = {_module_name(Path(line)) for line in (directory / "modules.builtin").read_text().split()}
    contents: dict[str, bytes] = {}
    optional: dict[str, bool] = {}

    def add(name: str, may_fail: bool) -> None:
        if name in built_in:
            return
        if name not in files:
            if may_fail:
                return
            raise HalError(f"the kernel in {directory} has no module {name!r}", f"see {MODULES_TABLE}")
        content = contents.get(name) or _read_module(files[name])
        for needed in depends(content):
            add(needed, may_fail)
        contents[name] = content
        optional[name] = optional.get(name, True) and may_fail

    for row in table:
        if row.get("tee", tee) == tee:
            add(str(row["name"]).replace("-", "_"), bool(row.get("optional")))
    return [Module(name, content, optional[name]) for name, content in contents.items()]


def depends(module: bytes) -> list[str]:
    """The names of the modules that a module needs, from its .modinfo: `depends=a,b`."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _read_module(path: Path) -> bytes:
    raw = path.read_bytes()
    return lzma.decompress(raw) if path.suffix == ".xz" else raw


def _compile(sources: Sequence[Path], target: Path, tools: Sandbox) -> None:
    files = [str(source) for source in sources if source.suffix == ".c"]
    tools.run(
        [*COMPILE, *KERNEL_HEADERS, "-Werror", "-s", "-Wl,--build-id=none", "-o", str(target), *files],
        readable=[INIT_SOURCES],
        writable=[target.parent],
        what="compiling the initrd's init",
    )


def _archive(tree: Path, target: Path, tools: Sandbox) -> None:
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.name == "init" else 0o644)
        os.utime(path, (tools.epoch, tools.epoch))
    tools.run(
        [
            *("cpio", "--create", "--format=newc", "--reproducible", "--owner=0:0", "--quiet"),
            *("--directory", str(tree), "--file", str(target)),
        ],
        input="".join(f"{name}\n" for name in names).encode(),
        readable=[tree],
        writable=[target.parent],
        what="cpio (packing the initrd)",
    )
