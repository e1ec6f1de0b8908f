"""Fetching from servers that misbehave: the right bytes or an error, never anything else."""

from __future__ import annotations

import errno
import hashlib
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hal.cache import Cache
from hal.errors import HalError, UsageError
from hal.fetch.fetcher import Fetcher, GoneError, MissingError, WrongContentError
from hal.fetch.sources import Mirrors
from hal.fetch.transfer import Part, Patience
from hal.lock.file import Artifact, DebianPackage
from tests.misbehaving.server import Fault, MisbehavingServer, unused_url

HASTY = Patience(connect=2.0, stall=0.3, least_rate=1000.0, attempts=3, first_pause=0.001, longest_pause=0.01)
CONTENT = random.Random(1).randbytes(300_000)


class Told:
    """Remembers what a fetcher told about its progress."""

    def __init__(self) -> None:
        self.expected = 0
        self.got = 0
        self.notes: list[str] = []

    def expect(self, size: int) -> None:
        self.expected += size

    def advance(self, size: int) -> None:
        self.got += size

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def put(server: MisbehavingServer, content: bytes = CONTENT, name: str = "file") -> Artifact:
    server.files[f"/{name}"] = content
    return Artifact(name, hashlib.sha256(content).hexdigest(), len(content), f"{server.url}/{name}")


def fetcher(cache: Cache, mirrors: Mirrors | None = None, told: Told | None = None, **more: bool) -> Fetcher:
    return Fetcher(cache, mirrors or Mirrors(), progress=told, patience=HASTY, **more)


def package(server: MisbehavingServer, archive: str = "main", content: bytes = CONTENT) -> DebianPackage:
    path = "pool/main/l/lib+x/lib+x_2~3_amd64.deb"
    root = "debian" if archive == "main" else "debian-security"
    server.files[f"/{root}/{path}"] = content
    digest = hashlib.sha256(content).hexdigest()
    name = path.rpartition("/")[2]
    return DebianPackage(name, digest, len(content), f"debian:{archive}/{path}", "lib+x", "1:2~3", "amd64")


def test_fetches_verifies_and_never_asks_again(server: MisbehavingServer, cache: Cache) -> None:
    artifact = put(server)
    told = Told()
    got = fetcher(cache, told=told).fetch([artifact, artifact])
    assert got == {artifact.sha256: cache.path(artifact.sha256)}
    assert cache.path(artifact.sha256).read_bytes() == CONTENT
    assert (told.expected, told.got) == (len(CONTENT), len(CONTENT))
    asked = len(server.requests)
    assert fetcher(cache).fetch([artifact]) == got
    assert len(server.requests) == asked == 1


def test_many_files_in_parallel(server: MisbehavingServer, cache: Cache) -> None:
    artifacts = [put(server, random.Random(n).randbytes(n * 500), f"f{n}") for n in range(60)]
    got = fetcher(cache).fetch(artifacts)
    assert all(got[a.sha256].read_bytes() == server.files[f"/{a.name}"] for a in artifacts)
    assert list((cache.root / "parts").iterdir()) == []


RECOVERABLE = [
    Fault("stall", 100_000),
    Fault("truncate", 100_000),
    Fault("reset", 100_000),
    Fault("unsized"),
    Fault("garbage"),
    Fault("status", status=503),
    Fault("status", status=429, headers=(("Retry-After", "0"),)),
    Fault("trickle", 100_000),
    Fault("stall", 0),
    Fault("truncate", 0),
]


@pytest.mark.parametrize("fault", RECOVERABLE, ids=lambda fault: f"{fault.kind}-{fault.after}-{fault.status}")
def test_passing_troubles_pass(server: MisbehavingServer, cache: Cache, fault: Fault) -> None:
    artifact = put(server)
    server.faults["/file"] = [fault]
    told = Told()
    fetcher(cache, told=told).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT
    assert told.got == len(CONTENT)


def test_what_came_is_not_fetched_twice(server: MisbehavingServer, cache: Cache) -> None:
    artifact = put(server)
    server.faults["/file"] = [Fault("truncate", 100_000), Fault("reset", 50_000)]
    fetcher(cache).fetch([artifact])
    first, second, *_ = server.asked("/file")
    assert first.range is None
    assert second.range == "bytes=100000-"
    assert second.if_range == '"one"'


