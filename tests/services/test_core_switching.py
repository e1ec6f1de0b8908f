"""Switches: commanded ones, those where only one engine may be up, and restarts at every stage of them."""

from __future__ import annotations

import pytest

from services.selector import core
from services.selector.config import AUTO
from services.selector.core import Stage, Unit, Verb
from services.selector.core.traffic import OLD_WORKER
from tests.services.core_world import DRAIN, START_TIMEOUT, SWITCH_BOUND, World, config

BOTH = ("a", "b")


def both_up() -> World:
    """Two engines are up, the first one serves."""
    world = World(config(names=BOTH), boot=BOTH)
    world.pass_time(10)
    assert world.serves() == "a"
    return world


def one_up(remote: str = "", names: tuple[str, ...] = BOTH) -> World:
    """Only one engine may be up; the first one is, and serves."""
    world = World(config(names=names, exclusive=True, remote=remote), boot=("a",))
    world.pass_time(60 if remote else 10)  # what is elsewhere serves until the first has proved itself
    assert world.serves() == "a" and world.up() == ["a"]
    return world


def state(world: World) -> core.State:
    assert world.state is not None
    return world.state


def ended(world: World) -> core.Ended:
    """Wait for the end of the switch that is under way."""
    assert world.until(lambda: world.state is not None and world.state.switch is None, SWITCH_BOUND)
    last = state(world).ended
    assert last is not None
    return last


def kinds(world: World, since: float) -> list[str]:
    """What was done since, in words."""
    words = {core.Start: "start", core.Stop: "stop", core.CutStreams: "cut"}
    found = []
    for at, action in world.done:
        if at >= since and isinstance(action, core.SetServing):
            found.append("go" if action.on else "wait")
        elif at >= since and isinstance(action, core.SetServer) and action.ready:
            found.append(f"ready {action.engine}")
        elif at >= since and type(action) in words:
            found.append(f"{words[type(action)]} {action.engine}")  # type: ignore[union-attr]
    return [word for word, before in zip(found, ["", *found], strict=False) if word != before]


def test_a_switch_while_both_are_up_lets_nothing_wait() -> None:
    world = both_up()
    world.request(4.0)
    before = world.now + 0.001
    world.now = before
    assert world.command(Verb.SWITCH, "b")
    assert world.serves() == "b"
    assert kinds(world, before) == ["ready b"], "requests never wait"
    assert ended(world).ok
    world.pass_time(DRAIN + 5)
    assert not world.did(core.CutStreams, core.Stop), (
        "what was open ended by itself, and the engine stands by"
    )


def test_what_stays_open_on_the_old_engine_is_cut() -> None:
    world = both_up()
    world.request(1e9)
    before = world.now
    world.command(Verb.SWITCH, "b")
    world.pass_time(DRAIN - 1)
    assert world.streams("a")
    world.pass_time(2)
    cuts = [at for at, action in world.done if isinstance(action, core.CutStreams)]
    assert cuts == [pytest.approx(before + DRAIN, abs=0.5)] and not world.streams("a")
    assert world.did(core.CutStreams) == [core.CutStreams("a", False)], "requests by a route go on"


def test_an_exclusive_switch_stops_first() -> None:
    world = one_up()
    world.request(4.0)
    before = world.now + 0.001
    world.now = before
    assert world.command(Verb.SWITCH, "b")
    assert not world.gateway.serving, "requests wait at once"
    assert state(world).switch is not None
    stages = []
    while (switch := state(world).switch) is not None:
        if switch.stage not in stages:
            stages.append(switch.stage)
        world.pass_time(0.1)
    assert stages == [Stage.STARTING, Stage.DRAINING, Stage.STOPPING, Stage.STARTING] or stages == [
        Stage.DRAINING,
        Stage.STOPPING,
        Stage.STARTING,
    ]
    assert kinds(world, before) == ["wait", "stop a", "start b", "ready b", "go"]
    assert world.serves() == "b" and world.up() == ["b"]
    assert ended(world).ok and state(world).desired == "b"


def test_an_exclusive_switch_gives_streams_their_time_and_no_more() -> None:
    world = one_up()
    world.request(1e9)
    before = world.now
    world.command(Verb.SWITCH, "b")
    world.pass_time(DRAIN - 1)
    assert world.up() == ["a"] and world.streams("a")
    world.pass_time(2)
    assert [at for at, action in world.done if isinstance(action, core.CutStreams)] == [
        pytest.approx(before + DRAIN, abs=0.5)
    ]
    assert ended(world).ok and world.serves() == "b"


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("how", ["never ready", "fails", "no orders"])
def test_a_commanded_switch_that_fails_returns(exclusive: bool, how: str) -> None:
    world = one_up() if exclusive else both_up()
    engine = world.engines["b"]
    engine.never = how == "never ready"
    if not exclusive:
        engine.failing = 100 if how == "fails" else 0
        engine.life, engine.process = engine.life + 1, Unit.FAILED
        world.control_broken = how == "no orders"
        if how != "no orders":
            world.at(1.0, lambda: world._restarts(engine, engine.life))  # its supervisor
        world.pass_time(3)
    engine.failing = 100 if how == "fails" else 0
    world.control_broken = how == "no orders"
    begin = world.now
    assert world.command(Verb.SWITCH, "b")
    last = ended(world)
    assert not last.ok and last.reason and last.target == "b"
    assert "out of time" not in last.reason, "it ends with the start that was in vain, not later"
    assert world.now - begin <= DRAIN + START_TIMEOUT + 3 * 20
    if exclusive:
        world.control_broken = False
        assert world.until(lambda: world.serves() == "a", 40), "the old engine is started again"
    else:
        assert world.serves() == "a", "the old engine goes on serving"
    assert state(world).desired is None and world.disk is not None and world.disk.desired == ""
    assert any("has failed" in one.what and one.why == last.reason for one in state(world).decisions)


