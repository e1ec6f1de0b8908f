"""Building twice, apart in everything that must not matter, and comparing the bytes.

The two builds share nothing but the verified downloads: each has its own cache and directory, and they
differ in time, path, umask, locale, time zone, number of processors and (as root) host name.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from hal.build import ARTEFACTS
from hal.cache import Cache
from hal.image.disk import pack_disk_name
from hal.inputs import Inputs
from hal.lock.file import write_lock
from hal.progress import Reporter
from hal.run import run
from hal.spec.loading import LoadedSpec

PROJECT = Path(__file__).resolve().parent.parent
"""The builds run this very hal, installed or not."""


@dataclass(frozen=True)
class Surroundings:
    """What one of the two builds finds around it."""

    name: str
    umask: str
    processors: str
    host_name: str
    variables: tuple[tuple[str, str], ...]


FIRST = Surroundings("a", "0022", "0", "first", (("TZ", "UTC"), ("LC_ALL", "C")))
SECOND = Surroundings(
    "b-in-a-longer-path", "0077", "", "second-host", (("TZ", "Pacific/Kiritimati"), ("LC_ALL", "C.UTF-8"))
)


@dataclass(frozen=True)
class Comparison:
    """The artefacts that were compared, and those that differ."""

    compared: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every artefact is the same bytes in both builds."""
        return not self.differing


def compare_builds(loaded: LoadedSpec, inputs: Inputs, reporter: Reporter) -> Comparison:
    """Build `loaded` twice and compare every artefact.

    Raises:
        HalError: one of the builds failed.
    """
    with inputs.cache.temporary("repro") as root:
        outputs = []
        for surroundings in (FIRST, SECOND):
            with reporter.step(f"build {surroundings.name}"):
                outputs.append(_build(loaded, surroundings, root / surroundings.name, inputs))
        first, second = outputs
        own = [pack_disk_name(model.name) for model in loaded.models if model.delivery == "disk"]
        compared = (*ARTEFACTS, *own)
        differing = [name for name in compared if not filecmp.cmp(first / name, second / name, shallow=False)]
    return Comparison(compared, tuple(differing))


def _build(loaded: LoadedSpec, surroundings: Surroundings, home: Path, inputs: Inputs) -> Path:
    home.mkdir()
    cache = _cache_with_same_downloads(home / "cache", inputs)
    lock = home / "hal.lock"  # the one that these inputs go by, be it in memory only
    write_lock(inputs.lock, lock)
    script = [f"umask {surroundings.umask}"]
    if os.geteuid() == 0:
        script.append(f"echo {surroundings.host_name} > /proc/sys/kernel/hostname")
    script.append('exec "$@"')
    run(
        [
            *(("unshare", "--uts", "--") if os.geteuid() == 0 else ()),
            *(("taskset", "--cpu-list", surroundings.processors) if surroundings.processors else ()),
            *("sh", "-euc", "\n".join(script), "build"),
            *(sys.executable, "-m", "hal.cli", "build", str(loaded.path.absolute())),
            *("--offline", "--locked", "--lock", str(lock), "--out", str(home / "out")),
            *(word for value in _archives(inputs, cache) for word in ("--artifact", value)),
        ],
        env={
            **dict(surroundings.variables),
            **(inputs.buildroot.variables() if inputs.buildroot else {}),
            "HAL_CACHE": str(cache.root),
            "PYTHONPATH": str(PROJECT),
        },
        what=f"the build in {home}",
    )
    return home / "out" / loaded.spec.appliance.name


def _archives(inputs: Inputs, cache: Cache) -> list[str]:
    """The engines' release archives as `--artifact` takes them: some came from the user, not from a pin."""
    return [
        f"{name}={cache.path(archive.sha256)}#sha256={archive.sha256}"
        for name, archive in sorted(inputs.archives.items())
    ]


def _cache_with_same_downloads(root: Path, inputs: Inputs) -> Cache:
    """A cache that has the downloads of `inputs` and none of what was made from them.

    Hard links: a symbolic one would point out of the sandboxes that read it.
    """
    cache = Cache(root)
    for sha256, blob in inputs.blobs.items():
        path = cache.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(blob, path)
    downloads = Path("buildroot/dl")
    if (inputs.cache.root / downloads).is_dir():
        shutil.copytree(inputs.cache.root / downloads, root / downloads, copy_function=os.link)
    return cache