def test_an_interrupted_run_is_resumed_by_the_next(server: MisbehavingServer, cache: Cache) -> None:
    artifact = put(server)
    server.faults["/file"] = [Fault("truncate", 120_000), *[Fault("status")] * 2]
    with pytest.raises(HalError, match=r"HTTP 503 .*\(3 attempts\)"):
        fetcher(cache).fetch([artifact])
    assert cache.find(artifact.sha256) is None
    server.requests.clear()
    fetcher(cache).fetch([artifact])
    assert [request.range for request in server.requests] == ["bytes=120000-"]
    assert cache.path(artifact.sha256).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["no-range", "wrong-range"])
def test_servers_without_proper_ranges(server: MisbehavingServer, cache: Cache, kind: str) -> None:
    artifact = put(server)
    server.faults["/file"] = [Fault("truncate", 100_000), Fault(kind)]
    fetcher(cache).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 5])
def test_a_part_with_wrong_bytes_does_no_harm(server: MisbehavingServer, cache: Cache, size: int) -> None:
    artifact = put(server)
    with cache.part(artifact.sha256) as file:
        file.write(b"x" * size)
    told = Told()
    fetcher(cache, told=told).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT
    assert told.got == len(CONTENT)


def test_a_complete_part_needs_no_network(server: MisbehavingServer, cache: Cache) -> None:
    artifact = put(server)
    with cache.part(artifact.sha256) as file:
        file.write(CONTENT)
    fetcher(cache).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (CONTENT[:-1] + b"?", "got      sha256"),
        (CONTENT[:-1], "299999 bytes"),
        (CONTENT + b"?", "300001 bytes"),
    ],
    ids=["other", "shorter", "longer"],
)
def test_wrong_content_names_all_and_keeps_nothing(
    server: MisbehavingServer, cache: Cache, content: bytes, got: str
) -> None:
    artifact = put(server)
    server.files["/file"] = content
    with pytest.raises(WrongContentError) as caught:
        fetcher(cache).fetch([artifact])
    text = str(caught.value)
    assert artifact.name in text
    assert artifact.sha256 in text
    assert got in text
    if len(content) == len(CONTENT):
        assert hashlib.sha256(content).hexdigest() in text
    assert cache.find(artifact.sha256) is None
    assert list((cache.root / "parts").iterdir()) == []


def test_redirects_are_followed_and_circles_are_not(server: MisbehavingServer, cache: Cache) -> None:
    artifact = put(server)
    server.files["/elsewhere"] = server.files.pop("/file")
    server.redirects["/file"] = f"{server.url}/elsewhere"
    fetcher(cache).fetch([artifact])
    server.redirects["/a"] = f"{server.url}/a"
    with pytest.raises(HalError, match="redirects in a circle"):
        fetcher(cache).fetch([Artifact("a", "0" * 64, 1, f"{server.url}/a")])


def test_gone_files_are_all_named_and_the_rest_is_kept(server: MisbehavingServer, cache: Cache) -> None:
    here = [put(server, bytes([n]) * 1000, f"here{n}") for n in range(10)]
    gone = [Artifact(f"gone{n}", f"{n}" * 64, 10, f"{server.url}/gone{n}") for n in range(3)]
    server.faults["/gone1"] = [Fault("status", status=410)]
    with pytest.raises(GoneError) as caught:
        fetcher(cache).fetch([*gone, *here])
    assert [artifact.name for artifact in caught.value.artifacts] == ["gone0", "gone1", "gone2"]
    assert "hal lock" in (caught.value.hint or "")
    assert all(cache.find(artifact.sha256) for artifact in here)
    assert list((cache.root / "parts").iterdir()) == []


def test_forbidden_is_not_gone(server: MisbehavingServer, cache: Cache) -> None:
    artifact = put(server)
    server.always = Fault("status", status=403)
    with pytest.raises(HalError, match="HTTP 403") as caught:
        fetcher(cache).fetch([artifact])
    assert not isinstance(caught.value, GoneError)
    assert len(server.requests) == 1


