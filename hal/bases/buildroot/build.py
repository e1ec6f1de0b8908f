"""Building the base with Buildroot: cached is taken, stale is built, what failed is explained.

$HAL_CACHE/buildroot/prove-…    where configurations are proven; no package is built there
$HAL_CACHE/buildroot/output-…   output directories, one per set of what all packages follow from (release,
                                toolchain, architecture, init system …): kept, so that a build goes on
                                where an earlier one of any spec has ended, however it ended
$HAL_CACHE/buildroot/dl, ccache downloads and compiled objects, shared by all
$HAL_CACHE/trees/buildroot-…    finished bases, under the digest of all that went in
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal.bases import Base
from hal.bases.buildroot import outputs, packages
from hal.bases.buildroot.make import CONFIG, OUTPUT, TREE, Make, Places
from hal.bases.buildroot.plan import SERVICES, Plan, plan_of
from hal.bases.buildroot.progress import Course
from hal.bases.buildroot.prove import (
    buildroot_variables,
    dropped,
    explanation,
    kernel_variables,
    refusal,
)
from hal.cache import Cache, remove_tree
from hal.image.kernel import Kernel
from hal.inputs import Inputs
from hal.progress import Reporter
from hal.sandbox import Sandbox
from hal.sbom.buildroot import source_hashes
from hal.spec.loading import LoadedSpec
from hal.trees import cached_tree, inputs_digest

STEP = "base tree (Buildroot)"
DOWNLOADS_AT_ONCE = 4


def base(loaded: LoadedSpec, inputs: Inputs, image_tools: Sandbox, reporter: Reporter) -> Base:
    """The base of a spec, built where the cache does not have it.

    Raises:
        UsageError: Kconfig does not take a line of the configuration.
        HalError: a source cannot be had or is not the pinned one; a package failed.
    """
    plan = plan_of(loaded, inputs)

    def make(tree: Path) -> None:
        with reporter.step(STEP):
            Build(plan, inputs, image_tools, reporter).into(tree)

    return finished(cached_tree(inputs.cache, "buildroot", plan.digest, make))


def finished(tree: Path) -> Base:
    """The base that lies in a tree of the cache."""
    info = json.loads((tree / "show-info.json").read_text())
    versions = {
        name: entry["version"]
        for name, entry in info.items()
        if entry["type"] == "target" and entry.get("version")
    }
    release = (tree / "kernel.release").read_text().strip()
    silent = (
        re.search(r"^CONFIG_SERIAL_\w+_CONSOLE=y$", (tree / "kernel.config").read_text(), re.MULTILINE)
        is None
    )
    return Base(tree / "root", tree.name, Kernel(tree / "vmlinuz", release, None, silent), versions)


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is built: the proven `.config`, and its packages by `make show-info`."""

    config: str
    info: Mapping[str, Any]


