"""Sources in one file: packed from one cache, taken into another, and nothing else let in."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.errors import HalError
from hal.sourcepack import SourceFiles, needs_release, pack, unpack

CONTENT = b"a package"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"blobs/sha256/{SHA256[:2]}/{SHA256}"
DOWNLOAD = "buildroot/dl/zlib/zlib-1.3.1.tar.xz"


def sources(directory: Path) -> SourceFiles:
    found = {}
    for name, content in ((BLOB, CONTENT), (DOWNLOAD, b"zlib")):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found[name] = path
    return SourceFiles(found)


def test_what_is_packed_in_one_cache_is_in_another_after_unpacking(tmp_path: Path) -> None:
    packed, cache = tmp_path / "sources.tar", Cache(tmp_path / "other")
    pack(sources(tmp_path / "one"), packed)
    assert unpack(packed, cache) == (2, 2)
    assert cache.find(SHA256, len(CONTENT)) == cache.path(SHA256)
    assert (cache.root / DOWNLOAD).read_bytes() == b"zlib"
    assert unpack(packed, cache) == (0, 2)


def test_equal_files_give_equal_archives(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(sources(tmp_path / name), tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "buildroot/dl/../../outside",
        "buildroot/dl/zlib/../../../x",
        f"blobs/sha256/00/{SHA256}",
        "locks/x",
    ],
)
def test_no_other_name_is_let_in(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))
    with pytest.raises(HalError, match="is nothing that hal packs"):
        unpack(tmp_path / "bad.tar", Cache(tmp_path / "cache"))


def test_a_link_is_not_let_in(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo(DOWNLOAD)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(HalError, match="is nothing that hal packs"):
        unpack(tmp_path / "bad.tar", Cache(tmp_path / "cache"))


def test_a_blob_is_what_its_name_says_or_nothing_of_it_stays(tmp_path: Path) -> None:
    changed = sources(tmp_path / "one")
    changed.files[BLOB].write_bytes(b"another")
    pack(changed, tmp_path / "bad.tar")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(HalError, match="has other content than its name says"):
        unpack(tmp_path / "bad.tar", cache)
    assert cache.find(SHA256) is None


def test_what_is_no_archive_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("not a tar archive, and long enough to be read as one" * 20)
    with pytest.raises(HalError, match="cannot be unpacked"):
        unpack(tmp_path / "x.tar", Cache(tmp_path / "cache"))


def test_a_tree_that_was_given_is_missed(tmp_path: Path) -> None:
    assert needs_release(sources(tmp_path))
    assert not needs_release(SourceFiles({BLOB: tmp_path}))
