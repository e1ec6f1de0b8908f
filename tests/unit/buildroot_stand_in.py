"""What tests of the Buildroot base share: a tree with a stand-in for make, and a build of it."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hal.bases.buildroot.build import Build
from hal.bases.buildroot.config import Configuration, KernelFile
from hal.bases.buildroot.downloads import Downloads
from hal.bases.buildroot.plan import Plan
from hal.bases.buildroot.prove import read_lines
from hal.bases.buildroot.release import Release
from hal.cache import Cache
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.inputs import Inputs
from hal.lock.file import load_lock
from hal.progress import Reporter, Silent
from hal.run import Completed, run
from hal.sandbox import Bind, Sandbox

MAKE = Path(__file__).with_name("stand_in_make.py")

CONFIG = "BR2_x86_64=y\nBR2_PACKAGE_ZLIB=y\n"
KERNEL = "CONFIG_EROFS_FS=y\n"


@dataclass(frozen=True)
class NoSandbox(Sandbox):
    """Runs what is to be run as it is, and tells the stand-in where the sandbox's directories would be."""

    def command(self, argv: Sequence[str], *, binds: Sequence[Bind] = (), **_: Any) -> list[str]:
        found = [{"target": bind.target, "source": str(bind.source)} for bind in binds]
        return ["env", f"HAL_BINDS={json.dumps(found)}", *argv]

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, **_: Any
    ) -> Completed:
        return run(argv, input=input, check=check)


@dataclass
class World:
    """A Buildroot tree under `home` with what there is to build in it, and a cache."""

    home: Path
    packages: dict[str, dict[str, Any]]
    config: str = CONFIG
    kernel: str = KERNEL
    offline: bool = False

    def scenario(self, **more: Any) -> None:
        """Write what there is to build; `more` is what Kconfig does not know."""
        tree = self.home / "tree"
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "scenario.json").write_text(json.dumps({"packages": self.packages, **more}))

    @property
    def cache(self) -> Cache:
        return Cache(self.home / "cache")

    def plan(self) -> Plan:
        external, toolchain, tools = (self.home / name for name in ("external", "toolchain", "tools"))
        for directory in (external, toolchain, tools / "etc"):
            directory.mkdir(parents=True, exist_ok=True)
        fetcher = Fetcher(self.cache, Mirrors(), offline=self.offline)
        return Plan(
            Release(self.home / "tree", "0" * 64, given=True),
            Configuration(read_lines(self.config, "the spec"), (KernelFile("linux.config", self.kernel),)),
            Downloads(None, fetcher),
            toolchain,
            NoSandbox(tools, 0),
            external,
        )

    def build(self, reporter: Reporter | None = None) -> Path:
        """Build; gives the tree that the base would be."""
        plan = self.plan()
        fetcher = plan.downloads.fetcher
        inputs = Inputs(load_lock(), {}, (), self.cache, fetcher=fetcher)
        with self.cache.temporary("base") as fresh:
            Build(plan, inputs, NoSandbox(self.home, 0), reporter or Silent(), str(MAKE)).into(fresh)
            return self.cache.publish_tree(fresh, "base", plan.digest)

    @property
    def output(self) -> Path:
        """The one output directory."""
        (found,) = (path for path in (self.home / "cache/buildroot").glob("output-*") if path.suffix == "")
        return found

    def done(self) -> list[str]:
        """The steps of packages that make has done since this was last asked, as `PACKAGE STEP`."""
        log = self.output / "done.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def asked(self) -> list[list[str]]:
        """The command lines that make was given, first those that prove and download."""
        logs = sorted((self.home / "cache/buildroot").glob("*/asked.log"), reverse=True)
        return [shlex.split(line) for log in logs for line in log.read_text().splitlines()]


def in_a_process(world: World, code: str = "") -> subprocess.Popen[bytes]:
    """Start building in a process of its own, to be killed."""
    import os
    import sys

    program = (
        # What a shell starts in the background ignores SIGINT, and so would this.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.path[:0] = {[str(MAKE.parents[2])]!r}\n"
        "from pathlib import Path\nfrom tests.unit.buildroot_stand_in import World\n"
        f"World(Path({str(world.home)!r}), {world.packages!r}).build()\n{code}"
    )
    environment: Mapping[str, str] = os.environ
    return subprocess.Popen([sys.executable, "-c", program], env=dict(environment), stderr=subprocess.PIPE)
