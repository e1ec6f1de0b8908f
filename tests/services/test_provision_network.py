"""The table of misdeeds by protocols, and what a transfer does besides: resuming, stops, limits, mirrors."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.provisioner.config import Mirrors
from services.provisioner.disk.calls import Disk
from services.provisioner.network.bandwidth import Bucket
from services.provisioner.network.places import places
from services.provisioner.network.session import Network
from services.provisioner.network.transfer import Limits, Part, StoppedError, TransientError, fetch
from services.provisioner.pins import PinnedFile
from tests.misbehaving.server import Fault, MisbehavingServer, unused_url
from tests.services import provision_cases
from tests.services.provision_cases import (
    CASES,
    CONTENT,
    PROTOCOLS,
    SHA256,
    SIZE,
    STALL,
    Case,
    World,
    at,
    bring,
)

USUAL = Limits(stall=STALL)
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
KINDS = (
    *("truncate", "reset", "short", "unsized", "wrong-range", "no-range"),
    *("changed", "long", "garbage", "little"),
)


@pytest.fixture
def world(server: MisbehavingServer) -> World:
    return provision_cases.world(server, "https")


def attempt(
    world: World, path: Path, limits: Limits = USUAL, stop: threading.Event | None = None
) -> list[int]:
    """One attempt; the bytes that came over the network."""
    got: list[int] = []
    part = Part(path, world.file.size)
    try:
        fetch(
            world.file,
            places(world.config, world.file)[0],
            part,
            network=Network(world.config),
            limits=limits,
            stop=stop or threading.Event(),
            progress=got.append,
        )
    finally:
        part.close()
    return got


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_misdeed_ends_well_or_in_words(
    case: Case, protocol: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    outcome = provision_cases.run(case, server, protocol, tmp_path)
    # The host, then one sentence: what `hal-provision status` shows.
    for error in outcome.errors:
        assert error.startswith("127.0.0.1:") and "\n" not in error and "urllib3" not in error


def test_less_than_one_percent_comes_twice_where_ranges_are_served(
    world: World, server: MisbehavingServer, tmp_path: Path
) -> None:
    cuts = (Fault("reset", at(0.1)), Fault("stall", at(0.2)), Fault("truncate", at(0.1)), Fault("status"))
    server.faults[world.back] = [*cuts, *cuts]
    outcome = bring(world, tmp_path, restarts=True)
    assert (outcome.error, outcome.attempts, outcome.again) == ("", 9, 0)


def test_a_restart_resumes_with_the_same_validator(
    world: World, server: MisbehavingServer, tmp_path: Path
) -> None:
    server.faults[world.back] = [Fault("truncate", at(0.5))]
    assert bring(world, tmp_path, restarts=True).fetched == SIZE
    again = server.asked(world.back)[1]
    assert (again.range, again.if_range) == (f"bytes={at(0.5)}-", '"one"')


def test_the_last_modified_date_will_do_where_there_is_no_strong_etag(
    world: World, server: MisbehavingServer, tmp_path: Path
) -> None:
    date = "Thu, 01 Jan 1970 00:00:00 GMT"
    server.etags[world.back] = 'W/"weak"'
    server.headers[world.back] = {"Last-Modified": date}
    server.faults[world.back] = [Fault("truncate", at(0.5))]
    bring(world, tmp_path)
    assert server.asked(world.back)[1].if_range == date


def test_other_bytes_under_another_etag_replace_the_old_ones(
    world: World, server: MisbehavingServer, tmp_path: Path
) -> None:
    server.files[world.back] = bytes(SIZE)
    server.faults[world.back] = [Fault("truncate", at(0.5))]
    with pytest.raises(TransientError, match="broke"):
        attempt(world, tmp_path / SHA256)
    server.files[world.back] = CONTENT
    server.etags[world.back] = '"two"'
    outcome = bring(world, tmp_path)
    assert (outcome.error, outcome.attempts, outcome.fetched) == ("", 1, SIZE)


def test_bytes_that_went_bad_on_the_disk_are_fetched_anew_and_nobody_is_blamed(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / SHA256).write_bytes(bytes(SIZE))
    outcome = bring(world, tmp_path)
    assert (outcome.error, outcome.attempts, outcome.fetched) == ("", 1, SIZE)


def test_what_several_places_gave_wrongly_together_is_then_asked_of_one_alone(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    world = provision_cases.world(server, "https")
    server.files[f"/mirror/{SHA256}"] = bytes(SIZE)
    server.faults[f"/mirror/{SHA256}"] = [Fault("truncate", at(0.5))] * 9
    config = world.config._replace(mirrors=Mirrors(https=(f"{server.url}/mirror/",)))
    world = World(world.file, config, server, world.front, world.back)
    outcome = bring(world, tmp_path)
    assert outcome.error == "" and outcome.attempts == 4
    assert "from several places" in outcome.errors[1]
    # The mirror's half is not continued a second time: the source gives all.
    assert [request.range for request in server.asked(world.back)] == [f"bytes={at(0.5)}-", None]


def test_mirrors_are_asked_first_and_continue_each_other(server: MisbehavingServer, tmp_path: Path) -> None:
    world = provision_cases.world(server, "https")
    server.files[f"/mirror/{SHA256}"] = CONTENT
    server.faults[f"/mirror/{SHA256}"] = [Fault("truncate", at(0.5))]
    mirrors = (unused_url(), f"{server.url}/mirror")
    config = world.config._replace(mirrors=Mirrors(https=mirrors))
    outcome = bring(World(world.file, config, server, world.front, world.back), tmp_path)
    assert (outcome.error, outcome.attempts, outcome.fetched, outcome.waited) == ("", 3, SIZE, 0.0)
    assert "connection refused" in outcome.errors[0]
    # Another place's validator means nothing to the source.
    assert [(r.range, r.if_range) for r in server.asked(world.back)] == [(f"bytes={at(0.5)}-", None)]


def test_a_stop_is_heeded_at_once_whatever_the_server_does(
    world: World, server: MisbehavingServer, tmp_path: Path
) -> None:
    for fault in (Fault("silent"), Fault("stall", at(0.5)), Fault("drip", at(0.1), pace=2000)):
        server.faults[world.back] = [fault]
        stop, stopped = threading.Event(), list[float]()

        def stop_once_asked(stop: threading.Event = stop, stopped: list[float] = stopped) -> None:
            while server.faults[world.back]:  # on a slow machine the server may not have been asked yet
                time.sleep(0.01)
            time.sleep(0.3)
            stopped.append(time.monotonic())
            stop.set()

        threading.Thread(target=stop_once_asked, daemon=True).start()
        with pytest.raises(StoppedError):
            attempt(world, tmp_path / fault.kind, Limits(stall=30.0), stop)
        assert time.monotonic() - stopped[0] < 1.0  # half a second, and half one for a slow machine


def test_a_stop_does_not_wait_for_the_resolver(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        time.sleep(2)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        attempt(world, tmp_path / "part", Limits(stall=30.0), stop)
    assert time.monotonic() - began < 1.2


def test_a_stop_does_not_wait_until_what_is_there_is_read(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT * 3)
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        Part(tmp_path / "part", 3 * SIZE, Disk(), stop)
    assert Part(tmp_path / "part", 3 * SIZE).missing == 0


def test_the_deadline_ends_a_drip_that_never_stalls(
    world: World, server: MisbehavingServer, tmp_path: Path
) -> None:
    server.faults[world.back] = [Fault("drip", pace=1000)]
    began = time.monotonic()
    with pytest.raises(TransientError, match="deadline"):
        attempt(world, tmp_path / "part", Limits(stall=STALL, until=began + 1.0))
    assert 1.0 <= time.monotonic() - began < 2.0
    assert (tmp_path / "part").stat().st_size > 500


def test_the_bandwidth_is_kept_by_all_transfers_together(world: World, tmp_path: Path) -> None:
    limits = Limits(stall=STALL, bandwidth=Bucket(2_000_000))
    paths = [tmp_path / "part0", tmp_path / "part1"]
    threads = [threading.Thread(target=attempt, args=(world, path, limits)) for path in paths]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.7 <= time.monotonic() - began < 4.0  # 2 MB at 2 MB/s, less the burst
    assert (tmp_path / "part1").read_bytes() == CONTENT


def test_a_low_bandwidth_is_no_stall_and_can_be_stopped(world: World, tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(3.0, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        attempt(world, tmp_path / "part", Limits(stall=STALL, bandwidth=Bucket(500)), stop)
    assert 2.9 < time.monotonic() - began < 4.0
    assert 2048 <= (tmp_path / "part").stat().st_size <= 4096


def test_a_full_disk_is_told_as_one(world: World, tmp_path: Path) -> None:
    class Full(Disk):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            if offset > 300_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(descriptor, data, offset)

    part = Part(tmp_path / "part", SIZE, Full())
    with pytest.raises(OSError, match="No space"):
        fetch(
            world.file,
            places(world.config, world.file)[0],
            part,
            network=Network(world.config),
            limits=Limits(),
            stop=threading.Event(),
            progress=lambda _: None,
        )
    part.close()
    assert 0 < (tmp_path / "part").stat().st_size <= 600_000  # it stays: the store gives it back, or not


def test_what_progress_raises_ends_the_attempt(world: World, tmp_path: Path) -> None:
    def progress(_: int) -> None:
        raise OSError(errno.EDQUOT, "the quota is used up")

    part = Part(tmp_path / "part", SIZE)
    with pytest.raises(OSError, match="quota"):
        fetch(
            world.file,
            places(world.config, world.file)[0],
            part,
            network=Network(world.config),
            limits=Limits(),
            stop=threading.Event(),
            progress=progress,
        )
    part.close()


def test_an_empty_file_and_a_finished_one_need_no_network(world: World, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT)
    assert attempt(world, tmp_path / "part") == []
    empty = PinnedFile("empty", 0, NOTHING, world.file.source)
    assert attempt(World(empty, world.config, world.server, "", ""), tmp_path / "empty") == []
    assert world.server.requests == []


def test_no_thread_is_left_behind(world: World, server: MisbehavingServer, tmp_path: Path) -> None:
    before = threading.active_count()
    server.faults[world.back] = [Fault("stall", at(0.1)), Fault("silent"), Fault("reset", 5)]
    assert bring(world, tmp_path).error == ""
    server.closing.set()
    until = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    server.closing.clear()
    assert threading.active_count() <= before


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, SIZE)), max_size=8))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_in_whatever_order_ends_in_the_right_bytes(
    one_server: MisbehavingServer, tmp_path_factory: pytest.TempPathFactory, faults: list[tuple[str, int]]
) -> None:
    world = provision_cases.world(one_server, "https")
    one_server.faults[world.back] = [Fault(kind, max(1, after)) for kind, after in faults]
    outcome = bring(world, tmp_path_factory.mktemp("any"), restarts=len(faults) % 2 == 0)
    # "short" twice is a file of another length, twice, from its only place.
    assert outcome.error == "" or sum(kind in ("short", "long") for kind, _ in faults) >= 2