def test_a_switch_to_the_endpoint_elsewhere_stops_nothing() -> None:
    world = one_up(remote="c", names=("a", "b", "c"))
    world.command(Verb.SWITCH, "c")
    assert world.serves() == "c" and world.up() == ["a"]
    world.command(Verb.SWITCH, "b")
    assert world.serves() == "c", "it goes on serving meanwhile"
    assert ended(world).ok and world.serves() == "b" and world.up() == ["b"]


def test_a_failed_engine_gives_way_where_only_one_may_be_up() -> None:
    world = one_up()
    world.engines["a"].failing = 100
    world.dies("a")
    assert world.until(lambda: world.serves() == "b", 120)
    assert world.up() == ["b"]
    world.engines["a"].failing = 0
    world.pass_time(400)
    assert world.serves() == "b", "nothing that serves is stopped to try another one"
    assert "switch a" in dict(core.explain(state(world), world.now))["a"]


def test_an_engine_that_comes_back_in_time_is_waited_for() -> None:
    world = one_up()
    world.dies("a")
    world.pass_time(8)
    assert world.serves() == "a" and not world.did(core.Stop)[1:], "only the others were made sure of"


def test_another_command_takes_the_place_of_a_switch() -> None:
    world = World(config(exclusive=True), boot=("a",))
    world.pass_time(10)
    world.command(Verb.SWITCH, "b")
    world.pass_time(2)
    world.command(Verb.SWITCH, "c")
    assert ended(world).ok and world.serves() == "c" and world.up() == ["c"]
    world.engines["b"].failing = 100
    world.command(Verb.SWITCH, "b")
    world.pass_time(1)
    assert world.command(Verb.SWITCH, "")
    assert world.until(lambda: bool(world.serves()), 60) and state(world).desired is None


def test_refusals_say_why() -> None:
    world = both_up()
    for verb, value in ((Verb.SWITCH, "x"), (Verb.POLICY, "x"), ("dance", "")):
        reason = core.refusal(state(world), core.Commanded(verb, value))
        assert reason and "\n" not in reason
        before = state(world)
        world.tell(core.Commanded(verb, value))
        assert state(world)._replace(decisions=(), due=0) == before._replace(decisions=(), due=0)
    world.engines["b"].hung = True
    world.dies("b")
    world.pass_time(3)
    world.engines["b"].process = Unit.FAILED
    world.pass_time(0.5)
    world.tell(core.Fits("b", "no GPU"))
    world.dies("b")
    world.pass_time(3)
    if not state(world).engines[1].healthy:
        assert "no GPU" in core.refusal(state(world), core.Commanded(Verb.SWITCH, "b"))


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_policy_is_a_switch(exclusive: bool) -> None:
    world = one_up() if exclusive else both_up()
    assert world.command(Verb.POLICY, "b")
    assert ended(world).ok and world.serves() == "b" and state(world).policy == "b"
    world.dies("b")
    world.pass_time(2)
    assert world.serves() != "a", "the policy takes no other engine"
    assert world.until(lambda: world.serves() == "b", 60)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_reload_with_another_policy_is_a_switch(exclusive: bool) -> None:
    world = one_up() if exclusive else both_up()
    world.command(Verb.SWITCH, "a")
    world.reload(config("b", BOTH, exclusive))
    assert ended(world).ok and world.serves() == "b" and state(world).desired is None
    world.reload(config("b", BOTH, exclusive))
    assert state(world).switch is None and world.serves() == "b"


def test_a_reload_that_changes_nothing_keeps_what_was_commanded() -> None:
    world = both_up()
    world.command(Verb.SWITCH, "b")
    world.reload(config(AUTO, BOTH))
    world.pass_time(60)
    assert world.serves() == "b" and state(world).desired == "b"


def test_a_policy_of_the_configuration_that_fails_is_tried_again_by_the_next_reload() -> None:
    world = both_up()
    engine = world.engines["b"]
    engine.never = True
    engine.failing = 100
    world.dies("b")
    world.pass_time(3)
    world.reload(config("b", BOTH))
    assert not ended(world).ok and world.serves() == "a" and state(world).policy == AUTO
    engine.never, engine.failing = False, 0
    world.pass_time(30)
    assert world.serves() == "a"
    world.reload(config("b", BOTH))
    assert ended(world).ok and world.serves() == "b" and state(world).policy == "b"


