"""Bases: what makes the OS root tree and the kernel.

Debian's packages or sources, each base hands on the same `Base`. All that comes after it is shared: hal's
services and rendered files are laid over the tree, packs, initrd, images and measurements are made in one
way, and one set of checks holds for both.

The tree has a merged `/usr`, the programs that the rendered files name, the users of the system (hal adds
its own services'), an empty `/etc/machine-id`, nothing in `/etc/systemd/system` or `/etc/init.d` that would
start by itself, no setuid program, and the mount points `/srv/models`, `/var/lib/hal` and `/etc/hal`. Its
files belong to the image's users, so only the sandbox reads all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hal.image.kernel import Kernel


@dataclass(frozen=True)
class Base:
    """What a base hands on.

    `tree` is the root tree, complete and in the cache; `name` is the digest-bearing name of all that the
    base is. `packages` are what is in it, by name, with their versions.
    """

    tree: Path
    name: str
    kernel: Kernel
    packages: Mapping[str, str]
