"""The selector's core against a model: whatever happens in whatever order, what must hold holds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.selector import core
from services.selector.config import AUTO, Config, EngineConfig
from services.selector.core import Verdict


def config(policy: str = AUTO, names: tuple[str, ...] = ("a", "b", "c")) -> Config:
    engines = tuple(
        EngineConfig(
            name, "127.0.0.1", 1, "http://x/v1", "/health", 200, "/v1/models", "m", "m", f"engines/{name}"
        )
        for name in names
    )
    return Config(policy, engines, "/gateway", "/status")


def run(state: core.State, *events: tuple[core.Event, float]) -> tuple[core.State, list[core.Action]]:
    actions: list[core.Action] = []
    for event, now in events:
        state, more = core.step(state, event, now)
        actions += more
    return state, actions


def good(name: str) -> core.Probed:
    return core.Probed(name, Verdict.GOOD, "good")


def test_first_tick_probes_and_connects() -> None:
    _, actions = run(core.initial(config(), 5), (core.Tick(), 5))
    assert set(actions) == {core.ConnectGateway(), core.Probe("a"), core.Probe("b"), core.Probe("c")}


def test_a_server_is_ready_only_after_health_and_gateway() -> None:
    state, actions = run(core.initial(config(), 0), (core.Tick(), 0), (good("a"), 0.1))
    assert not [action for action in actions if isinstance(action, core.SetServer)]
    assert not core.serving(state)
    state, actions = run(state, (core.GatewayUp(), 0.2))
    assert actions[1] == core.SetServer("a", True), "the server that serves comes first"
    assert not core.serving(state), "the gateway has not said yes yet"
    state, _ = run(state, (core.ServerSet("a", True), 0.2))
    assert core.serving(state)


def test_probe_intervals() -> None:
    state, _ = run(core.initial(config(names=("a",)), 0), (core.Tick(), 0), (core.GatewayUp(), 0))
    bad = core.Probed("a", Verdict.REFUSED, "nothing listens")
    state, _ = run(state, (bad, 1.0))
    assert core.next_due(state) == 1.0 + core.STARTING_INTERVAL
    state, _ = run(state, (core.Tick(), 1.25), (good("a"), 1.3), (core.ServerSet("a", True), 1.3))
    assert core.next_due(state) == 1.3 + core.HEALTHY_INTERVAL
    state, _ = run(state, (core.Tick(), 3.4), (bad, 3.4), (core.Tick(), 70), (bad, 70))
    assert state.engines[0].probe_at == 70 + core.PATIENT_INTERVAL


def test_slow_probes_count_only_in_a_row() -> None:
    slow = core.Probed("a", Verdict.SLOW, "no answer")
    state, _ = run(core.initial(config(), 0), (core.Tick(), 0), (good("a"), 0))
    state, _ = run(state, (slow, 1), (slow, 2), (good("a"), 3), (slow, 4), (slow, 5))
    assert state.active == "a"
    state, _ = run(state, (slow, 6))
    assert state.active is None


def test_fail_over_readies_the_new_server_before_it_stops_the_old() -> None:
    state, _ = run(
        core.initial(config(), 0), (core.Tick(), 0), (core.GatewayUp(), 0), (good("a"), 0), (good("b"), 0)
    )
    assert state.active == "a"
    state, actions = run(state, (core.ServerSet("a", True), 0), (core.ServerSet("b", False), 0))
    state, actions = run(state, (core.Probed("a", Verdict.WRONG, "500"), 1))
    assert state.active == "b"
    changes = [action for action in actions if isinstance(action, core.SetServer)]
    assert changes == [core.SetServer("b", True), core.SetServer("a", False), core.SetServer("c", False)] or (
        changes[:2] == [core.SetServer("b", True), core.SetServer("a", False)]
    )


def test_a_policy_takes_no_other_engine() -> None:
    state, _ = run(core.initial(config("b"), 0), (core.Tick(), 0), (good("a"), 0))
    assert state.active is None and core.target(state) == "b"
    state, _ = run(state, (good("b"), 1))
    assert state.active == "b"


def test_servers_are_set_again_after_a_while() -> None:
    state, _ = run(
        core.initial(config(names=("a",)), 0),
        *((core.Tick(), 0.0), (core.GatewayUp(), 0.0), (good("a"), 0.0), (core.ServerSet("a", True), 0.0)),
    )
    _, actions = run(state, (core.Tick(), core.ASSERT_INTERVAL))
    assert core.SetServer("a", True) in actions


def test_a_probe_of_an_unknown_engine_changes_nothing() -> None:
    state = core.initial(config(), 0)._replace(gateway_at=9)
    state, _ = run(state, (core.Tick(), 0))
    after, actions = run(state, (good("zzz"), 0.1))
    assert after == state and actions == []


NAMES = ("a", "b", "c")


class Selector(RuleBasedStateMachine):
    """The world: engines that are up or not, a gateway that restarts, actions that may fail."""

    @initialize(policy=st.sampled_from((AUTO, *NAMES)))
    def begin(self, policy: str) -> None:
        self.policy = policy
        self.now = 0.0
        self.state = core.initial(config(policy), 0.0)
        self.last: dict[str, str] = {}
        self.slow: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.gateway: dict[str, bool] | None = None
        self.probing: list[str] = []
        self.connecting = 0
        self.step(core.Tick())

    def step(self, event: core.Event) -> None:
        """Take in an event and do as told at once, as the daemon does."""
        events = [event]
        while events:
            self.state, actions = core.step(self.state, events.pop(0), self.now)
            for action in actions:
                if isinstance(action, core.Probe):
                    assert action.engine not in self.probing, "two probes of one engine at once"
                    self.probing.append(action.engine)
                elif isinstance(action, core.ConnectGateway):
                    events.append(core.GatewayUp() if self.gateway is not None else core.GatewayDown())
                elif isinstance(action, core.SetServer):
                    assert not action.ready or self.last.get(action.engine) == "healthy", "not ready"
                    if self.gateway is None:
                        events.append(core.GatewayDown())
                    else:
                        self.gateway[action.engine] = action.ready
                        events.append(core.ServerSet(action.engine, action.ready))

    @rule(seconds=st.floats(0.01, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.step(core.Tick())

    @rule(
        data=st.data(), verdict=st.sampled_from((Verdict.GOOD, Verdict.REFUSED, Verdict.WRONG, Verdict.SLOW))
    )
    @precondition(lambda self: bool(self.probing))
    def a_probe_ends(self, data: st.DataObject, verdict: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.probing)))
        self.probing.remove(name)
        self.slow[name] = self.slow[name] + 1 if verdict == Verdict.SLOW else 0
        patient = verdict == Verdict.SLOW and self.slow[name] < core.SLOW_LIMIT
        if verdict == Verdict.GOOD:
            self.last[name] = "healthy"
        elif not patient:
            self.last[name] = "unhealthy"
        self.step(core.Probed(name, verdict, verdict))

    @rule()
    def the_gateway_starts(self) -> None:
        """A new HAProxy, every server in maintenance; a connection to an old one has ended."""
        if self.gateway is not None:
            self.the_gateway_dies()
        self.gateway = dict.fromkeys(NAMES, False)

    @rule()
    def the_gateway_dies(self) -> None:
        self.gateway = None
        self.step(core.GatewayDown())

    @invariant()
    def at_most_one_server_is_ready_and_its_engine_is_healthy(self) -> None:
        ready = [name for name, on in (self.gateway or {}).items() if on]
        assert len(ready) <= 1
        assert all(self.last[name] == "healthy" for name in ready)

    @invariant()
    def the_policy_is_kept(self) -> None:
        assert self.policy == AUTO or self.state.active in (None, self.policy)

    @invariant()
    def serving_is_never_claimed_without_a_ready_server(self) -> None:
        if core.serving(self.state):
            assert self.gateway is not None and self.state.active is not None
            assert self.gateway[self.state.active]

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Every engine is being probed or will be, and the gateway is reached for."""
        for engine in self.state.engines:
            assert engine.probing == (engine.name in self.probing)
            assert engine.probing or engine.probe_at <= self.now + core.HEALTHY_INTERVAL
        assert self.state.gateway or self.state.gateway_at <= self.now + core.GATEWAY_INTERVAL

    def teardown(self) -> None:
        """However it went: with all engines good and the gateway up, a request is served soon."""
        if not hasattr(self, "state"):
            return
        if self.gateway is None:
            self.gateway = dict.fromkeys(NAMES, False)
        for _ in range(20):
            for name in list(self.probing):
                self.probing.remove(name)
                self.last[name] = "healthy"
                self.step(core.Probed(name, Verdict.GOOD, "good"))
            self.now += 0.5
            self.step(core.Tick())
        assert core.serving(self.state)


TestSelector = Selector.TestCase
TestSelector.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