def test_drain_and_undrain() -> None:
    world = both_up()
    world.request(30.0)
    world.command(Verb.DRAIN)
    assert not world.gateway.serving and world.streams("a")
    world.pass_time(20)
    assert world.streams("a"), "what is open goes on"
    world.selector_dies()
    world.selector_starts()
    world.pass_time(5)
    assert not world.gateway.serving, "it is kept over a restart"
    assert "drain" in dict(core.explain(state(world), world.now))["a"]
    world.command(Verb.UNDRAIN)
    world.pass_time(1)
    assert world.serves() == "a"


def test_a_selector_that_is_started_again_takes_over_what_runs() -> None:
    """Requests never wait for it, and nothing is started, stopped or switched."""
    for world in (both_up(), one_up()):
        world.command(Verb.SWITCH, "b")
        assert ended(world).ok
        world.pass_time(60)
        for _ in range(3):
            world.selector_dies()
            before = world.now + 0.001
            world.pass_time(3)
            world.selector_starts()
            world.pass_time(60)
            assert world.serves() == "b"
            assert "wait" not in kinds(world, before) and "ready a" not in kinds(world, before)
            assert not [one for one in kinds(world, before) if one.startswith("start") or one == "stop b"]


def test_a_selector_without_anything_kept_takes_over_what_runs() -> None:
    world = one_up()
    world.command(Verb.SWITCH, "b")
    assert ended(world).ok
    world.selector_dies()
    world.disk, world.wanted = None, ""
    world.selector_starts()
    world.pass_time(30)
    assert world.serves() == "b" and world.up() == ["b"]


@pytest.mark.parametrize("what", ["selector", "gateway", "reload", "both"])
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_restart_at_every_stage_of_a_switch(exclusive: bool, what: str) -> None:
    """At each half second of a switch, and after each of its first actions: it ends well all the same."""
    for at in (0.0, 0.05, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0):
        world = one_up() if exclusive else both_up()
        if not exclusive:
            world.dies("b")
        world.request(1.0)
        world.command(Verb.SWITCH, "b")
        world.pass_time(at)
        if what in ("selector", "both"):
            world.selector_dies()
        if what in ("gateway", "both"):
            world.gateway_dies()
            world.pass_time(1)
        if what != "selector":
            world.gateway_starts()
        world.selector_starts()
        assert world.until(lambda world=world: world.serves() == "b", 60), f"after {at} s"  # type: ignore[misc]
        assert state(world).desired == "b" and state(world).switch is None


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_selector_killed_after_each_of_its_actions(exclusive: bool) -> None:
    for count in range(25):
        world = one_up() if exclusive else both_up()
        world.crash_after = count
        world.command(Verb.SWITCH, "b")
        taken = world.disk is not None and world.disk.desired == "b"
        assert taken == (count > 0), "it is kept before anything is done"
        world.pass_time(60)
        assert world.serves() == ("b" if taken else "a")
        world.crash_after = None


def test_a_switch_that_fails_after_a_restart_returns_too() -> None:
    world = one_up()
    world.engines["b"].failing = 100
    world.command(Verb.SWITCH, "b")
    world.pass_time(4)
    world.selector_dies()
    world.selector_starts()
    assert not ended(world).ok
    assert world.until(lambda: world.serves() == "a", 60) and state(world).desired is None


def test_what_was_commanded_under_another_configuration_is_out_of_date() -> None:
    world = both_up()
    world.command(Verb.SWITCH, "b")
    world.selector_dies()
    assert core.initial(config("a", BOTH), 0, world.disk).desired is None
    assert core.initial(config(AUTO, BOTH), 0, world.disk).desired == "b"


def test_requests_that_a_reloaded_gateway_still_has_are_waited_for() -> None:
    """The new worker does not count what is open in the old one."""
    world = one_up()
    world.gateway_starts()
    world.pass_time(0.5)
    before = world.now
    world.command(Verb.SWITCH, "b")
    assert ended(world).ok
    stop = next(
        at for at, one in world.done if at >= before and isinstance(one, core.Stop) and one.engine == "a"
    )
    assert stop - before >= OLD_WORKER - 1


def test_no_engine_is_started_before_the_others_are_known_to_be_down() -> None:
    """What is seen may be out of date: only an order of our own that was carried out counts."""
    given = config(names=BOTH, exclusive=True)
    now, actions = 0.0, []
    found = core.initial(given, now)
    events: list[core.Event] = [core.Tick(), *(core.Probed(name, "refused", "no") for name in BOTH)]
    events += [core.UnitSeen(name, Unit.STOPPED, "stopped") for name in BOTH]
    for now in range(20):
        for event in (*events, core.Tick()):
            found, more = core.step(found, event, float(now))
            actions += more
        events = [core.Probed(one.engine, "refused", "no") for one in actions if isinstance(one, core.Probe)]
    orders = [one for one in actions if isinstance(one, core.Start | core.Stop)]
    assert [type(one) for one in orders] == [core.Stop] and orders[0].engine == "b"
    found, more = core.step(found, core.OrderDone("b", Verb.STOP), 20.0)
    assert [one.engine for one in more if isinstance(one, core.Start)] == ["a"]
