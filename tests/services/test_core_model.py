"""The core in a world that plays badly: whatever happens in whatever order, what must hold holds.

The steps are those of hypothesis' state machine; `HAL_MODEL_EXAMPLES` sets the number of its runs. In CI
they are the same each time, so that a red build is a change of ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from services.selector import core
from services.selector.config import AUTO
from services.selector.core import Verb, Verdict
from tests.services.core_world import START_TIMEOUT, STOP_TIMEOUT, SWITCH_BOUND, World, config

NAMES = ("a", "b", "c")
EXAMPLES = int(os.environ.get("HAL_MODEL_EXAMPLES", "230"))
LENGTH = 50
LEAST_STEPS = 10_000

LONGEST_CALM = 1500.0
"""Simulated seconds in which everything is well again: ten minutes of damping, five of back-off, a start."""

names = st.sampled_from(NAMES)
counted = {"rules": 0, "steps": 0, "seconds": 0.0, "switches": 0, "hopeless": 0}


class Selector(RuleBasedStateMachine):
    """Operators, engines, gateway and selector, all at their worst."""

    @initialize(
        policy=st.sampled_from((AUTO, AUTO, *NAMES)),
        exclusive=st.booleans(),
        remote=st.sampled_from(("", "", "c", "a")),
        routed=st.sampled_from(("", "b")),
        booted=st.sampled_from(((), ("a",), ("b",))),
        binds=st.sampled_from(((), (), ("a",), NAMES)),
    )
    def begin(
        self,
        policy: str,
        exclusive: bool,
        remote: str,
        routed: str,
        booted: tuple[str, ...],
        binds: tuple[str, ...],
    ) -> None:
        self.remote, self.routed, self.exclusive, self.binds = remote, routed, exclusive, binds
        given = config(policy, NAMES, exclusive, remote, routed, binds)
        self.world = World(given, booted if exclusive else NAMES)

    @rule(seconds=st.sampled_from((0.05, 0.3, 1.0, 3.0, 10.0, 40.0, SWITCH_BOUND + 10)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(name=names)
    def somebody_switches(self, name: str) -> None:
        self.world.command(Verb.SWITCH, name)

    @rule(name=names, seconds=st.sampled_from((5.0, 30.0)))
    def somebody_switches_and_waits(self, name: str, seconds: float) -> None:
        if self.world.command(Verb.SWITCH, name):
            self.world.pass_time(seconds)

    @rule(name=names, policy=st.sampled_from((AUTO, *NAMES)), stuck=st.booleans())
    def somebody_wants_an_engine_that_is_broken(self, name: str, policy: str, stuck: bool) -> None:
        self.world.breaks(name, stuck)
        self.world.command(*((Verb.SWITCH, name) if policy == AUTO else (Verb.POLICY, policy)))
        self.world.pass_time(30)

    @rule(name=names)
    def an_engine_is_mended(self, name: str) -> None:
        self.world.mend(name)

    @rule(name=st.sampled_from(("", "", "nobody")))
    def somebody_takes_back_a_switch(self, name: str) -> None:
        self.world.command(Verb.SWITCH, name)

    @rule(policy=st.sampled_from((AUTO, *NAMES)))
    def somebody_sets_the_policy(self, policy: str) -> None:
        self.world.command(Verb.POLICY, policy)

    @rule(verb=st.sampled_from((Verb.DRAIN, Verb.UNDRAIN, Verb.UNDRAIN)))
    def somebody_drains(self, verb: str) -> None:
        self.world.command(verb)

    @rule(policy=st.sampled_from((AUTO, *NAMES)))
    def the_configuration_is_read_again(self, policy: str) -> None:
        self.world.reload(config(policy, NAMES, self.exclusive, self.remote, self.routed, self.binds))

    @rule(name=names, reason=st.sampled_from(("", "no GPU")))
    def the_hardware_is_looked_at(self, name: str, reason: str) -> None:
        self.world.hardware(name, reason)

    @rule(name=names, here=st.booleans(), soon=st.booleans())
    def a_model_comes_or_goes(self, name: str, here: bool, soon: bool) -> None:
        self.world.model(name, here, soon)

    @rule(name=names)
    def an_engine_says_that_it_cannot_run(self, name: str) -> None:
        self.world.engines[name].unable = True
        self.world.dies(name)

    @rule(only=st.sampled_from(("", *NAMES)))
    def nothing_can_get_ready(self, only: str) -> None:
        for name in NAMES:
            if name != only:
                self.world.stopped_by_hand(name)
        self.world.pass_time(2)

    @rule(seconds=st.sampled_from((0.5, 4.0, 1e9)))
    def a_request_comes(self, seconds: float) -> None:
        self.world.request(seconds)

    @rule(name=names, silent=st.booleans())
    def an_engine_dies(self, name: str, silent: bool) -> None:
        self.world.dies(name, silent)

    @rule(name=names, hung=st.booleans())
    def an_engine_hangs(self, name: str, hung: bool) -> None:
        self.world.engines[name].hung = hung

    @rule(name=names, failing=st.sampled_from((0, 1, 3, 100)))
    def an_engine_fails_to_start(self, name: str, failing: int) -> None:
        self.world.engines[name].failing = failing

    @rule(name=names, never=st.booleans(), takes=st.sampled_from((0.0, 3.0, START_TIMEOUT + 5)))
    def an_engine_starts_slowly(self, name: str, never: bool, takes: float) -> None:
        self.world.engines[name].never = never
        self.world.engines[name].takes = takes

    @rule(name=names, lie=st.sampled_from(("", Verdict.GOOD, Verdict.WRONG, Verdict.SLOW)))
    def an_engine_lies(self, name: str, lie: str) -> None:
        self.world.engines[name].lie = lie

    @rule(name=names, seconds=st.sampled_from((0.0, 0.5, 4.0, STOP_TIMEOUT + 3)))
    def an_engine_stops_slowly(self, name: str, seconds: float) -> None:
        self.world.engines[name].stops_in = seconds

    @rule(name=names)
    def somebody_starts_an_engine_by_hand(self, name: str) -> None:
        self.world.by_hand(name)

    @rule(name=names)
    def somebody_stops_an_engine_by_hand(self, name: str) -> None:
        self.world.stopped_by_hand(name)

    @rule(broken=st.booleans())
    def orders_are_not_carried_out(self, broken: bool) -> None:
        self.world.control_broken = broken

    @rule(lost=st.booleans())
    def orders_are_lost(self, lost: bool) -> None:
        self.world.control_lost = lost

    @rule()
    def the_gateway_is_killed(self) -> None:
        self.world.gateway_dies()

    @rule()
    def the_gateway_starts(self) -> None:
        self.world.gateway_starts()

    @rule()
    def the_selector_is_killed(self) -> None:
        self.world.selector_dies()

    @rule()
    def the_selector_starts(self) -> None:
        self.world.selector_starts()

    @rule(actions=st.integers(0, 4))
    @precondition(lambda self: self.world.state is not None)
    def the_selector_is_killed_in_the_middle_of_its_actions(self, actions: int) -> None:
        self.world.crash_after = actions

    @invariant()
    def what_must_hold_holds(self) -> None:
        counted["rules"] += 1
        if hasattr(self, "world"):
            self.world.check()
            counted["hopeless"] += self.world.gateway.hopeless

    def teardown(self) -> None:
        """However it went: once everybody behaves, what is wanted serves, and a switch succeeds."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.calm()
        for engine in world.engines.values():
            engine.stops_in = 0.5
        for name in NAMES:
            world.hardware(name, "")
        world.command(Verb.UNDRAIN)
        world.pass_time(START_TIMEOUT + 10)  # what stuck in its start has had its time
        assert world.state is not None
        settled = world.until(self._settled, LONGEST_CALM)
        assert settled, f"nothing serves: {core.explain(world.state, world.now)}"
        for name in NAMES:
            world.request(1e9)  # one that does not end by itself
            self._switch(name)
        if self.exclusive:
            assert world.until(lambda: len(world.up()) <= 1, 60), f"{world.up()} are up"
        counted["steps"] += world.steps
        counted["seconds"] += world.now
        counted["switches"] += len(world.switches)

    def _switch(self, name: str) -> None:
        world = self.world
        assert world.state is not None and world.command(Verb.SWITCH, name)
        assert world.until(lambda: world.state is not None and world.state.switch is None, SWITCH_BOUND)
        assert world.until(lambda: world.serves() == name, 1), f"{name} was commanded: {world.state.ended}"
        assert world.state.desired == name

    def _settled(self) -> bool:
        """The engine that comes first serves; where only one may be up, one of those that may serve."""
        world = self.world
        state = world.state
        assert state is not None
        if state.switch is not None:
            return False
        policy, desired = state.policy, state.desired or ""
        allowed = [name for name in (desired, *(NAMES if policy == AUTO else (policy,))) if name]
        return world.serves() in (allowed if self.exclusive else allowed[:1])


def test_the_model(
    record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_machine(
        Selector,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=LENGTH,
            deadline=None,
            derandomize="HAL_MODEL_RANDOM" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for name, number in counted.items():
        record_property(name, number)
    with capsys.disabled():
        print(
            f"\nmodel: {counted['rules']:,} steps of the world, {counted['steps']:,} of the core, "
            f"{counted['switches']:,} switches, {counted['hopeless']:,} times without hope, "
            f"{counted['seconds'] / 3600:,.0f} simulated hours"
        )
    assert counted["rules"] >= LEAST_STEPS * min(1, EXAMPLES / 230)
