"""hal's builds: each starts from a cache and an output directory in the state that is to be measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import Timing, require, timed

from hal.cache import Cache, remove_tree
from hal.lock.file import load_lock

HAL = Path(sys.executable).with_name("hal")
NAME = "bench"

SPEC = """\
appliance: {{name: bench, version: 1.0.0}}
variant: debug
engines:
  - llamacpp: {{settings: {{context_length: {context_length}}}}}
models: [smollm2-135m]
"""
"""The profile `starter` with one value that lands in an environment file."""


class HalSide:
    """Builds of one spec with a cache of their own, all in `work`."""

    def __init__(self, work: Path) -> None:
        work.mkdir()
        self._work = work
        self._cache = work / "cache"
        self._out = work / "build"
        self._context_length = 2048

    def cold(self) -> Timing:
        """Nothing is there: downloads, tools tree, base, packs, image."""
        remove_tree(self._cache)
        return self._built()

    def tools_at_hand(self) -> Timing:
        """Only the tools tree and its packages are there; everything else is downloaded and made."""
        old, new = Cache(self._cache), Cache(self._work / "cache.new")
        for package in load_lock().packages("tools"):
            if (blob := old.find(package.sha256)) is not None:
                target = new.path(package.sha256)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(blob)
        (new.root / "trees").mkdir()
        for tree in (old.root / "trees").glob("tools-*"):
            tree.rename(new.root / "trees" / tree.name)
        remove_tree(old.root)
        new.root.rename(old.root)
        return self._built()

    def downloads_at_hand(self) -> Timing:
        """Every download is in the cache, and nothing that is made from them."""
        remove_tree(self._cache / "trees")
        return self._built()

    def configuration_changed(self) -> Timing:
        """One value of the spec differs from the build before; no tree of the cache may be made for it."""
        self._run()  # the last one may be long ago, and hal itself may have changed since
        self._context_length += 1
        before = self._trees()
        timing = self._run()
        require(self._trees() == before, "a changed value made hal build other parts than the root anew")
        require(
            self._context_length in _values(self.manifest()["spec"]), "the changed value is not in the image"
        )
        return timing

    def unchanged(self) -> Timing:
        """The same spec as in the build before."""
        self._run()  # as above
        before = self._identity()
        timing = self._run()
        require(self._identity() == before, "hal built an image anew although nothing had changed")
        return timing

    def manifest(self) -> Mapping[str, Any]:
        """What the last build says about itself."""
        manifest: Mapping[str, Any] = json.loads((self._out / NAME / "manifest.json").read_text())
        return manifest

    def sizes(self) -> dict[str, int]:
        """Bytes of what the last build made."""
        manifest = self.manifest()
        artefacts = manifest["artefacts"]
        disk = self._out / NAME / "disk.img"
        return {
            "root": manifest["root"]["size"],
            "initrd": artefacts["initrd"]["size"],
            "uki": artefacts["uki.efi"]["size"],
            **{f"pack {pack['name']}": pack["size"] for pack in manifest["packs"]},
            "disk": disk.stat().st_size,
            "disk, on the host": disk.stat().st_blocks * 512,
        }

    def _built(self) -> Timing:
        remove_tree(self._out)
        return self._run()

    def _run(self) -> Timing:
        spec = self._work / "bench.yaml"
        spec.write_text(SPEC.format(context_length=self._context_length))
        argv = [str(HAL), "build", str(spec), "--out", str(self._out)]
        # The whole environment, as when a user calls it: proxies, certificates, mirrors.
        return timed(argv, self._work / "log", {**os.environ, "HAL_CACHE": str(self._cache)})

    def _trees(self) -> frozenset[tuple[str, int]]:
        return frozenset((tree.name, tree.stat().st_ino) for tree in (self._cache / "trees").iterdir())

    def _identity(self) -> int:
        """Another number whenever a build has put a new directory in the place of the old."""
        return (self._out / NAME).stat().st_ino


def _values(value: object) -> list[object]:
    """All plain values in nested JSON."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _values(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _values(item)]
    return [value]
