"""The core, step by step: probes, servers, health, and what damps it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from services.selector import core
from services.selector.config import AUTO
from services.selector.core import Unit, Verb, Verdict
from services.selector.core.damping import (
    FAILBACK,
    FLAP_WINDOW,
    LONGEST_FAILBACK,
    LONGEST_RETRY,
    backoff,
    hold,
)
from services.selector.core.health import HEALTHY_INTERVAL, PATIENT_INTERVAL, STARTING_INTERVAL
from services.selector.core.state import MOST_DECISIONS
from services.selector.core.traffic import ASSERT_INTERVAL
from tests.services.core_world import START_TIMEOUT, World, config


def run(state: core.State, *events: tuple[core.Event, float]) -> tuple[core.State, list[core.Action]]:
    actions: list[core.Action] = []
    for event, now in events:
        state, more = core.step(state, event, now)
        actions += more
    return state, actions


def good(name: str) -> core.Probed:
    return core.Probed(name, Verdict.GOOD, "good")


def bad(name: str, verdict: str = Verdict.REFUSED) -> core.Probed:
    return core.Probed(name, verdict, "nothing listens")


def kinds(actions: list[core.Action], *wanted: type) -> list[core.Action]:
    return [action for action in actions if isinstance(action, wanted)]


def seen() -> list[tuple[core.Event, float]]:
    """Every engine was probed, in vain, and is being started."""
    units = [(core.UnitSeen(name, Unit.STARTING, "loading"), 0.0) for name in "abc"]
    return [(core.Tick(), 0.0), *((bad(name), 0.0) for name in "abc"), *units]


def served(*healthy: str, names: tuple[str, ...] = ("a", "b", "c")) -> World:
    """A world in which the engines given are healthy and the first of them serves."""
    world = World(config(names=names), boot=healthy)
    for name in set(names) - set(healthy):
        world.engines[name].never = True
    world.pass_time(10)
    assert world.serves() == healthy[0]
    return world


def test_first_tick_probes_and_connects() -> None:
    _, actions = run(core.initial(config(), 5), (core.Tick(), 5))
    assert set(actions) == {core.ConnectGateway(), core.Probe("a"), core.Probe("b"), core.Probe("c")}


def test_a_server_is_ready_only_after_health_and_gateway() -> None:
    state, _ = run(core.initial(config(), 0), *seen())
    state, actions = run(state, (good("a"), 0.1))
    assert not kinds(actions, core.SetServer, core.SetServing)
    state, actions = run(state, (core.GatewayUp(), 0.2))
    assert kinds(actions, core.SetServer) == [core.SetServer("a", True)], "the server that serves comes first"
    state, actions = run(state, (core.ServerSet("a", True), 0.2))
    assert kinds(actions, core.SetServer) == [core.SetServer("b", False), core.SetServer("c", False)]
    assert not core.serving(state), "the gateway has not said yes yet"
    state, actions = run(state, (core.ServerSet("b", False), 0.2), (core.ServerSet("c", False), 0.2))
    assert kinds(actions, core.SetServing) == [core.SetServing(True)], "requests go on last"
    state, _ = run(state, (core.ServingSet(True), 0.2))
    assert core.serving(state)


def test_probe_intervals() -> None:
    one = config(names=("a",))
    state, _ = run(core.initial(one, 0), (core.Tick(), 0), (core.GatewayUp(), 0), (bad("a"), 1.0))
    assert state.engines[0].probe_at == 1.0 + STARTING_INTERVAL
    state, _ = run(state, (core.Tick(), 1.25), (good("a"), 1.3))
    assert state.engines[0].probe_at == 1.3 + HEALTHY_INTERVAL
    state, _ = run(state, (core.Tick(), 3.4), (bad("a"), 3.4), (core.Tick(), 70), (bad("a"), 70))
    assert state.engines[0].probe_at == 70 + PATIENT_INTERVAL


@pytest.mark.parametrize(
    ("verdicts", "healthy"),
    [
        ("good", True),
        ("good slow slow", True),
        ("good slow slow good slow slow", True),
        ("good slow slow slow", False),
        ("good refused", False),
        ("good wrong", False),
        ("good slow slow refused good slow slow", True),
        ("slow", False),
        ("refused slow", False),
    ],
)
def test_what_makes_an_engine_healthy(verdicts: str, healthy: bool) -> None:
    state, _ = run(core.initial(config(), 0), (core.Tick(), 0))
    for at, verdict in enumerate(verdicts.split()):
        state, _ = run(state, (core.Probed("a", verdict, verdict), at))
    assert state.engines[0].healthy is healthy


def test_fail_over_readies_the_new_server_before_it_stops_the_old() -> None:
    world = served("a", "b")
    world.dies("a")
    before = world.now
    world.pass_time(3)
    assert world.serves() == "b"
    done = world.did(core.SetServer, core.SetServing, since=before)
    first = done.index(core.SetServing(False))
    assert done[first : first + 4] == [
        core.SetServing(False),
        core.SetServer("b", True),
        core.SetServer("a", False),
        core.SetServing(True),
    ]


def test_a_dead_engine_keeps_its_server_while_there_is_no_other() -> None:
    """What the gateway tries again then finds the engine, or the one that takes over."""
    world = served("a", names=("a", "b"))
    world.engines["a"].takes = 8.0
    world.dies("a")
    world.pass_time(4)
    assert world.gateway.servers == {"a": True, "b": False} and not world.gateway.serving
    world.pass_time(10)
    assert world.serves() == "a"


def test_a_policy_takes_no_other_engine() -> None:
    state, _ = run(core.initial(config("b"), 0), *seen(), (core.GatewayUp(), 0), (good("a"), 0.1))
    assert state.active is None and core.target(state) == "b"
    state, actions = run(state, (good("b"), 1))
    assert core.SetServer("b", True) in actions


def test_servers_are_set_again_after_a_while() -> None:
    world = served("a", names=("a",))
    before = world.now
    world.pass_time(ASSERT_INTERVAL)
    assert {core.SetServer("a", True), core.SetServing(True)} <= set(world.did(core.Action, since=before))


def test_an_event_of_an_unknown_engine_changes_nothing() -> None:
    state, _ = run(core.initial(config(), 0), *seen(), (core.GatewayUp(), 0))
    events = (good("z"), core.UnitSeen("z", "ready"), core.OrderDone("z", "stop"), core.Fits("z", "no GPU"))
    more = (core.ServerSet("z", True), core.RouteSet("z", True), core.Streams("z", 3), core.Cut("z"))
    after, _ = run(state, (core.Tick(), 0.1))
    for event in (*events, *more, core.OrderFailed("z", "start", "no")):
        assert core.step(after, event, 0.1)[0] == after


def test_an_answer_of_the_gateway_to_an_older_question_does_not_count() -> None:
    state, _ = run(core.initial(config(), 0), *seen(), (core.GatewayUp(), 0), (good("a"), 0.1))
    state, _ = run(state, (core.ServerSet("a", False), 0.1))
    assert state.engines[0].server_ready is None


@pytest.mark.parametrize(
    ("losses", "seconds"),
    [
        (0, FAILBACK),
        (1, FAILBACK),
        (2, 2 * FAILBACK),
        (4, 8 * FAILBACK),
        (6, LONGEST_FAILBACK),
        (50, LONGEST_FAILBACK),
    ],
)
def test_each_flap_doubles_what_is_asked(losses: int, seconds: float) -> None:
    times = tuple(100.0 + at for at in range(losses))
    assert hold(times, 200) == seconds
    assert hold(times, 200 + FLAP_WINDOW) == FAILBACK


def test_backoff() -> None:
    assert [backoff(attempts) for attempts in (1, 2, 3, 7, 99)] == [5, 10, 20, LONGEST_RETRY, LONGEST_RETRY]


def test_requests_go_back_only_to_what_stays_healthy() -> None:
    world = served("a", "b")
    world.dies("a")
    world.pass_time(3)
    back = world.now  # a is there again after about four seconds
    assert world.until(lambda: world.serves() == "a", 60)
    assert FAILBACK <= world.now - back <= FAILBACK + 6
    assert world.state is not None
    assert f"healthy for {FAILBACK:g} s" in world.state.decisions[-3].why + world.state.decisions[-2].why


def test_a_flapping_engine_is_trusted_later_and_later() -> None:
    world = served("a", "b")
    waits = []
    for _ in range(4):
        world.dies("a")
        begin = world.now
        assert world.until(lambda: world.serves() == "b", 5)
        assert world.until(lambda: world.serves() == "a", 700)
        waits.append(round((world.now - begin) / FAILBACK))
    assert waits == [1, 2, 4, 8]


def test_a_start_that_runs_out_of_time_is_tried_again() -> None:
    """With back-off, stopped first, and for ever; the engine serves once it can."""
    world = World(config(names=("a",)), boot=("a",))
    engine = world.engines["a"]
    engine.life, engine.never = engine.life + 1, True  # the start that was under way comes to nothing
    world.pass_time(500)
    starts = [at for at, action in world.done if isinstance(action, core.Start)]
    assert len(starts) >= 5
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == sorted(gaps) and gaps[-1] > 2 * gaps[0], f"each later than the one before: {gaps}"
    assert world.did(core.Stop), "what hangs in its start is stopped first"
    assert world.state is not None and "tried again in" in dict(core.explain(world.state, world.now))["a"] + (
        world.state.decisions[-1].why
    )
    engine.never = False
    assert world.until(lambda: world.serves() == "a", LONGEST_RETRY + 2 * START_TIMEOUT)


@pytest.mark.parametrize("again", ["by hand", "by a switch"])
def test_an_engine_that_was_stopped_by_hand_stays_so(again: str) -> None:
    state, _ = run(core.initial(config(), 0), *seen(), (core.GatewayUp(), 0), (good("a"), 0.1))
    stopped = core.UnitSeen("a", core.Unit.STOPPED, core.BY_HAND)
    state, actions = run(state, (stopped, 10), (bad("a"), 10), *((core.Tick(), at) for at in range(11, 400)))
    assert core.Start("a") not in kinds(actions, core.Start)
    assert "stopped by hand" in dict(core.explain(state, 400))["a"]
    if again == "by hand":
        state, _ = run(state, (core.UnitSeen("a", core.Unit.STARTING, "loading"), 401), (good("a"), 402))
        assert state.engines[0].healthy and not state.engines[0].held
    else:
        _, actions = run(state, (core.Commanded(core.Verb.SWITCH, "a"), 401))
        assert core.Start("a") in kinds(actions, core.Start)


def test_an_engine_that_may_be_stopping_is_not_started() -> None:
    """It has stopped answering; that it was stopped by hand is known only when it is gone."""
    ready = core.UnitSeen("a", core.Unit.READY, "serving")
    state, _ = run(core.initial(config(), 0), *seen(), (core.GatewayUp(), 0), (ready, 0.1), (good("a"), 0.1))
    until = 10 + state.engines[0].stop_timeout
    ticks: list[tuple[core.Event, float]] = [(core.Tick(), at) for at in range(11, int(until))]
    state, actions = run(state, (bad("a"), 10), *ticks)
    assert core.Start("a") not in kinds(actions, core.Start)
    gone = core.UnitSeen("a", core.Unit.STOPPED, core.BY_HAND)
    _, actions = run(state, (gone, until - 0.5), *((core.Tick(), until + at) for at in range(100)))
    assert core.Start("a") not in kinds(actions, core.Start)
    _, actions = run(state, *((core.Tick(), until + at) for at in range(100)))
    assert core.Start("a") in kinds(actions, core.Start), "it is gone, and nobody has said so"


def test_a_hung_engine_is_started_again() -> None:
    world = served("a", names=("a",))
    world.engines["a"].hung = True
    assert world.until(lambda: not world.gateway.serving, 30), "requests wait"
    assert world.until(lambda: world.serves() == "a", 4 * START_TIMEOUT), "its process was replaced"
    assert [type(action) for action in world.did(core.Stop, core.Start)][-2:] == [core.Stop, core.Start]


def test_what_starts_with_the_machine_is_not_ordered() -> None:
    world = World(config(), boot=("a", "b", "c"))
    world.pass_time(60)
    assert not world.did(core.Start, core.Stop)


def test_what_hardware_is_not_enough_for_is_not_chosen() -> None:
    state, _ = run(core.initial(config(), 0), *seen(), (core.Fits("a", "no GPU"), 0))
    assert core.target(state) == "b"
    assert dict(core.explain(state, 0))["a"] == "not chosen: no GPU"
    none, _ = run(state, (core.Fits("b", "no GPU"), 0), (core.Fits("c", "no GPU"), 0))
    assert core.target(none) in ("a", "b", "c"), "when it is enough for none, they are tried all the same"
    well, _ = run(state, (core.GatewayUp(), 0), (good("a"), 1))
    assert core.target(well) == "a", "one that is healthy shows that it is enough"


def test_routes_lead_to_every_healthy_engine() -> None:
    world = World(config(routed="b"), boot=("a", "b", "c"))
    world.pass_time(10)
    assert world.serves() == "a" and world.gateway.routes == {"b": True}
    world.dies("b")
    world.pass_time(3)
    assert world.gateway.routes == {"b": False}


def test_an_endpoint_for_routes_only_is_never_chosen() -> None:
    given = config(remote="c", routed="c")
    engines = (*given.engines[:2], given.engines[2]._replace(selectable=False))
    world = World(given._replace(engines=engines))
    world.engines["a"].never = world.engines["b"].never = True
    world.pass_time(30)
    assert world.gateway.routes == {"c": True}
    assert world.state is not None and world.state.active is None
    assert all(action.engine != "c" for action in world.did(core.SetServer))  # type: ignore[attr-defined]
    assert core.refusal(world.state, core.Commanded(Verb.SWITCH, "c"))


def test_decisions_are_bounded_and_have_reasons() -> None:
    world = served("a", "b")
    for name in ("b", "a") * MOST_DECISIONS:
        world.command(Verb.SWITCH, name)
        world.pass_time(1)
    assert world.state is not None
    assert len(world.state.decisions) == MOST_DECISIONS
    assert all(one.what and one.why for one in world.state.decisions)


def test_every_engine_has_an_explanation_in_every_state() -> None:
    world = World(config(AUTO, exclusive=True, remote="c"), boot=("a",))
    for _ in range(40):
        world.pass_time(0.5)
        assert world.state is not None
        reasons = dict(core.explain(world.state, world.now))
        assert set(reasons) == {"a", "b", "c"} and all(reasons.values())
