"""Requests that no engine can answer are refused at once; models that arrive start their engines."""

from __future__ import annotations

import pytest

from services.selector import core
from services.selector.core import Unit, Verb
from services.selector.core.damping import FAILBACK
from services.selector.core.hope import hopeless
from tests.services.core_world import START_TIMEOUT, WAIT, World, config


def world(names: tuple[str, ...] = ("a", "b"), binds: tuple[str, ...] = (), **options: bool) -> World:
    """A world whose engines start with the machine, but for those whose models have not arrived."""
    boot = tuple(name for name in names if name not in binds)
    made = World(config(names=names, binds=binds, **options), boot, missing=binds)
    made.pass_time(10)
    return made


def refused(found: World) -> bool:
    """Whether a request is refused at once now."""
    return found.gateway.hopeless and not found.gateway.serving


def state(found: World) -> core.State:
    assert found.state is not None
    return found.state


def test_engines_that_somebody_has_stopped() -> None:
    found = world()
    found.stopped_by_hand("a")
    found.pass_time(5)
    assert found.serves() == "b" and not refused(found)
    found.stopped_by_hand("b")
    found.pass_time(3)
    assert refused(found)
    assert state(found).hopeless == "a was stopped by hand; b was stopped by hand"
    assert found.gateway.servers == {"a": False, "b": False}, "what is tried again at a dead engine ends, too"
    assert found.command(Verb.SWITCH, "b")
    assert not refused(found), "it falls with the command, not when the engine is ready"
    found.pass_time(10)
    assert found.serves() == "b"


def test_a_restart_by_hand_refuses_nothing() -> None:
    found = world(("a",))
    found.stopped_by_hand("a")
    for _ in range(15):
        found.pass_time(0.1)
        assert not found.gateway.hopeless
    found.by_hand("a")
    for _ in range(100):
        found.pass_time(0.1)
        assert not found.gateway.hopeless
    assert found.serves() == "a"


def test_an_engine_that_is_started_by_hand() -> None:
    found = world(("a",))
    found.stopped_by_hand("a")
    found.pass_time(3)
    assert refused(found)
    found.by_hand("a")
    found.pass_time(0.6)
    assert not refused(found) and not found.gateway.serving, "requests wait as soon as it is seen"


def test_an_engine_that_says_that_it_cannot_run() -> None:
    found = world(("a",))
    found.engines["a"].unable = True
    found.dies("a")
    assert found.until(lambda: refused(found), 5)
    assert "has to be mended" in state(found).hopeless
    found.mend("a")
    assert found.until(lambda: found.serves() == "a", 60)
    assert not found.gateway.hopeless


def test_an_engine_that_only_fails_may_get_well() -> None:
    found = world(("a",))
    found.engines["a"].failing = 1000
    found.dies("a")
    for _ in range(40):
        found.pass_time(1)
        assert not found.gateway.hopeless, "its supervisor tries again within seconds"


def test_hardware_that_is_not_enough() -> None:
    found = world(("a",))
    found.hardware("a", "no GPU")
    assert found.serves() == "a", "it serves: so much for the hardware"
    found.engines["a"].failing = 1000
    found.dies("a")
    assert found.until(lambda: refused(found), 5)


def test_orders_that_nobody_carries_out() -> None:
    """Requests wait while the next attempt is near; they are refused while it is far."""
    found = World(config(names=("a",)))
    found.control_broken = True
    found.pass_time(150)
    waits, refusals = 0, 0
    for _ in range(600):
        found.pass_time(1)
        near = state(found).engines[0].retry_at - found.now <= WAIT
        waits, refusals = waits + near, refusals + (not near)
        assert found.gateway.hopeless is not near
    assert waits and refusals
    found.control_broken = False
    assert found.until(lambda: found.serves() == "a", 400)


def test_a_drain_is_no_matter_of_hope() -> None:
    found = world(("a",))
    found.command(Verb.DRAIN)
    found.pass_time(5)
    assert not found.gateway.serving and not found.gateway.hopeless
    found.stopped_by_hand("a")
    found.pass_time(3)
    assert refused(found)


def test_nothing_is_refused_before_anything_is_known() -> None:
    given = config(names=("a",), binds=("a",))
    found = core.initial(given, 0.0)
    found, _ = core.step(found, core.ModelSeen("a", "the model m has not arrived"), 0.0)
    assert not found.hopeless
    found, _ = core.step(found, core.Tick(), 0.5)
    assert not found.hopeless
    assert hopeless(core.step(found, core.Tick(), 7.0)[0], 7.0)


def test_the_reason_is_told_once() -> None:
    found = world(("a",))
    found.engines["a"].unable = True
    found.dies("a")
    found.pass_time(60)
    told = [one for one in state(found).decisions if one.what == "requests are refused at once"]
    assert len(told) == 1, "its supervisor starts it each second"


