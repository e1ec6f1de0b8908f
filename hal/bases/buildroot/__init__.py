"""The `buildroot` base: the OS root tree and the kernel, built from source by a pinned Buildroot.

    spec ─config→ defconfig, kernel configuration ─prove→ .config ─packages→ what is stale ─make→ rootfs,
    kernel

`release` has the pinned tree, `sources` where packages come from when not from their authors, `toolchain` the
compiler. `make` runs it all in a sandbox and `progress` reads what it says.
"""

from __future__ import annotations

from hal.bases.buildroot.build import base
from hal.bases.buildroot.plan import PACKAGE_SETS

__all__ = ["PACKAGE_SETS", "base"]
