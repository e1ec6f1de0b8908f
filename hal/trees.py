"""Directories that are made once and kept in the cache under the digest of what went in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from hal.cache import Cache


def inputs_digest(*inputs: str | bytes) -> str:
    """The digest of a list of inputs; no two different lists have the same."""
    state = hashlib.sha256()
    for item in inputs:
        raw = item.encode() if isinstance(item, str) else item
        state.update(f"{len(raw)}:".encode() + raw)
    return state.hexdigest()


def file_digests(files: Iterable[Path]) -> list[str]:
    """The sha256 of each file's content, in the given order."""
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def cached_tree(cache: Cache, name: str, digest: str, make: Callable[[Path], None]) -> Path:
    """The tree `name` made from inputs of this digest; `make` fills a new directory if there is none.

    Two processes never make the same tree at once, and a tree is seen whole or not at all.
    """
    tree = cache.tree(name, digest)
    if not tree.exists():
        with cache.lock(f"{name}-{digest[:16]}"):
            if not tree.exists():
                with cache.temporary(name) as fresh:
                    make(fresh)
                    cache.publish_tree(fresh, name, digest)
    return tree
