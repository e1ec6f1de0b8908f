"""All that builds of a spec take from outside, in one file: for a machine without a network.

The file is a plain tar archive with the names that the files have in a cache: `blobs/sha256/AA/HASH`, and
`buildroot/dl/PACKAGE/FILE` for what Buildroot has downloaded. A blob is verified when it comes into a cache;
what Buildroot downloads is held against its hashes by each build.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hal.bases.buildroot import build as buildroot
from hal.bases.buildroot.plan import plan_of
from hal.bases.buildroot.release import SHA256, artifact
from hal.cache import Cache, disk_error
from hal.errors import HalError
from hal.inputs import Inputs
from hal.progress import Reporter
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_DOWNLOAD = re.compile(r"buildroot/dl/[A-Za-z0-9][A-Za-z0-9._+-]*/[A-Za-z0-9][A-Za-z0-9._+~-]*")
CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceFiles:
    """The files of a cache that builds read, by the names that they have in it."""

    files: Mapping[str, Path]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(path.stat().st_size for path in self.files.values())


def collect(loaded: LoadedSpec, inputs: Inputs, image_tools: Sandbox, reporter: Reporter) -> SourceFiles:
    """Bring in what is not in the cache yet, Buildroot's packages included, and name all of it.

    `inputs` hold all that the spec's packs are made of. A tree of Buildroot that was given is no part of it.

    Raises:
        HalError: something cannot be had, or is not what is pinned.
    """
    cache, fetcher = inputs.cache, inputs.fetcher
    blobs = set(inputs.blobs)
    found: dict[str, Path] = {}
    if loaded.spec.base == "buildroot":
        assert fetcher is not None
        plan = plan_of(loaded, inputs)
        with reporter.step("sources of Buildroot"):
            info = buildroot.Build(plan, inputs, image_tools, reporter).prepared().info
        if plan.downloads.sources is not None:
            blobs |= {item.sha256 for item in plan.downloads.sources.artifacts()}
        if not plan.release.given:
            blobs |= set(fetcher.fetch([artifact(cache, offline=fetcher.offline)]))
        found |= dict(_downloads(info, cache.root))
    found |= {str(cache.path(sha256).relative_to(cache.root)): cache.path(sha256) for sha256 in blobs}
    return SourceFiles(dict(sorted(found.items())))


def _downloads(info: Mapping[str, Mapping[str, object]], root: Path) -> Iterable[tuple[str, Path]]:
    """What Buildroot has downloaded for the packages that show-info lists."""
    for entry in info.values():
        downloads = entry.get("downloads", [])
        assert isinstance(downloads, list)
        for download in downloads:
            name = f"buildroot/dl/{entry['dl_dir']}/{download['source']}"
            if (root / name).is_file():
                yield name, root / name


def pack(sources: SourceFiles, target: Path) -> None:
    """Write the files into one archive; equal files give equal archives.

    Raises:
        HalError: it cannot be written.
    """
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as archive:
            for name, path in sources.files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = path.stat().st_size, 0o444
                with path.open("rb") as file:
                    archive.addfile(member, file)
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise disk_error(error, target.parent, "give") or error from error


def unpack(file: Path, cache: Cache) -> tuple[int, int]:
    """Take the files of an archive into a cache; gives how many were new, and how many it has.

    Raises:
        HalError: it is no such archive, or a file in it is not what its name says.
    """
    new = total = 0
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                blob = _BLOB.fullmatch(member.name)
                if not member.isreg() or not (blob or _DOWNLOAD.fullmatch(member.name)):
                    raise HalError(f"{file}: {member.name!r} is nothing that hal packs", _HINT)
                content = archive.extractfile(member)
                assert content is not None
                total += 1
                new += _take(content, member.name, blob[2] if blob else None, file, cache)
    except (OSError, tarfile.TarError) as error:
        raise HalError(f"{file}: cannot be unpacked: {error}", _HINT) from error
    return new, total


_HINT = "`hal sources SPEC --pack FILE` makes such files"


def _take(content: IO[bytes], name: str, sha256: str | None, file: Path, cache: Cache) -> bool:
    """One file into the cache, unless it is there; True when it was new."""
    target = cache.root / name
    if target.exists():
        return False
    with cache.temporary("unpack") as place:
        fresh, digest = place / "file", hashlib.sha256()
        with fresh.open("wb") as sink:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
                sink.write(chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise HalError(f"{file}: {name} has other content than its name says", "copy the file again")
        fresh.chmod(0o444 if sha256 else 0o644)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(target)
    return True


def needs_release(sources: SourceFiles) -> bool:
    """Whether a tree of Buildroot has to be given along: the release itself is not in the files."""
    return any(name.startswith("buildroot/") for name in sources.files) and not any(
        name.endswith(SHA256) for name in sources.files
    )