class Build:
    """One build of a base."""

    def __init__(
        self, plan: Plan, inputs: Inputs, image_tools: Sandbox, reporter: Reporter, program: str = "make"
    ) -> None:
        self._plan = plan
        assert inputs.fetcher is not None
        self._cache: Cache = inputs.cache
        self._fetcher = inputs.fetcher
        self._image_tools = image_tools
        self._reporter = reporter
        self._program = program
        self._home = inputs.cache.root / "buildroot"
        self._jobs = os.cpu_count() or 1

    def into(self, tree: Path) -> None:
        """Prove the configuration, build what is stale, and put the root tree and the kernel into `tree`."""
        wanted = self.prepared()
        output = self._home / f"output-{self._key(wanted.config)}"
        with self._cache.lock(f"buildroot-{output.name}"):
            make = self._make(output)
            self._clear(make, wanted)
            self._prove_kernel(make, wanted.info)
            self._build(make, wanted.info)
            self._hand_on(make, wanted.info, tree)

    def prepared(self) -> Prepared:
        """The configuration, proven, its packages, and all their sources downloaded and checked.

        It has a place of its own: no output directory is touched before that is done.

        Raises:
            UsageError: Kconfig does not take a line of the configuration.
            HalError: a source cannot be had, or is not the one that the hashes name.
        """
        place = f"prove-{inputs_digest(self._plan.release.digest, self._plan.tools.tree.name)[:16]}"
        with self._cache.lock(f"buildroot-{place}"):
            make = self._make(self._home / place)
            config = self._prove(make)
            self._reporter.status(STEP, "listing packages")
            listed = make.text("-s", "show-info", what="listing Buildroot's packages")
            self._sources(make)
        info: dict[str, Any] = json.loads(listed)
        return Prepared(config, info)

    def _key(self, config: str) -> str:
        plan = self._plan
        parts = (plan.release.digest, plan.toolchain.name, plan.tools.tree.name, packages.shared(config))
        return inputs_digest(*parts)[:24]

    def _make(self, output: Path) -> Make:
        """make in one output directory, with the directories that it needs."""
        plan, home = self._plan, self._home
        config = home / f"{output.name}.config"
        downloads, ccache = home / "dl", home / "ccache"
        for directory in (output, config, downloads, ccache):
            directory.mkdir(parents=True, exist_ok=True)
        for file in plan.configuration.kernel:
            outputs.write(config / file.name, file.text)
        outputs.write(config / "defconfig", plan.configuration.text())
        places = Places(
            plan.release.unpacked(self._fetcher),
            plan.external,
            SERVICES,
            output,
            config,
            downloads,
            ccache,
            plan.toolchain,
            plan.downloads.lay_out(self._cache),
        )
        return Make(places, plan.tools, self._program)

    def _prove(self, make: Make) -> str:
        """The .config that Kconfig makes of the configuration, every line of it proven.

        Raises:
            UsageError: a line was not taken.
        """
        self._reporter.status(STEP, "proving the configuration")
        make.text(f"DEFCONFIG={CONFIG}/defconfig", "defconfig", what="reading Buildroot's configuration")
        config = (make.places.output / ".config").read_text()
        found = dropped(self._plan.configuration.lines, config)
        if found:
            why = explanation(
                make,
                found,
                root=TREE,
                start="Config.in",
                config=f"{OUTPUT}/.config",
                variables=buildroot_variables(config),
            )
            raise refusal("the configuration of Buildroot", found, why)
        return config

    def _sources(self, make: Make) -> None:
        """Download all that is not there yet; everything is held against its hash."""
        self._reporter.status(STEP, "downloading sources")
        # Not by what an earlier run has noted: the files may be gone.
        for stamp in (make.places.output / "build").glob("*/.stamp_downloaded"):
            stamp.unlink()
        make.watched(
            [*(["BR2_PRIMARY_SITE_ONLY=y"] if self._fetcher.offline else []), "source"],
            step="downloading sources",
            reporter=self._reporter,
            course=Course(frozenset(), {}, time.time()),
            jobs=DOWNLOADS_AT_ONCE,
            network=not self._fetcher.offline,
        )

    def _clear(self, make: Make, wanted: Prepared) -> None:
        """Put the configuration into the output directory, and take away what is stale there."""
        output = make.places.output
        self._reporter.status(STEP, "looking for what has changed")
        outputs.write(output / ".config", wanted.config)
        kernel = inputs_digest(*(f"{file.name} {file.text}" for file in self._plan.configuration.kernel))
        known: dict[str, str] = {}

        def content(path: str) -> str:
            if path not in known:
                known[path] = outputs.content(make.places.on_host(path))
            return known[path]

        new = packages.table(wanted.info, wanted.config, content, kernel, self._plan.downloads.by_package)
        old = outputs.table(output)
        outputs.clear(output, old, packages.stale(old, new))
        # Only now: what was stale is gone, and whatever is built from here on is built from `new`.
        outputs.write(output / outputs.TABLE, packages.to_json(new))

    def _prove_kernel(self, make: Make, info: Mapping[str, Any]) -> None:
        """Prove the kernel's configuration as soon as its sources are unpacked.

        Raises:
            UsageError: a line was not taken.
        """
        directory = info[packages.LINUX]["stamp_dir"]
        self._reporter.status(STEP, "proving the kernel's configuration")
        course = Course(frozenset(), {}, time.time())
        make.watched(
            [f"{OUTPUT}/{directory}/.stamp_kconfig_fixup_done"],
            step="configuring the kernel",
            reporter=self._reporter,
            course=course,
            jobs=self._jobs,
        )
        config = (make.places.output / directory / ".config").read_text()
        found = dropped(self._plan.configuration.kernel_lines(), config)
        if found:
            why = explanation(
                make,
                found,
                root=f"{OUTPUT}/{directory}",
                start="Kconfig",
                config=f"{OUTPUT}/{directory}/.config",
                variables=kernel_variables(info[packages.LINUX]["version"]),
                prefix="CONFIG_",
            )
            raise refusal("the configuration of the kernel", found, why)

    def _build(self, make: Make, info: Mapping[str, Any]) -> None:
        output = make.places.output
        course = Course(frozenset(outputs.unbuilt(output, info)), outputs.times(output), time.time())
        # What make puts there is the sum of all packages; of one that is no more nothing may stay.
        remove_tree(output / "target")
        with outputs.marked(output):
            make.watched(["all"], step=STEP, reporter=self._reporter, course=course, jobs=self._jobs)

    def _hand_on(self, make: Make, info: Mapping[str, Any], tree: Path) -> None:
        output = make.places.output
        self._reporter.status(STEP, "unpacking the root tree")
        root = tree / "root"
        root.mkdir()
        rootfs = output / "images" / "rootfs.tar"
        self._image_tools.run(
            ["tar", "--extract", "--numeric-owner", f"--file={rootfs}", f"--directory={root}"],
            readable=[rootfs],
            writable=[root],
            what="unpacking Buildroot's root tree",
        )
        directory = output / info[packages.LINUX]["stamp_dir"]
        images = [output / "images" / name for name in ("bzImage", "Image")]
        shutil.copyfile(next(image for image in images if image.exists()), tree / "vmlinuz")
        shutil.copyfile(directory / "include/config/kernel.release", tree / "kernel.release")
        shutil.copyfile(directory / ".config", tree / "kernel.config")
        shutil.copyfile(output / ".config", tree / "buildroot.config")
        (tree / "show-info.json").write_text(json.dumps(info, indent=1, sort_keys=True))
        hashes = source_hashes(info, lambda path: make.places.on_host(path).read_text())
        (tree / "source-hashes.json").write_text(json.dumps(hashes, indent=1, sort_keys=True))
