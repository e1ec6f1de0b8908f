"""The cache: nothing half, nothing left behind, any number of processes."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hal.cache import Cache, default_root, remove_tree
from hal.errors import HalError

CONTENT = b"content" * 100
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fill(cache: Cache, content: bytes = CONTENT) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    with cache.part(digest) as file:
        file.write(content)
        return cache.publish_part(file, digest)


def test_a_published_file_is_found_read_only_and_whole(cache: Cache) -> None:
    assert cache.find(SHA) is None
    path = fill(cache)
    assert cache.find(SHA, len(CONTENT)) == path == cache.path(SHA)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444
    assert list((cache.root / "parts").iterdir()) == []


def test_a_file_of_the_wrong_length_counts_as_absent(cache: Cache) -> None:
    path = fill(cache)
    path.chmod(0o644)
    path.write_bytes(b"cut")
    assert cache.find(SHA, len(CONTENT)) is None
    assert not path.exists()


def test_a_part_survives_and_is_resumed(cache: Cache) -> None:
    with cache.part(SHA) as file:
        file.write(CONTENT[:10])
    with cache.part(SHA) as file:
        assert file.read() == CONTENT[:10]


def test_one_part_has_one_owner_at_a_time(cache: Cache) -> None:
    inside = 0
    most = 0
    published = []

    def bring() -> None:
        nonlocal inside, most
        with cache.part(SHA) as file:
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            if not cache.find(SHA):
                file.write(CONTENT)
                cache.publish_part(file, SHA)
                published.append(1)
            else:
                cache.discard_part(SHA)
            inside -= 1

    threads = [threading.Thread(target=bring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1
    assert published == [1]
    assert cache.path(SHA).read_bytes() == CONTENT


def test_the_first_tree_wins(cache: Cache) -> None:
    digest = "ab" * 16
    with cache.temporary("tree") as one, cache.temporary("tree") as two:
        (one / "file").write_text("one")
        (two / "file").write_text("two")
        target = cache.publish_tree(one, "base", digest)
        assert cache.publish_tree(two, "base", digest) == target == cache.tree("base", digest)
    assert (target / "file").read_text() == "one"
    assert list((cache.root / "tmp").iterdir()) == []


def test_temporary_directories_go_away_whatever_is_in_them(cache: Cache) -> None:
    with cache.temporary("work") as directory:
        (directory / "a" / "b").mkdir(parents=True)
        (directory / "a" / "b" / "file").write_text("x")
        (directory / "a").chmod(0o500)
    assert not directory.exists()
    with pytest.raises(RuntimeError), cache.temporary("work") as directory:
        raise RuntimeError
    assert not directory.exists()
    remove_tree(directory)


PROGRAM = """
import sys, time
from pathlib import Path
from hal.cache import Cache
cache = Cache(Path(sys.argv[1]))
with cache.lock("section"), cache.temporary("work") as directory:
    (directory / "file").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_its_locks_are_free(cache: Cache) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(cache.root)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with cache.temporary("other"):
                assert len(list((cache.root / "tmp").glob("work.*"))) == 2, "a living process is left alone"
            entered = threading.Event()

            def enter() -> None:
                with cache.lock("section"):
                    entered.set()

            waiting = threading.Thread(target=enter, daemon=True)
            waiting.start()
            assert not entered.wait(0.2), "two were in the section at once"
        finally:
            process.send_signal(signal.SIGKILL)
    assert entered.wait(5)
    with cache.temporary("other"):
        assert list((cache.root / "tmp").glob("work.*")) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained_and_harms_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old = fill(cache, b"old")

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HalError, match="no space is left") as caught:
        fill(cache)
    assert "HAL_CACHE" in (caught.value.hint or "")
    assert old.read_bytes() == b"old"
    assert cache.find(SHA) is None


def test_space_is_checked_before_work(cache: Cache) -> None:
    cache.require_space(1)
    with pytest.raises(HalError, match=r"MB are needed and .* MB are free"):
        cache.require_space(2**60)


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HalError, match="cannot be written"):
        fill(Cache(tmp_path / "file" / "cache"))


def test_names_cannot_leave_the_cache(cache: Cache) -> None:
    for wrong in ("../x", "", "A" * 64, "0123"):
        with pytest.raises(ValueError, match="cannot be a name"):
            cache.path(wrong)
    with pytest.raises(ValueError, match="cannot be a name"):
        cache.tree("../x", SHA)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAL_CACHE", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("HAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "hal"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_root() == Path("/home/someone/.cache/hal")
