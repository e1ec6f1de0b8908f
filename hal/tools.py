"""The tools tree: a Debian 13 tree with QEMU, mkfs.erofs, ukify and the other programs that hal runs.

Its packages come from the lock's `tools` set, are unpacked side by side and never configured: nothing
in it runs as a service, so no maintainer script is needed. The tree is cached by the digest of its
packages.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from hal.cache import Cache
from hal.errors import HalError
from hal.lock.file import DebianPackage
from hal.run import full, spawn
from hal.sandbox import ROOT_LINKS, Sandbox
from hal.trees import cached_tree, inputs_digest

RECIPE = "1"
"""Changes when the way the tree is made changes, so that cached trees are made anew."""

LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info")
"""Read by nobody inside the tree; without them it unpacks faster."""

ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
"""What the maintainer scripts would have made and the programs look for."""


def digest(packages: Sequence[DebianPackage], programs: Mapping[str, str] = MappingProxyType({})) -> str:
    """The name of the tree that these packages make."""
    links = [f"{name} {target}" for name, target in sorted(programs.items())]
    return inputs_digest(RECIPE, *sorted(package.sha256 for package in packages), *links)


def tools_tree(
    packages: Sequence[DebianPackage],
    blobs: Mapping[str, Path],
    cache: Cache,
    epoch: int,
    programs: Mapping[str, str] = MappingProxyType({}),
) -> Sandbox:
    """The tools tree, unpacked if the cache does not have it; `blobs` maps sha256 to package files.

    `programs` are further names in `/usr/bin`, which maintainer scripts would have made (alternatives).
    """

    def make(tree: Path) -> None:
        unpack([blobs[package.sha256] for package in packages], tree)
        for name, target in ROOT_LINKS.items():
            if not (tree / name).is_symlink():
                (tree / name).symlink_to(target)
        for name, target in programs.items():
            (tree / "usr/bin" / name).symlink_to(target)
        for name, text in ACCOUNTS.items():
            (tree / name).write_text(text)

    return Sandbox(cached_tree(cache, "tools", digest(packages, programs), make), epoch)


def unpack(debs: Sequence[Path], tree: Path) -> None:
    """Unpack the files of Debian packages into `tree`, several at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda deb: _unpack_one(deb, tree), debs):
            pass


def _unpack_one(deb: Path, tree: Path) -> None:
    excludes = [f"--exclude={path}" for path in LEFT_OUT]
    source = spawn(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert source.stdout is not None
    sink = spawn(
        ["tar", "--extract", "--file=-", f"--directory={tree}", "--no-same-owner", *excludes],
        stdin=source.stdout,
        stderr=subprocess.PIPE,
    )
    source.stdout.close()
    _, errors = sink.communicate()
    _, complaint = source.communicate()
    if source.returncode != 0 or sink.returncode != 0:
        text = (errors or complaint).decode(errors="replace")
        if full(text):
            raise HalError(
                f"unpacking packages into {tree}: no space is left on the device",
                "free some and run it again, or set HAL_CACHE to a directory on a larger disk",
            )
        lines = tuple(f"  | {line}" for line in text.splitlines()[-5:])
        raise HalError(f"unpacking {deb} failed", "remove the file: it is fetched anew", details=lines)
