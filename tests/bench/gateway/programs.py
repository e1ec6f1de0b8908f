"""The programs that are measured and those that measure, each from where its users have it.

Debian's programs lie in a tree of their own, unpacked as hal unpacks its tools; Python's in a directory that
pip fills; both stay in hal's cache. Nothing is installed on the host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.cache import Cache
from hal.errors import HalError
from hal.fetch.debian_mirror import find_mirror
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.image.kernel import COMPILE
from hal.lock.debian import PackageSet, PackageSets, load_sets, resolve_debian
from hal.lock.file import load_lock
from hal.run import Completed, failure
from hal.sandbox import Sandbox
from hal.tools import digest, tools_tree
from hal.trees import cached_tree, inputs_digest

SOURCES = Path(__file__).parent
DEBIAN = ("caddy", "golang-go", "nginx-light")
PYTHON = {"vllm-router": "vllm-router==0.1.17", "litellm": "litellm[proxy]==1.106.2"}
"""Pinned, so that two runs compare the same; what they depend on is the newest that fits."""


@dataclass(frozen=True)
class Programs:
    """Where everything lies. A peer that cannot be had is in `missing`, with the reason."""

    tools: Sandbox
    """hal's tools tree: the HAProxy that appliances have."""

    debian: Sandbox | None
    load: Path
    go_proxy: Path | None
    python: dict[str, Path]
    versions: dict[str, str]
    missing: dict[str, str]


def gather(work: Path, wanted: Callable[[str], bool], note: Callable[[str], None]) -> Programs:
    """Bring in all programs that are `wanted` by name; what is compiled goes to `work`.

    Raises:
        HalError: what hal itself or the measuring needs is not there.
    """
    cache, lock = Cache(), load_lock()
    tree = cache.tree("tools", digest(lock.packages("tools")))
    if not tree.exists():
        raise HalError("the cache has no tools tree", "run `make image`, which makes it")
    tools = Sandbox(tree, int(lock.debian.created.timestamp()))
    versions = {"HAProxy": _package_version(lock.packages("tools"), "haproxy")}
    missing: dict[str, str] = {}
    debian, go_proxy = None, None
    if wanted("nginx") or wanted("caddy") or wanted("go"):
        note("nginx, Caddy and Go from Debian")
        try:
            debian, found = _debian_tree(cache)
            versions |= {name: found[package] for name, package in _NAMES.items()}
            go_proxy = _compile_go(debian, work)
        except HalError as error:
            missing |= dict.fromkeys(("nginx", "caddy", "go", "go-256"), error.message)
    python = {}
    for name, requirement in PYTHON.items():
        if not wanted(name):
            continue
        note(f"{requirement} from the package index")
        try:
            python[name] = _python_directory(cache, requirement)
            versions[name] = requirement.rpartition("==")[2]
        except HalError as error:
            missing[name] = error.message
    return Programs(tools, debian, _compile_load(tools, work), go_proxy, python, versions, missing)


_NAMES = {"nginx": "nginx-light", "Caddy": "caddy", "Go": "golang-go"}


def _package_version(packages: Sequence[object], name: str) -> str:
    return next(str(p.version) for p in packages if p.package == name)  # type: ignore[attr-defined]


def _debian_tree(cache: Cache) -> tuple[Sandbox, dict[str, str]]:
    mirror = find_mirror()
    asked = PackageSets(suite=load_sets().suite, sets={"bench": PackageSet(packages=list(DEBIAN))})
    lock = resolve_debian(asked, "amd64", mirror, cache)
    found = lock.sets["bench"]
    blobs = Fetcher(cache, Mirrors(debian=(mirror,))).fetch(found)
    sandbox = tools_tree(found, blobs, cache, int(lock.created.timestamp()))
    return sandbox, {package.package: package.version for package in found}


def _compile_load(tools: Sandbox, work: Path) -> Path:
    """The load generator; static, so that it runs outside of any tree."""
    target = work / "load"
    source = SOURCES / "load.c"
    words = [word for word in COMPILE if word != "-Os"]
    tools.run(
        [*words, "-O2", "-o", str(target), str(source)],
        readable=[source],
        writable=[work],
        what="the compiler",
    )
    return target


def _compile_go(debian: Sandbox, work: Path) -> Path:
    directory = work / "go"
    directory.mkdir()
    shutil.copy(SOURCES / "proxy.go", directory)
    env = {
        "GOCACHE": str(work / "go-cache"),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GO111MODULE": "off",
    }
    debian.run(
        ["go", "build", "-o", str(directory / "proxy"), str(directory / "proxy.go")],
        writable=[work],
        env=env,
        what="go build",
    )
    return directory / "proxy"


def _python_directory(cache: Cache, requirement: str) -> Path:
    """A directory with a package and all it needs, filled by pip as this host configures it."""

    def make(directory: Path) -> None:
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(directory), requirement]
        # The whole environment, as when a user calls pip: proxies, certificates, indexes.
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode != 0:
            raise failure(Completed(tuple(argv), done.returncode, done.stdout, done.stderr), requirement)

    name = requirement.partition("[")[0].partition("==")[0]
    return cached_tree(cache, f"bench-{name}", inputs_digest(requirement, sys.version), make)
