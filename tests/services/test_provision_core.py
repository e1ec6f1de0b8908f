"""The provisioner's core in a world that is not real: what it does one thing after the other, and what always
holds, whatever happens in whatever order."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from services.provisioner import status
from services.provisioner.config import Policy
from services.provisioner.core.events import (
    Job,
    JobDone,
    Measured,
    Outcome,
    Retried,
    Reverified,
    RouteSeen,
    Tick,
)
from services.provisioner.core.state import Found, Saved, Stage, Trouble, initial, to_save
from services.provisioner.pins import Pack
from tests.services.provision_pins import configuration, content, pinned_file, pinned_model
from tests.services.provision_world import World, happen, models


def shown(world: World) -> dict[str, tuple[str, str]]:
    """State and reason of each model, as operators see them."""
    rows = status.document(world.state, status.Live(), world.now, 0.0)["models"]
    return {row["name"]: (row["state"], row["reason"]) for row in rows}


def words(world: World) -> dict[str, str]:
    return {name: word for name, (word, _) in shown(world).items()}


happenings = st.tuples(st.integers(0, 10), st.integers(0, 100), st.integers(0, 5000))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(happenings, max_size=80), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)
)
def test_whatever_happens_nothing_wrong_is_shown_and_in_the_end_all_is_there(
    events: list[tuple[int, int, int]], shared: bool, concurrency: int, places: int, seed: int
) -> None:
    config = configuration(
        Path("/x"), *models(shared), concurrency=concurrency, policy=Policy(attempts=3, rest=100), reserve=100
    )
    world = World(config, places=places, disk=9_500, seed=seed)
    for event in events:
        happen(world, *event)
    world.others = 0
    world.tell(RouteSeen(True))
    world.settle(3 * 60)
    world.give(config.model("brought").files[0].sha256)
    world.settle(3 * 60)
    assert world.shown == {"first", "second", "brought"}
    assert set(words(world).values()) == {"ready"}


def test_a_first_boot_fetches_publishes_verifies_and_shows() -> None:
    world = World()
    assert words(world) == {"first": "waiting", "second": "waiting", "brought": "missing"}
    world.measure()
    assert words(world)["first"] == "fetching" and len(world.running) == 2
    world.settle()
    assert words(world) == {"first": "ready", "second": "ready", "brought": "missing"}
    assert world.fetches == 3 and world.state.model("first").attempts == 2


def test_nothing_begins_before_the_space_is_known() -> None:
    world = World()
    world.tell(Tick())
    assert not world.running


def test_what_is_stored_is_verified_before_it_is_shown_and_never_fetched_again() -> None:
    world = World(found=(Found("first", stored=True),))
    world.measure()
    assert [job.job for job in world.jobs] == [Job.VERIFY] and words(world)["first"] == "verifying"
    world.settle()
    assert "first" in world.shown and world.fetches == 1


def test_what_was_fetched_before_a_restart_is_taken_up() -> None:
    first = models()[0]
    large, small = (file.sha256 for file in first.files)
    world = World(found=(Found("first", False, frozenset({small}), ((large, 5000),)),))
    world.measure()
    assert next(iter(world.running)) == large
    assert status.document(world.state, status.Live(), world.now, 0)["models"][0]["bytes"] == 5050


def test_a_file_of_two_models_is_fetched_once() -> None:
    world = World(configuration(Path("/x"), *models(shared=True)))
    world.settle()
    assert world.shown == {"first", "second"} and world.fetches == 2


def test_without_a_network_it_waits_and_uses_no_attempt() -> None:
    world = World()
    world.tell(RouteSeen(False))
    world.settle(50)
    assert shown(world)["first"] == ("waiting", "there is no network") and not world.fetches
    world.tell(RouteSeen(True))
    world.settle()
    assert "first" in world.shown


def test_a_failure_while_the_network_is_away_is_nobodys_fault() -> None:
    world = World(configuration(Path("/x"), *models(), policy=Policy(attempts=1)))
    world.measure()
    world.tell(RouteSeen(False))
    for sha256 in list(world.running):
        world.end(sha256, Outcome.FAILED, words="no route to the host")
    assert words(world)["first"] == "waiting"
    world.tell(RouteSeen(True))
    assert len(world.running) == 2  # at once: the pause was the network's


def test_back_off_lets_other_models_go_on() -> None:
    world = World(configuration(Path("/x"), *models(), concurrency=1))
    world.measure()
    (sha256,) = world.running
    world.end(sha256, Outcome.FAILED, words="reset")
    (other,) = world.running
    assert other != sha256
    assert words(world)["first"] == "fetching"  # its other file


def test_back_off_is_told_with_its_time_and_reason() -> None:
    world = World(configuration(Path("/x"), models()[1]))
    world.measure()
    (sha256,) = world.running
    world.end(sha256, Outcome.FAILED, words="reset", retry_after=60)
    row = status.document(world.state, status.Live(), world.now, 0)["models"][0]
    assert (row["state"], row["error"], row["again_in"], row["attempts"]) == ("backoff", "reset", 60, 1)
    assert world.log[-1] == "second: reset; again in 60 s"


def test_a_refused_file_fails_its_model_at_once_and_leaves_the_others_alone() -> None:
    world = World()
    world.measure()
    refused = world.state.model("first").files[0]
    world.end(refused, Outcome.FAILED, words="404", permanent=True)
    assert shown(world)["first"] == ("failed", "404")
    stopping = [file.sha256 for file in world.state.files if file.stopping]
    assert stopping == [world.state.model("first").files[1]]
    world.end(stopping[0], Outcome.STOPPED)
    for _ in range(3):
        world.settle()
    assert "second" in world.shown and words(world)["first"] == "failed"


def test_a_failed_model_begins_a_new_round_after_its_rest_or_when_told() -> None:
    for told in (False, True):
        world = World(configuration(Path("/x"), models()[1], policy=Policy(attempts=2, rest=3600)))
        world.measure()
        for _ in range(2):
            (sha256,) = world.running
            world.end(sha256, Outcome.FAILED, words="reset")
            world.now += 10
            world.tell(Tick())
        assert shown(world)["second"] == ("failed", "2 attempts in a row failed, the last one: reset")
        world.now += 1 if told else 3600
        world.tell(Retried("second") if told else Tick())
        assert len(world.running) == 1 and world.state.model("second").attempts == 3


def test_the_deadline_bounds_the_whole_and_stops_what_runs() -> None:
    world = World(configuration(Path("/x"), models()[1], policy=Policy(deadline=100.0)))
    world.measure()
    (order,) = world.running.values()
    assert order.until == world.now + 100
    world.now += 100
    world.tell(Tick())
    assert shown(world)["second"] == ("failed", "not there within 100 s")
    assert all(file.stopping for file in world.state.files)


def test_a_model_that_does_not_fit_says_so_and_others_go_on() -> None:
    world = World(disk=4000)
    world.settle()
    assert words(world) == {"first": "no-space", "second": "ready", "brought": "missing"}
    assert "it needs 6.11 kB of disk" in shown(world)["first"][1]
    world.disk = 100_000
    world.settle()
    assert words(world)["first"] == "ready"


def test_space_is_promised_once() -> None:
    world = World(disk=7000)  # either fits, both do not
    world.measure()
    assert [model.admitted for model in world.state.models] == [True, False, False]
    assert words(world)["second"] == "no-space"


def test_a_full_disk_gives_the_models_bytes_back_so_that_others_finish() -> None:
    world = World()
    world.measure()
    large = world.state.model("first").files[0]
    world.bring(large, 3000)
    world.others = world.free  # somebody else fills the disk
    world.end(large, Outcome.FULL, words="no space left on device")
    for sha256 in [file.sha256 for file in world.state.files if file.stopping]:
        world.end(sha256, Outcome.STOPPED)
    assert Job.DROP in [job.job for job in world.jobs]
    world.settle(5)
    assert large not in world.held and words(world)["second"] == "ready"
    assert words(world)["first"] == "no-space" and any("given back" in line for line in world.log)
    world.others = 0
    world.settle(60)
    assert words(world)["first"] == "ready"


def test_when_others_eat_the_reserve_the_last_model_gives_way_before_the_disk_is_full() -> None:
    world = World(configuration(Path("/x"), *models(), reserve=1000), disk=20_000)
    world.measure()
    world.others = world.free - 400
    world.measure()
    assert [m.name for m in world.state.models if m.trouble == Trouble.NO_SPACE] == ["second"]
    world.tell(Measured(world.free, world.used))
    assert [m.name for m in world.state.models if m.trouble == Trouble.NO_SPACE] == [
        "second"
    ]  # one at a time


def test_the_quota_counts_what_is_stored() -> None:
    world = World(configuration(Path("/x"), *models(), quota=7000))
    world.settle()
    assert words(world) == {"first": "ready", "second": "no-space", "brought": "missing"}


def test_a_part_that_cannot_finish_makes_room_for_a_model_that_can() -> None:
    large = models()[0].files[0].sha256
    world = World(found=(Found("first", held=((large, 3000),)),), disk=4000)
    world.held[large] = 3000
    world.settle()
    assert "second" in world.shown and large not in world.held


def test_a_file_that_is_wrong_on_the_disk_is_taken_back_and_fetched_again() -> None:
    world = World(found=(Found("first", stored=True), Found("second", stored=True)))
    world.settle()
    world.tell(Reverified("first"))
    assert shown(world)["first"] == ("ready", "it is being verified again")
    world.work(spoil=True)
    assert [job.job for job in world.jobs] == [Job.HIDE] and words(world)["first"] == "waiting"
    world.settle()
    assert "first" in world.shown and world.fetches == 1


def test_a_disk_that_spoils_every_time_is_left_alone_for_a_while() -> None:
    world = World(configuration(Path("/x"), models()[1]))
    while words(world)["second"] != "failed":
        world.measure()
        for sha256 in list(world.running):
            world.bring(sha256, 10_000)
            world.end(sha256, Outcome.WHOLE)
        while world.jobs:
            world.work(spoil=True)
        world.now += 1000
    assert world.fetches == 3 and "again and again" in shown(world)["second"][1]


def test_an_error_of_the_disk_fails_the_model_and_is_tried_again_after_the_rest() -> None:
    world = World(configuration(Path("/x"), models()[1]))
    world.measure()
    (sha256,) = world.running
    world.bring(sha256, 10_000)
    world.end(sha256, Outcome.WHOLE)
    job = world.jobs.pop()
    world.tell(JobDone(job.job, job.model, "Input/output error"))
    assert shown(world)["second"] == ("failed", "Input/output error")
    world.now += 3600
    world.settle()
    assert "second" in world.shown


def test_a_file_given_by_hand_ends_the_attempt_at_it() -> None:
    world = World()
    world.measure()
    large = world.state.model("first").files[0]
    world.give(large)
    assert world.state.file(large).stopping
    world.end(large, Outcome.STOPPED)
    world.settle()
    assert "first" in world.shown


def test_only_mirrors_and_none_is_a_clear_error() -> None:
    world = World(places=0)
    world.measure()
    world.tell(Tick())
    assert "only mirrors may be asked, and none is named" in shown(world)["first"][1]


def test_once_all_are_ready_what_is_not_pinned_is_removed() -> None:
    world = World()
    world.settle()
    assert not world.state.pruned  # something is awaited: an old one may still be wanted
    world.give(world.config.model("brought").files[0].sha256)
    world.settle()
    assert world.state.pruned


def test_packs_are_ready_or_missing_with_the_initrds_reason() -> None:
    file = pinned_file("w", content("w", 9), "")
    pack = Pack("m-one-0", "0" * 64, "/srv/models/one")
    one = pinned_model("one", file, delivery="image")._replace(pack=pack)
    two = pinned_model("two", file, delivery="disk")
    config = configuration(Path("/x"), one, two)
    found = initial(config, {}, (), packs={"one": "", "two": "no partition has its label"})
    rows = status.document(found, status.Live(), 0, 0)["models"]
    assert [(row["state"], row["reason"], row["source"]) for row in rows] == [
        ("ready", "", "pack m-one-0"),
        ("missing", "no partition has its label", "pack"),
    ]


def test_counts_outlive_a_restart_unless_the_pins_changed() -> None:
    world = World()
    world.settle()
    saved = to_save(world.state)
    again = initial(world.config, {}, (), saved)
    assert again.model("first").attempts == 2
    other = tuple(Saved(one.name, "0" * 32, one.attempts, one.fetched, one.error) for one in saved)
    assert initial(world.config, {}, (), other).model("first").attempts == 0
    assert again.model("first").stage == Stage.FETCH


def test_one_line_says_all() -> None:
    world = World()
    world.measure()
    rates = {world.state.model("first").files[0]: 3_000_000.0}
    line = status.line(world.state, status.Live(rates=rates), world.now)
    assert line.startswith("0 of 3 models ready; fetching first: 0 %, 3 MB/s; second: ")
    assert line.endswith("brought: missing")
