"""The `debian` base: a root tree from Debian's packages, through mmdebstrap.

The packages that the lock names become a local archive; mmdebstrap, from the tools tree and without a
network, installs exactly those, and a script takes away what would differ between two builds. The
result is a directory in the cache, named by the digest of everything that went in.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache as remember
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hal.bases import Base
from hal.cache import Cache
from hal.image.kernel import Kernel, kernel
from hal.lock.file import DebianPackage
from hal.progress import Reporter
from hal.run import run
from hal.sandbox import Sandbox
from hal.trees import cached_tree, inputs_digest

if TYPE_CHECKING:
    from hal.inputs import Inputs

HERE = Path(__file__).parent
FINISH = HERE / "debian-finish.sh"
RECIPE = "2"
"""Changes when the way the tree is made changes, so that cached trees are made anew."""

LEFT_OUT = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/zsh/*",
)
"""dpkg's own means to leave files out (dpkg(1)): its database stays whole, as security scanners need it."""


SETTINGS = "/etc/dpkg/dpkg.cfg.d/hal"
"""Where dpkg finds them, in the tree itself."""

LINKED = 'ln -s "$1" /tmp/archive; shift; exec "$@"'
"""apt's sources cannot hold every path (a space): the local archive gets a plain name."""


@remember
def package_sets() -> dict[str, Any]:
    """The table of top-level packages, `debian.yaml`."""
    table: dict[str, Any] = yaml.load((HERE / "debian.yaml").read_text(), yaml.CSafeLoader)
    return table


def base(sets: Sequence[str], inputs: Inputs, tools: Sandbox, reporter: Reporter) -> Base:
    """The base of the lock's package sets, with the kernel of the set `kernel`; made if it is not cached.

    Raises:
        HalError: see `root_tree`.
    """
    lock = inputs.lock
    # Sets on top of the same one may share packages.
    packages = list(dict.fromkeys(item for name in sets for item in lock.packages(name)))
    kernels = lock.packages("kernel")

    def boot() -> Kernel:
        with reporter.step("kernel"):
            return kernel(kernels, inputs.blobs, inputs.cache)

    def root() -> Path:
        with reporter.step("base tree (Debian)"):
            return root_tree(packages, inputs.blobs, lock.debian.suite, tools, inputs.cache)

    with ThreadPoolExecutor() as pool:
        kernel_job, root_job = pool.submit(boot), pool.submit(root)
        tree = root_job.result()
        versions = {package.package: package.version for package in (*packages, *kernels)}
        return Base(tree, tree.name, kernel_job.result(), versions)


def digest(packages: Sequence[DebianPackage], epoch: int) -> str:
    """The name of the root tree that these packages make."""
    return inputs_digest(
        RECIPE, str(epoch), FINISH.read_bytes(), *LEFT_OUT, *sorted(package.sha256 for package in packages)
    )


def root_tree(
    packages: Sequence[DebianPackage], blobs: Mapping[str, Path], suite: str, tools: Sandbox, cache: Cache
) -> Path:
    """The root tree of these packages, made if the cache does not have it.

    Raises:
        HalError: a package's maintainer script failed; the error holds mmdebstrap's last lines.
    """

    def make(tree: Path) -> None:
        with cache.temporary("archive") as archive:
            _local_archive(packages, blobs, archive)
            try:
                _mmdebstrap(packages, archive, suite, tree, tools)
            except BaseException:
                # Without root its files belong to the image's users: only the sandbox may remove them.
                tools.run(["find", str(tree), "-mindepth", "1", "-delete"], writable=[tree], check=False)
                raise

    return cached_tree(cache, "base", digest(packages, tools.epoch), make)


def _mmdebstrap(
    packages: Sequence[DebianPackage], archive: Path, suite: str, target: Path, tools: Sandbox
) -> None:
    settings = "".join(f"{option}\n" for option in LEFT_OUT)
    hook = f'mkdir -p "$1"/etc/dpkg/dpkg.cfg.d; printf %s {shlex.quote(settings)} >"$1"{SETTINGS}'
    tools.run(
        [
            *("sh", "-c", LINKED, "mmdebstrap", str(archive)),
            *("mmdebstrap", "--mode=root", "--variant=custom", "--format=directory"),
            f"--include={','.join(sorted(package.package for package in packages))}",
            "--dpkgopt=force-unsafe-io",
            # Not by --dpkgopt: mmdebstrap would filter every package in Python, half of its time.
            f"--setup-hook={hook}",
            "--skip=check/empty",
            suite,
            str(target),
            "deb [trusted=yes] copy:/tmp/archive ./",
        ],
        readable=[archive],
        writable=[target],
        host_devices=True,
        what="mmdebstrap (installing the base's packages)",
    )
    tools.run(
        [str(FINISH), str(target)], readable=[FINISH], writable=[target], what="finishing the base tree"
    )


def _local_archive(packages: Sequence[DebianPackage], blobs: Mapping[str, Path], directory: Path) -> None:
    """A flat archive of verified packages: hard links (or copies) and an index of them.

    `trusted=yes` is right for it: each file's sha256 was checked against the lock when it was fetched.
    """

    def entry(package: DebianPackage) -> str:
        blob = blobs[package.sha256]
        name = f"{package.package}_{package.sha256[:16]}.deb"
        try:
            os.link(blob, directory / name)
        except OSError:
            shutil.copyfile(blob, directory / name)
        fields = run(["dpkg-deb", "--field", str(blob)], what=f"reading {package.name}").stdout
        return f"{fields.rstrip()}\nFilename: ./{name}\nSize: {package.size}\nSHA256: {package.sha256}\n"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = list(pool.map(entry, packages))
    (directory / "Packages").write_text("\n".join(entries))
