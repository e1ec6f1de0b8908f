"""What the selector reads of hal-control: how services are, what became of orders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selector import control, probe
from services.selector.config import EngineConfig
from services.selector.core.events import BY_HAND, OrderDone, OrderFailed, Unit, UnitSeen, Verb
from tests.services.selector_configs import engine


@pytest.mark.parametrize(
    ("said", "outcome", "alive", "state"),
    [
        ("ready", "", True, Unit.READY),
        ("starting", "", True, Unit.STARTING),
        ("stopped", "", True, Unit.UNKNOWN),
        ("", "", True, Unit.UNKNOWN),
        ("ready", "", False, Unit.FAILED),
        ("failed", "", False, Unit.FAILED),
        ("failed", "stop 0", False, Unit.STOPPED),
        ("ready", "stop 0", False, Unit.STOPPED),
        ("ready", "stop 1", False, Unit.FAILED),
        ("stopped", "", False, Unit.STOPPED),
        ("", "", False, Unit.STOPPED),
        ("ready", "", None, Unit.READY),
        ("nonsense", "", None, Unit.UNKNOWN),
    ],
)
def test_how_a_service_is(said: str, outcome: str, alive: bool | None, state: str) -> None:
    assert control.seen(said, "words", outcome, alive)[0] == state


@given(st.text(), st.text(), st.text(), st.sampled_from([True, False, None]))
def test_any_words_of_a_service(said: str, message: str, outcome: str, alive: bool | None) -> None:
    assert control.seen(said, message, outcome, alive)[0] in vars(Unit).values()


def files_of(tmp_path: Path) -> EngineConfig:
    (tmp_path / "group").mkdir()
    return engine(
        "a", 1, state_file=str(tmp_path / "s"), cgroup=str(tmp_path / "group"), order_file=str(tmp_path / "o")
    )


def put(path: Path, text: str) -> None:
    """As hal-control does it: a file of its own, in the place of the old one."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def test_a_stop_is_done_when_nothing_is_left(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    events = tmp_path / "group/cgroup.events"
    put(tmp_path / "o", "stop 0\n")
    put(events, "populated 1\nfrozen 0\n")
    put(tmp_path / "s", "ready serving\n")
    assert service.look(0) == [UnitSeen("a", Unit.READY, "serving")]
    service.ordered(Verb.STOP, 0)
    assert service.look(1) == [UnitSeen("a", Unit.READY, "serving")], "an older outcome is no answer"
    put(tmp_path / "o", "stop 0\n")
    assert service.look(2) == [UnitSeen("a", Unit.READY, "serving")], "a process is left"
    put(events, "populated 0\n")
    assert service.look(3)[0] == OrderDone("a", Verb.STOP)
    assert service.look(4) == [UnitSeen("a", Unit.STOPPED, "stopped")]


def test_a_stop_by_hand_is_told_from_one_of_hal_control(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    put(tmp_path / "group/cgroup.events", "populated 0\n")

    def tell(name: str, text: str, at: int) -> None:
        put(tmp_path / name, text)
        os.utime(tmp_path / name, ns=(at, at))

    tell("s", "stopped stopped\n", 1)
    assert service.look(0) == [UnitSeen("a", Unit.STOPPED, BY_HAND)], "hal-control did nothing"
    tell("o", "stop 0\n", 2)
    assert service.look(1) == [UnitSeen("a", Unit.STOPPED, "stopped")], "it was hal-control, just now"
    tell("o", "start 0\n", 3)
    assert service.look(2) == [UnitSeen("a", Unit.STOPPED, "stopped")], "it ended without a word"
    tell("s", "stopped stopped\n", 4)
    assert service.look(3) == [UnitSeen("a", Unit.STOPPED, BY_HAND)], "it ran since, and somebody ended it"


def test_a_start_that_fails_and_one_that_takes_its_time(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    put(tmp_path / "s", "stopped stopped\n")
    service.ordered(Verb.START, 0)
    put(tmp_path / "o", "start 5\n")
    found = service.look(1)
    assert isinstance(found[0], OrderFailed) and "status 5" in found[0].reason
    service.ordered(Verb.START, 2)
    put(tmp_path / "o", "start 0\n")
    assert service.look(3) == [
        OrderDone("a", Verb.START),
        UnitSeen("a", Unit.STARTING, control.BEING_STARTED),
    ]
    put(tmp_path / "group/cgroup.events", "populated 1\n")
    assert service.look(20) == [UnitSeen("a", Unit.STARTING, control.BEING_STARTED)]
    put(tmp_path / "s", "starting reading\n")
    assert service.look(21) == [UnitSeen("a", Unit.STARTING, "reading")]


def test_a_start_says_what_is_known_of_the_one_before(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    group = tmp_path / "group/cgroup.events"
    put(group, "populated 0\n")
    put(tmp_path / "s", "failed the port is taken\n")
    assert service.look(0) == [UnitSeen("a", Unit.FAILED, "the port is taken")]
    service.ordered(Verb.START, 1)
    words = f"{control.BEING_STARTED}; the last time: the port is taken"
    assert service.look(1.1) == [UnitSeen("a", Unit.STARTING, words)]
    put(group, "populated 1\n")
    assert service.look(1.2) == [UnitSeen("a", Unit.STARTING, words)]
    put(group, "populated 0\n")
    (found,) = service.look(1.3)
    assert found == UnitSeen("a", Unit.FAILED, "the port is taken"), "it came and went without a word"
    service.ordered(Verb.START, 2)
    put(tmp_path / "o", "start 5\n")
    assert service.look(2.1)[1] == UnitSeen("a", Unit.FAILED, "the port is taken"), (
        "it was not started at all"
    )


def test_a_launcher_that_says_that_it_is_no_use(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    put(tmp_path / "group/cgroup.events", "populated 0\n")
    put(tmp_path / "s", "unable no GPU\n")
    assert service.look(0) == [UnitSeen("a", Unit.FAILED, "no GPU", lasting=True)]
    put(tmp_path / "group/cgroup.events", "populated 1\n")
    put(tmp_path / "s", "starting reading\n")
    assert service.look(1) == [UnitSeen("a", Unit.STARTING, "reading")]
    assert probe.own_words(str(tmp_path / "s")) == "reading"


def test_orders_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "absent"):
        with pytest.raises(control.OrderError, match="hal-control does not run"):
            control.give(str(tmp_path / path), Verb.START, "a")


def test_a_death_is_seen_once(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    service.look(0)
    assert not service.died, "it was never there"
    put(tmp_path / "group/cgroup.events", "populated 1\n")
    service.look(1)
    assert not service.died
    put(tmp_path / "group/cgroup.events", "populated 0\n")
    service.look(2)
    assert service.died
    service.look(3)
    assert not service.died


def test_a_group_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    assert control.changes_of(str(tmp_path)) == -1
