"""The Buildroot release that the base is made with: pinned, fetched, or a tree that the user has at hand."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hal.cache import Cache
from hal.errors import HalError, UsageError
from hal.fetch.fetcher import Fetcher
from hal.fetch.releases import asked_size
from hal.lock.pins import Artifact
from hal.run import run
from hal.trees import cached_tree, inputs_digest

VERSION = "2026.02.3"
"""The last release of the long-term branch 2026.02."""

SHA256 = "5a59e7501b0b4ec52c41f4bfa79412320e0b37eae5f719605a258e8d0c6fc7fb"
"""Of the .tar.xz, as in the release's signed manifest (buildroot-2026.02.3.tar.xz.sign)."""

NAME = f"buildroot-{VERSION}.tar.xz"
URL = f"https://buildroot.org/downloads/{NAME}"

OPTION = "--buildroot DIR"
HINT = f"give a tree of Buildroot {VERSION} that you have: {OPTION}; or a directory with {NAME}: --mirror DIR"

LEFT_BY_BUILDS = (".git", "output", "dl", ".config", ".config.old", "local.mk")
"""What lies at the top of a tree that somebody has built in, and is no part of the release."""

_VERSION_LINE = re.compile(r"^export BR2_VERSION := (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Release:
    """A tree of the pinned release, and the digest that stands for its content.

    The pinned release that is to be fetched may not be there yet: `unpacked` brings it in.
    """

    tree: Path
    digest: str
    given: bool

    def unpacked(self, fetcher: Fetcher) -> Path:
        """The tree, fetched and unpacked where the cache does not have it.

        Raises:
            HalError: it cannot be had, or is not what is pinned.
        """
        if not self.given and not self.tree.exists():
            _unpack(fetcher, self.digest)
        return self.tree


def pinned_release(cache: Cache) -> Release:
    """The pinned release, to be fetched when it is needed."""
    digest = inputs_digest("buildroot-release", SHA256)
    return Release(cache.tree("buildroot-release", digest), digest, given=False)


def _unpack(fetcher: Fetcher, digest: str) -> None:
    cache = fetcher.cache
    blob = fetcher.fetch([artifact(cache, offline=fetcher.offline)])[SHA256]

    def make(tree: Path) -> None:
        run(
            [
                *("tar", "--extract", f"--file={blob}", f"--directory={tree}"),
                *("--strip-components=1", "--no-same-owner"),
            ],
            what=f"unpacking {NAME}",
        )

    cached_tree(cache, "buildroot-release", digest, make)


def artifact(cache: Cache, *, offline: bool) -> Artifact:
    """The release's tarball, as the fetcher takes it: pinned by its digest, its size as the server says."""
    cached = cache.find(SHA256)
    size = cached.stat().st_size if cached else 0 if offline else asked_size(URL, HINT)
    return Artifact(NAME, SHA256, size, URL)


def given_release(tree: Path, cache: Cache) -> Release:
    """A tree at hand (`--buildroot DIR`): a checkout or an unpacked tarball of the pinned release.

    Its content, patches of the user's own included, is part of what the base is named by.

    Raises:
        UsageError: it is no Buildroot tree, or one of another release.
    """
    tree = tree.absolute()
    try:
        found = _VERSION_LINE.search((tree / "Makefile").read_text(errors="replace"))
    except OSError:
        found = None
    if found is None:
        raise UsageError(
            f"{OPTION.replace('DIR', str(tree))}: there is no Buildroot tree here", f"give one of {VERSION}"
        )
    if found[1] != VERSION:
        raise UsageError(
            f"{OPTION.replace('DIR', str(tree))}: this is Buildroot {found[1]}, hal goes by {VERSION}",
            f"check out its tag: `git -C {tree} checkout {VERSION}`",
        )
    return Release(tree, content_digest(tree, cache), given=True)


def content_digest(tree: Path, cache: Cache) -> str:
    """The digest of a tree's names, kinds and contents, without what builds leave in it.

    Reading it all takes a second or two, so the digest is kept under what stat(2) says of every file: it is
    computed again when any file's size, time or inode is another.
    """
    entries = list(_entries(tree))
    seen = inputs_digest(str(tree), *(f"{name} {signature}" for name, signature in entries))
    kept = cache.root / "buildroot" / "digests" / seen
    try:
        digest = kept.read_text()
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            return digest
    except OSError:
        pass
    digest = inputs_digest(*(f"{name} {_content(tree / name)}" for name, _ in entries))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(digest)
    except OSError as error:
        raise HalError(f"{kept}: cannot be written: {error.strerror}", "set HAL_CACHE") from error
    return digest


def _entries(tree: Path) -> Iterator[tuple[str, str]]:
    """Each file and link of a tree, in one order, with what says cheaply whether it has changed."""
    for directory, folders, files in os.walk(tree):
        at = Path(directory)
        if at == tree:
            folders[:] = [name for name in folders if name not in LEFT_BY_BUILDS]
            files = [name for name in files if name not in LEFT_BY_BUILDS]
        folders.sort()
        for name in sorted([*files, *(name for name in folders if (at / name).is_symlink())]):
            path = at / name
            state = path.lstat()
            signature = (
                f"{state.st_mode} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
            )
            yield str(path.relative_to(tree)), signature


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.stat().st_mode & 0o100:o} {digest}"
