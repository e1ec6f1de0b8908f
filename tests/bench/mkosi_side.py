"""mkosi's builds of a comparable image, with Debian 13's mkosi in a tree made as hal makes its tools tree."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from measure import Timing, require, timed

from hal.cache import Cache
from hal.fetch.debian_mirror import DebianMirror, find_mirror
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors, file_path
from hal.lock.debian import KEYRING, PackageSet, PackageSets, load_sets, resolve_debian
from hal.sandbox import Sandbox
from hal.tools import tools_tree

CONFIGURATION = Path(__file__).with_name("mkosi")

PROGRAMS = [
    "mkosi",
    "apt",
    "bash",
    "ca-certificates",
    "coreutils",
    "cpio",
    "cryptsetup-bin",
    "dash",
    "debian-archive-keyring",
    "diffutils",
    "dosfstools",
    "dpkg",
    "e2fsprogs",
    "erofs-utils",
    "fdisk",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "kmod",
    "libc-bin",
    "mtools",
    "openssl",
    "sed",
    "sqv",
    "systemd",
    "systemd-boot-efi",
    "systemd-repart",
    "systemd-ukify",
    "tar",
    "util-linux",
    "xz-utils",
    "zstd",
]
"""mkosi 25 and the programs that it runs for such an image."""

ADDED = ("linux-image-cloud-amd64", "systemd-boot-efi")
"""Beside the packages of hal's root: the kernel, and the UKI's stub, which mkosi takes from the image."""

HOST_FILES = (Path("/etc/resolv.conf"),)
"""What a program with network needs of the host."""


def packages() -> list[str]:
    """The packages that are asked for by name: those of a debug appliance."""
    sets = load_sets().sets
    return [*sets["base"].packages, *sets["debug"].packages, *ADDED]


class MkosiSide:
    """Builds of one image, all in `work`; mkosi's own tree stays in the user's cache."""

    def __init__(self, work: Path, cache: Cache) -> None:
        work.mkdir()
        self._work = work
        self._mirror = find_mirror()
        self._sandbox, self.version = _mkosi_tree(self._mirror, cache)
        self._round = 0
        self._configuration = work / "configuration"
        shutil.copytree(CONFIGURATION, self._configuration)
        self._configure()
        self._prepared = False

    def cold(self) -> Timing:
        """Nothing is there but mkosi and its programs: downloads, base, initrd, image."""
        self._empty("packages")
        return self._run()

    def downloads_at_hand(self) -> Timing:
        """Package lists and packages are in mkosi's package cache."""
        require(any((self._work / "packages").rglob("*.deb")), "mkosi keeps no packages")
        return self._run()

    def configuration_changed(self) -> Timing:
        """Incremental: all before the copying of `mkosi.extra` is kept; one file there has changed."""
        if not self._prepared:
            self._run("--incremental=yes")
            require(any((self._work / "cache").iterdir()), "mkosi keeps no incremental image")
            self._prepared = True
        self._round += 1
        changed = self._configuration / "mkosi.extra/etc/bench.env"
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_text(f"CONTEXT_LENGTH={2048 + self._round}\n")
        return self._run("--incremental=yes")

    def sizes(self) -> dict[str, int]:
        """Bytes of what the last build made."""
        out = self._work / "build"
        disk = out / "bench.raw"
        shown = self._sandbox.run(["sfdisk", "--json", str(disk)], readable=[disk]).stdout
        table = json.loads(shown)["partitiontable"]
        root = next(part for part in table["partitions"] if part["name"].startswith("root-x86-64"))
        return {
            "root": root["size"] * table["sectorsize"],
            "initrd": (out / "bench.initrd").stat().st_size,
            "uki": (out / "bench.efi").stat().st_size,
            "disk": disk.stat().st_size,
            "disk, on the host": disk.stat().st_blocks * 512,
        }

    def _run(self, *options: str) -> Timing:
        self._empty("build")
        places = {
            "--package-cache-dir": "packages",
            "--cache-directory": "cache",
            "--workspace-directory": "workspace",
            "--output-directory": "build",
        }
        for name in places.values():
            (self._work / name).mkdir(exist_ok=True)
        words = [word for option, name in places.items() for word in (option, str(self._work / name))]
        proxies = {name: os.environ[name] for name in ("http_proxy", "https_proxy") if name in os.environ}
        command = self._sandbox.command(
            ["mkosi", "--directory", str(self._configuration), *words, *options, "--force", "build"],
            readable=[*HOST_FILES, *_local_directories(self._mirror)],
            writable=[self._work],
            network=True,
            env=proxies,
        )
        return timed(command, self._work / "log")

    def _empty(self, name: str) -> None:
        """Empty a directory of `work`, from inside, since without root its files may be another user's."""
        directory = self._work / name
        directory.mkdir(exist_ok=True)
        self._sandbox.run(["find", str(directory), "-mindepth", "1", "-delete"], writable=[directory])

    def clean(self) -> None:
        """Remove everything that mkosi made."""
        self._empty(".")

    def _configure(self) -> None:
        """Add what is known only here: the suite, the packages, and the mirror that hal uses, too."""
        suite = load_sets().suite
        added = self._configuration / "mkosi.conf.d"
        added.mkdir()
        lines = "".join(f"    {name}\n" for name in packages())
        (added / "packages.conf").write_text(
            f"[Distribution]\nRelease={suite}\n\n[Content]\nPackages=\n{lines}"
        )
        # mkosi writes this file only where there is none, and has hosts of its own to put in.
        sources = self._configuration / "mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources"
        sources.parent.mkdir(parents=True)
        places = [
            (self._mirror.main, f"{suite} {suite}-updates"),
            (self._mirror.security, f"{suite}-security"),
        ]
        sources.write_text(
            "\n".join(
                f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"
                for uri, suites in places
            )
        )


def _mkosi_tree(mirror: DebianMirror, cache: Cache) -> tuple[Sandbox, str]:
    """The tree with mkosi, made if the cache does not have it, and mkosi's version."""
    wanted = PackageSets(suite=load_sets().suite, sets={"mkosi": PackageSet(packages=PROGRAMS)})
    lock = resolve_debian(wanted, "amd64", mirror, cache)
    found = lock.sets["mkosi"]
    blobs = Fetcher(cache, Mirrors(debian=(mirror,))).fetch(found)
    sandbox = tools_tree(found, blobs, cache, int(lock.created.timestamp()))
    for file in HOST_FILES:
        (sandbox.tree / file.relative_to("/")).touch()  # a place for the host's file to be bound to
    version = next(package.version for package in found if package.package == "mkosi")
    return sandbox, version


def _local_directories(mirror: DebianMirror) -> list[Path]:
    """Where a mirror on this machine lies."""
    return [path for url in (mirror.main, mirror.security) if (path := file_path(url)) is not None]