def test_a_gateway_that_is_started_again_is_told() -> None:
    found = world(("a",))
    found.stopped_by_hand("a")
    found.pass_time(3)
    found.gateway_dies()
    found.gateway_starts()
    found.pass_time(1)
    assert refused(found)


def test_an_engine_waits_for_its_model_and_another_one_serves() -> None:
    """It is passed over, not started, and gets the requests back once it has been healthy for long enough."""
    found = world(("a", "b"), binds=("a",))
    assert found.serves() == "b" and not found.did(core.Start)
    assert dict(core.explain(state(found), found.now))["a"] == "not chosen: the model m has not arrived"
    assert core.refusal(state(found), core.Commanded(Verb.SWITCH, "a")) == (
        "a cannot serve yet: the model m has not arrived"
    )
    assert not found.command(Verb.POLICY, "a")
    found.model("a", here=True)
    began = found.now
    assert found.until(lambda: found.serves() == "a", FAILBACK + 20)
    assert found.did(core.Start) == [core.Start("a")] and found.now - began >= FAILBACK


@pytest.mark.parametrize("soon", [True, False])
def test_one_engine_and_its_model(soon: bool) -> None:
    found = world(("a",), binds=("a",))
    assert refused(found) and state(found).hopeless == "a waits for a model"
    if soon:
        found.model("a", here=False, soon=True)
        found.pass_time(0.5)
        assert not refused(found)
    found.pass_time(500)
    assert not found.did(core.Start)
    found.model("a", here=True)
    found.pass_time(0.3)
    assert not refused(found) and found.did(core.Start) == [core.Start("a")], "it starts at once"
    found.pass_time(5)
    assert found.serves() == "a"


def test_a_model_that_goes_stops_nothing() -> None:
    found = World(config(names=("a",), binds=("a",)))
    found.pass_time(10)
    assert found.serves() == "a"
    found.model("a", here=False)
    before = found.now
    found.pass_time(100)
    assert found.serves() == "a" and not found.did(core.Stop, core.Start, since=before)


def test_an_engine_that_was_stopped_by_hand_stays_so_when_its_model_arrives() -> None:
    found = world(("a", "b"), binds=("a",))
    found.tell(core.UnitSeen("a", Unit.STOPPED, core.BY_HAND))
    found.model("a", here=True)
    found.pass_time(60)
    assert not found.did(core.Start) and found.serves() == "b"


def test_a_switch_by_a_file_to_what_waits_for_a_model_fails_at_once() -> None:
    found = world(("a", "b"), binds=("a",), exclusive=True)
    assert found.until(lambda: found.serves() == "b", 20)
    before = found.now
    found.reload(config("a", names=("a", "b"), exclusive=True, binds=("a",)))
    found.pass_time(60)
    assert found.serves() == "b" and not found.did(core.Stop, since=before)
    ended = state(found).ended
    assert ended is not None and not ended.ok and "has not arrived" in ended.reason


def test_where_only_one_may_be_up_the_next_one_is_started() -> None:
    found = World(config(names=("a", "b"), exclusive=True, binds=("a",)), missing=("a",))
    assert found.until(lambda: found.serves() == "b", 30)
    found.model("a", here=True)
    found.pass_time(100)
    assert found.serves() == "b", "nothing that serves is stopped to try another"
    assert found.command(Verb.SWITCH, "a")
    assert found.until(lambda: found.serves() == "a", START_TIMEOUT + 20)


def test_an_engine_that_binds_late_is_started_without_its_model() -> None:
    given = config(names=("a",), binds=("a",))
    late = given._replace(engines=(given.engines[0]._replace(binds=False),))
    found, _ = core.step(core.initial(late, 0.0), core.ModelSeen("a", "the model m has not arrived"), 0.0)
    found, _ = core.step(found, core.Probed("a", core.Verdict.WRONG, "the model m is not listed"), 0.1)
    actions: list[core.Action] = []
    for at in range(1, 12):
        found, more = core.step(found, core.Tick(), float(at))
        actions += more
    assert core.Start("a") in actions
    assert found.hopeless == "a waits for a model"


def test_an_engine_that_waits_for_its_model_while_it_runs_is_left_alone() -> None:
    """Its start is not over before it has the model, however long that takes."""
    found = World(config(names=("a", "b")), boot=("b",), missing=("a",))
    found.pass_time(20)
    assert found.serves() == "b" and found.did(core.Start) == [core.Start("a")]
    found.pass_time(1000)
    assert found.did(core.Start, core.Stop) == [core.Start("a")]
    assert "has not arrived" in core.refusal(state(found), core.Commanded(Verb.SWITCH, "a"))
    found.model("a", here=True)
    assert found.until(lambda: found.serves() == "a", FAILBACK + 10)
    assert not found.did(core.Stop), "it ran all the time"