def test_an_unreachable_server_is_two_lines_soon(cache: Cache) -> None:
    artifacts = [Artifact(f"f{n}", f"{n:064x}", 10, f"{unused_url()}/f{n}") for n in range(200)]
    begin = time.monotonic()
    with pytest.raises(HalError, match=r"cannot be fetched from .*connection refused") as caught:
        fetcher(cache).fetch(artifacts)
    assert time.monotonic() - begin < 2
    assert len(str(caught.value).splitlines()) == 2


def test_a_server_that_gives_a_little_each_time_does_not_keep_us(
    server: MisbehavingServer, cache: Cache
) -> None:
    artifact = put(server)
    server.always = Fault("truncate", 1)
    with pytest.raises(HalError, match="broke 50 times"):
        fetcher(cache).fetch([artifact])


def test_passwords_are_not_shown(cache: Cache) -> None:
    url = unused_url().replace("//", "//user:secret@")
    with pytest.raises(HalError) as caught:
        fetcher(cache).fetch([Artifact("f", "0" * 64, 10, f"{url}/f")])
    assert "secret" not in str(caught.value)


def test_full_disk(server: MisbehavingServer, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    old = put(server, b"old", "old")
    fetcher(cache).fetch([old])
    artifact = put(server)
    write = Part.write

    def full(part: Part, chunk: bytes) -> None:
        if part.size > 50_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(part, chunk[:60_000])

    monkeypatch.setattr(Part, "write", full)
    with pytest.raises(HalError, match="no space is left"):
        fetcher(cache).fetch([old, artifact])
    assert cache.find(artifact.sha256) is None
    assert cache.path(old.sha256).read_bytes() == b"old"
    monkeypatch.undo()
    fetcher(cache).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT


def test_too_little_space_is_said_before_the_first_byte(server: MisbehavingServer, cache: Cache) -> None:
    with pytest.raises(HalError, match="MB are needed"):
        fetcher(cache).fetch([Artifact("huge", "0" * 64, 2**60, f"{server.url}/huge")])
    assert server.requests == []


def test_two_fetchers_share_the_work(server: MisbehavingServer, cache: Cache) -> None:
    artifacts = [put(server, random.Random(n).randbytes(20_000), f"f{n}") for n in range(20)]
    threads = [threading.Thread(target=lambda: fetcher(cache).fetch(artifacts)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(cache.path(a.sha256).read_bytes() == server.files[f"/{a.name}"] for a in artifacts)
    assert len(server.requests) == len(artifacts)


# Places


def test_debian_mirrors_by_archive(server: MisbehavingServer, cache: Cache) -> None:
    mirrors = Mirrors.choose([f"{server.url}/debian/"])
    for archive in ("main", "security"):
        artifact = package(server, archive, archive.encode())
        fetcher(cache, mirrors).fetch([artifact])
        assert cache.path(artifact.sha256).read_bytes() == archive.encode()


def test_a_second_mirror_and_a_snapshot_fill_in(server: MisbehavingServer, cache: Cache) -> None:
    from datetime import UTC, datetime

    artifact = package(server)
    server.files = {"/snap/debian/20260131T120000Z/pool/main/l/lib+x/lib+x_2~3_amd64.deb": CONTENT}
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    first = [f"{server.url}/debian", f"{server.url}/other"]
    with pytest.raises(GoneError):
        fetcher(cache, Mirrors.choose(first)).fetch([artifact])
    fetcher(cache, Mirrors.choose(first, f"{server.url}/snap", moment)).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "place",
    [
        "lib+x_2~3_amd64.deb",
        "lib+x_1%3A2~3_amd64.deb",
        "pool/main/l/lib+x/lib+x_2~3_amd64.deb",
        "debian/pool/main/l/lib+x/lib+x_2~3_amd64.deb",
        "SHA",
        "blobs/sha256/AA/SHA",
    ],
)
def test_directories_as_mirrors(server: MisbehavingServer, cache: Cache, tmp_path: Path, place: str) -> None:
    artifact = package(server)
    path = tmp_path / "mirror" / place.replace("SHA", artifact.sha256).replace("AA", artifact.sha256[:2])
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    fetcher(cache, Mirrors.choose([str(tmp_path / "mirror")]), offline=True).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT
    assert server.requests == []


def test_a_file_mirror_works_offline(server: MisbehavingServer, cache: Cache, tmp_path: Path) -> None:
    artifact = package(server, "security")
    path = tmp_path / "debian-security" / "pool/main/l/lib+x/lib+x_2~3_amd64.deb"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    fetcher(cache, Mirrors.choose([f"file://{tmp_path}/debian"]), offline=True).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT


def test_a_bad_local_copy_gives_way_to_the_network(
    server: MisbehavingServer, cache: Cache, tmp_path: Path
) -> None:
    artifact = put(server)
    (tmp_path / "file").write_bytes(b"x" * len(CONTENT))
    mirrors = Mirrors.choose([str(tmp_path)])
    with pytest.raises(WrongContentError, match=str(tmp_path)):
        fetcher(cache, mirrors, offline=True).fetch([artifact])
    fetcher(cache, mirrors).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT


def test_offline_names_everything_that_is_missing(server: MisbehavingServer, cache: Cache) -> None:
    artifacts = [put(server, bytes([n]), f"f{n}") for n in range(3)]
    fetcher(cache).fetch(artifacts[:1])
    server.requests.clear()
    with pytest.raises(MissingError) as caught:
        fetcher(cache, offline=True).fetch(artifacts)
    assert [artifact.name for artifact in caught.value.artifacts] == ["f1", "f2"]
    assert server.requests == []


def test_file_sources(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    artifact = Artifact("model", digest, len(CONTENT), f"file:{tmp_path}/model")
    fetcher(cache, offline=True).fetch([artifact])
    with pytest.raises(HalError):
        fetcher(cache).fetch([Artifact("other", "0" * 64, 1, f"file:{tmp_path}/absent")])


def test_a_mirror_must_be_a_directory_or_a_url(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such directory"):
        Mirrors.choose([str(tmp_path / "absent")])
    with pytest.raises(UsageError, match="no URL of a Debian mirror"):
        Mirrors.choose(["ftp://host/debian"])


# All of it at once

faults = st.builds(
    Fault,
    st.sampled_from(
        [
            "truncate",
            "reset",
            "unsized",
            "garbage",
            "status",
            "short",
            "long",
            "wrong",
            "no-range",
            "wrong-range",
        ]
    ),
    st.integers(0, 40_000),
    st.sampled_from([404, 429, 500, 503]),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(misdeeds=st.lists(faults, max_size=6), seed=st.integers(0, 2**32), size=st.integers(0, 40_000))
def test_the_right_bytes_or_an_error(
    server: MisbehavingServer,
    tmp_path_factory: pytest.TempPathFactory,
    misdeeds: list[Fault],
    seed: int,
    size: int,
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    artifact = put(server, random.Random(seed).randbytes(size))
    server.faults["/file"] = list(misdeeds)
    told = Told()
    for _ in range(len(misdeeds) + 1):
        try:
            fetcher(cache, told=told).fetch([artifact])
            break
        except HalError:
            assert cache.find(artifact.sha256) is None
    assert cache.path(artifact.sha256).read_bytes() == server.files["/file"]
    assert list((cache.root / "parts").iterdir()) == []


def test_a_connection_that_breaks_after_the_last_byte_has_brought_the_file(
    server: MisbehavingServer, cache: Cache
) -> None:
    artifact = put(server, b"ab")
    server.faults["/file"] = [Fault("truncate", 1), Fault("long"), Fault("status", 0, 404)]
    fetcher(cache).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == b"ab"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 30_000), max_size=8), kind=st.sampled_from(["truncate", "reset"]))
def test_interrupted_anywhere_it_still_arrives(
    server: MisbehavingServer, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], kind: str
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    artifact = put(server)
    server.faults["/file"] = [Fault(kind, cut) for cut in cuts]
    server.requests.clear()
    told = Told()
    fetcher(cache, told=told).fetch([artifact])
    assert cache.path(artifact.sha256).read_bytes() == CONTENT
    assert told.got == len(CONTENT)
