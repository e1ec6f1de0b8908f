"""A world for the selector's core: engines, a gateway, hal-control, operators, and a clock that only jumps.

Nothing in here knows how the core decides. It plays what is around the selector, badly on purpose, carries
out the core's actions, and asserts what must never happen whatever anybody does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from services.selector import core
from services.selector.config import AUTO, Awaited, Config, EngineConfig
from services.selector.core import BY_HAND, Unit, Verb, Verdict
from services.selector.core.state import configured

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
DRAIN = 10.0
WAIT = 15.0
SWITCH_BOUND = 120.0
"""Simulated seconds for any switch between up to four engines with these timeouts."""

MOST_ACTIONS = 60
"""Actions per simulated second and per thing that happens, for up to four engines."""


def config(
    policy: str = AUTO,
    names: tuple[str, ...] = ("a", "b", "c"),
    exclusive: bool = False,
    remote: str = "",
    routed: str = "",
    binds: tuple[str, ...] = (),
) -> Config:
    """A configuration; `remote` is an engine that is not managed, `routed` one that routes lead to.

    `binds` cannot be started without their models.
    """
    engines = tuple(
        EngineConfig(
            name=name,
            host="127.0.0.1",
            port=1,
            base_url="http://127.0.0.1:1/v1",
            health_path="/health",
            health_status=200,
            models_path="/v1/models",
            model="m",
            orchestrator_model="m",
            server=f"engines/{name}",
            managed=name != remote,
            start_timeout=START_TIMEOUT,
            stop_timeout=STOP_TIMEOUT,
            route_server=f"to-{name}/{name}" if name == routed else "",
            awaits=(Awaited("m", f"/models/{name}"),) if name in binds and name != remote else (),
        )
        for name in names
    )
    return Config(policy, engines, "/gateway", "/status", exclusive=exclusive, drain=DRAIN, wait=WAIT)


@dataclass
class Engine:
    """A service with its supervisor, as systemd would run it."""

    name: str
    managed: bool
    process: str = Unit.STOPPED  # what is true of it: stopped, starting, ready, failed (its supervisor waits)
    words: str = Unit.STOPPED  # what its launcher's file says: of use, but a killed launcher says nothing
    takes: float = 3.0  # seconds to start
    stops_in: float = 0.5
    failing: int = 0  # starts to fail from now on
    never: bool = False  # starts and never gets ready
    hung: bool = False  # accepts and never answers
    lie: str = ""  # a verdict it gives whatever is true
    by_hand: bool = False  # somebody else than the selector has started it
    put_away: bool = False  # somebody else than the selector has stopped it
    unable: bool = False  # its launcher says that it cannot run as things are
    binds: bool = False  # it does not run without its model
    here: bool = True  # its model is there
    listed: bool = True  # it lists its model
    soon: bool = False  # hal-provision says that it will be
    fits: bool = True  # what the selector was told of the hardware
    life: int = 0  # counts its processes

    @property
    def up(self) -> bool:
        return self.process in (Unit.STARTING, Unit.READY)


@dataclass
class Gateway:
    """HAProxy's servers, flag and open requests (engine → times at which they end)."""

    up: bool = True
    servers: dict[str, bool] = field(default_factory=dict)
    routes: dict[str, bool] = field(default_factory=dict)
    serving: bool = False
    hopeless: bool = False
    streams: dict[str, list[float]] = field(default_factory=dict)


class World:
    """Everything around one core."""

    def __init__(self, given: Config, boot: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> None:
        self.config = given
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.engines = {e.name: Engine(e.name, e.managed, binds=bool(e.awaits)) for e in given.engines}
        self.gateway = Gateway(servers=dict.fromkeys(self.engines, False))
        self.disk: core.Saved | None = None
        self.orders: dict[str, list[tuple[str, int]]] = {name: [] for name in self.engines}
        self.ordering: set[str] = set()
        self.control_broken = False
        self.control_lost = False
        self.generation = 0
        self.state: core.State | None = None
        self.connected = False
        self.actions = 0
        self.done: list[tuple[float, core.Action]] = []
        self.steps = 0
        self.crash_after: int | None = None
        self.believed: dict[str, bool] = {}
        self.slow: dict[str, int] = {}
        self.switches: dict[tuple[int, str, float], float] = {}
        self.wanted_at = 0.0
        self.back: core.Choice | None = None  # what is wanted again if the switch under way fails
        self.kept: core.Saved | None = None
        self.excused = False  # something was mended, or asked for, since requests are refused at once
        self.wanted = ""  # the engine that was commanded last, as long as nothing took that back
        for name, engine in self.engines.items():
            engine.here = name not in missing
            if not engine.managed:
                engine.process = engine.words = Unit.READY
            elif name in boot:
                self._process(engine)
        self.selector_starts()
        self._traffic()

    # Time

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, action))

    def pass_time(self, seconds: float) -> None:
        """Let things happen in the order of their times."""
        end = self.now + seconds
        before = self.actions
        while True:
            due = max(self.now, self.state.due) if self.state is not None else float("inf")
            if self.events and self.events[0][0] <= min(due, end):
                self.now = max(self.now, self.events[0][0])
                heapq.heappop(self.events)[2]()
            elif due <= end:
                self.now = due
                self.tell(core.Tick())
                assert self.state is None or self.state.due > self.now, "a busy loop"
            else:
                break
        self.now = end
        done = self.actions - before
        assert done <= MOST_ACTIONS * (1 + seconds), f"{done} actions in {seconds} s"
        self.check()

    # The selector

    def selector_starts(self) -> None:
        """A selector starts with what was kept."""
        if self.state is None:
            self.generation += 1
            self.state = core.initial(self.config, self.now, self.disk)
            self.kept = self.state.saved
            if self.disk is not None and self.disk.back is not None and self._current(self.disk):
                target = self.state.desired or self.state.policy
                resumed = self.state.switch is not None and self.state.switch.back is not None
                assert resumed or target in (AUTO, self.state.active), "a switch is forgotten"
            self.believed = dict.fromkeys(self.engines, False)
            self.slow = dict.fromkeys(self.engines, 0)
            for engine in self.engines.values():
                if not engine.here:
                    self._tell_of_the_model(engine)
                self._watch(engine)

    def selector_dies(self) -> None:
        """kill -9: nothing is left of it but what was kept."""
        self.state = None
        self.connected = False
        self.crash_after = None

    def tell(self, event: core.Event, generation: int | None = None) -> None:
        """Bring an event to the selector and do as it says."""
        if self.state is None or generation not in (None, self.generation):
            return
        events = [event]
        while events and self.state is not None:
            told = events.pop(0)
            self._believe(told)
            before = self.state
            self.state, actions = core.step(self.state, told, self.now)
            self._judge_failure(before, told, self.state)
            self.steps += 1
            if self.state.hopeless and not before.hopeless:
                self.excused = False
            self._failed(self.state.ended)
            for action in actions:
                if self.crash_after is not None:
                    self.crash_after -= 1
                    if self.crash_after < 0:
                        self.selector_dies()
                        self.at(0.5, self.selector_starts)
                        return
                result = self._perform(action)
                if result is not None:
                    events.append(result)
        self._judge_switch()

    def _perform(self, action: core.Action) -> core.Event | None:
        self.actions += not isinstance(action, core.Log)
        assert self.state is not None
        if not isinstance(action, core.Save):
            assert self.kept == self.state.saved, "something is done before it is kept why"
        self.done.append((self.now, action))
        if isinstance(action, core.Save):
            self.disk = self.kept = action.saved
        elif isinstance(action, core.Probe):
            self._probe(self.engines[action.engine])
        elif isinstance(action, core.Start | core.Stop):
            verb = Verb.START if isinstance(action, core.Start) else Verb.STOP
            assert self.engines[action.engine].managed, "an order for what is not managed"
            if verb == Verb.START:
                found = core.find(self.state, action.engine)
                assert found is not None and not found.blocked, "started without its model"
            if self.control_broken:
                return core.OrderFailed(action.engine, verb, "hal-control does not run")
            if not self.control_lost:
                self.orders[action.engine].append((verb, self.generation))
                self._next_order(action.engine)
        elif isinstance(action, core.ConnectGateway):
            self.connected = self.gateway.up
            return core.GatewayUp() if self.gateway.up else core.GatewayDown()
        elif not isinstance(action, core.Log):
            assert self.state is not None
            assert self.state.gateway, "asked without a connection"
            if not self.gateway.up or not self.connected:
                self.connected = False
                return core.GatewayDown()
            return self._gateway(action)
        return None

    def _believe(self, event: core.Event) -> None:
        """What a selector may believe of an engine's health after what it was told."""
        if isinstance(event, core.Probed):
            slow = self.slow[event.engine] + 1 if event.verdict == Verdict.SLOW else 0
            self.slow[event.engine] = slow
            if event.verdict != Verdict.SLOW or slow >= 3:
                self.believed[event.engine] = event.verdict == Verdict.GOOD
        elif isinstance(event, core.OrderDone) and event.verb == Verb.STOP:
            self.believed[event.engine] = False

    def _failed(self, ended: core.Ended | None) -> None:
        """A command that has failed, and says so, counts no longer."""
        if ended is not None and not ended.ok and ended.at >= self.wanted_at and ended.target == self.wanted:
            self.wanted = ""

    # The gateway

    def _gateway(self, action: core.Action) -> core.Event | None:
        gateway = self.gateway
        if isinstance(action, core.SetServer):
            assert not action.ready or self.believed[action.engine], "an unready engine's server made ready"
            gateway.servers[action.engine] = action.ready
            return core.ServerSet(action.engine, action.ready)
        if isinstance(action, core.SetRoute):
            assert not action.ready or self.believed[action.engine], "a route to an unready engine opened"
            gateway.routes[action.engine] = action.ready
            return core.RouteSet(action.engine, action.ready)
        if isinstance(action, core.SetServing):
            ready = [name for name, on in gateway.servers.items() if on]
            if action.on:
                assert len(ready) == 1, f"requests go on, with {ready} ready"
                assert self.believed[ready[0]], "requests go on to an unready engine"
            gateway.serving = action.on
            return core.ServingSet(action.on)
        if isinstance(action, core.SetHopeless):
            gateway.hopeless = action.on
            return core.HopelessSet(action.on)
        if isinstance(action, core.CountStreams):
            return core.Streams(action.engine, len(self.streams(action.engine)))
        assert isinstance(action, core.CutStreams)
        gateway.streams[action.engine] = []
        return core.Cut(action.engine)

    def streams(self, name: str) -> list[float]:
        """The requests that are open at an engine; a hung one ends none."""
        engine, found = self.engines[name], self.gateway.streams.get(name, [])
        if not engine.up:
            found = []
        elif not engine.hung:
            found = [end for end in found if end > self.now]
        self.gateway.streams[name] = found
        return found

    def request(self, seconds: float) -> None:
        """A request comes in and, if it is let on, stays open for so long."""
        ready = [name for name, on in self.gateway.servers.items() if on]
        if self.gateway.up and self.gateway.serving:
            assert ready, "a request was let on, and there is no server"
            for name in ready[:1]:
                self.streams(name).append(self.now + seconds)

    def _traffic(self) -> None:
        """There is always somebody who asks."""
        self.request(1.2)
        self.at(0.7, self._traffic)

    def gateway_dies(self) -> None:
        """HAProxy is killed: its open requests end."""
        self.gateway.up = False
        self.connected = False
        self.gateway.streams = {}
        self.tell(core.GatewayDown())

    def gateway_starts(self) -> None:
        """A new HAProxy, with every server in maintenance and nothing let on; a reload, too."""
        self.gateway = Gateway(servers=dict.fromkeys(self.engines, False))
        if self.connected:
            self.connected = False
            self.tell(core.GatewayDown())

    # Engines

    def _process(self, engine: Engine) -> None:
        """A process of the engine begins."""
        engine.life += 1
        engine.process = Unit.STARTING
        engine.put_away = False
        engine.listed = engine.here
        life = engine.life
        fails = engine.failing > 0 or engine.unable or (engine.binds and not engine.here)
        self.at(0.3, lambda: self._says(engine, life))
        engine.failing = max(0, engine.failing - 1)
        if not engine.never:
            self.at(engine.takes, lambda: self._started(engine, life, fails))

    def _says(self, engine: Engine, life: int) -> None:
        """The launcher runs; until here its file is that of an earlier life."""
        if engine.life == life and engine.process == Unit.STARTING:
            engine.words = Unit.STARTING
            self._watch(engine)

    def _started(self, engine: Engine, life: int, fails: bool) -> None:
        if engine.life == life and engine.process == Unit.STARTING:
            if fails:
                self.dies(engine.name)
            else:
                self._judge_hope(engine)
                engine.process = engine.words = Unit.READY
                self._watch(engine)

    def dies(self, name: str, silent: bool = False) -> None:
        """The engine's process ends by itself; `silent`: its launcher could not say so."""
        engine = self.engines[name]
        if not engine.managed:
            engine.process = Unit.FAILED
            self.at(15, lambda: setattr(engine, "process", Unit.READY))
        elif engine.up:
            engine.life += 1
            engine.process = Unit.FAILED
            engine.hung = False
            if not silent:
                engine.words = Unit.FAILED
            life = engine.life
            self._watch(engine)
            self.at(1.0, lambda: self._restarts(engine, life))

    def breaks(self, name: str, stuck: bool = False) -> None:
        """The engine ends and does not come back until it is mended; `stuck`: it hangs in its next start."""
        engine = self.engines[name]
        engine.failing, engine.never = (0, True) if stuck else (1000, False)
        if engine.managed:
            self.dies(name)
        else:
            engine.hung = True

    def mend(self, name: str) -> None:
        """The engine is as it should be."""
        engine = self.engines[name]
        engine.failing, engine.never, engine.hung, engine.lie, engine.takes = 0, False, False, "", 3.0
        engine.unable = False
        self.excused = True

    def _restarts(self, engine: Engine, life: int) -> None:
        if engine.process == Unit.FAILED and engine.life == life:
            self._process(engine)

    def by_hand(self, name: str) -> None:
        """Somebody starts a service past the selector."""
        engine = self.engines[name]
        if engine.managed and not engine.up:
            engine.by_hand = self.excused = True
            self._process(engine)

    def stopped_by_hand(self, name: str) -> None:
        """Somebody stops a service past the selector."""
        engine = self.engines[name]
        if engine.managed and engine.process != Unit.STOPPED:
            engine.life += 1
            engine.process = engine.words = Unit.STOPPED
            engine.hung = engine.by_hand = False
            engine.put_away = True
            self._watch(engine)

    def model(self, name: str, here: bool, soon: bool = False) -> None:
        """The engine's model arrives, or is withdrawn, or comes nearer."""
        engine = self.engines[name]
        if not engine.managed:
            return
        engine.here, engine.soon = here, soon
        engine.listed = engine.listed or here
        self.excused = self.excused or here
        generation = self.generation
        self.at(0.2, lambda: self._tell_of_the_model(engine, generation))

    def _tell_of_the_model(self, engine: Engine, generation: int | None = None) -> None:
        missing = "" if engine.here else "the model m has not arrived"
        self.tell(core.ModelSeen(engine.name, missing, engine.soon and not engine.here), generation)

    def hardware(self, name: str, reason: str) -> None:
        """The hardware was looked at."""
        self.engines[name].fits = not reason
        self.tell(core.Fits(name, reason))

    def _watch(self, engine: Engine) -> None:
        """The selector sees the launcher's file, sooner or later."""
        if engine.managed:
            words, lasting = engine.words, engine.unable and engine.words == Unit.FAILED
            reason = "the model is missing" if words == Unit.FAILED else words
            if engine.put_away and words == Unit.STOPPED:
                reason = BY_HAND
            elif lasting:
                reason = "no GPU"
            generation = self.generation
            seen = core.UnitSeen(engine.name, words, reason, lasting)

            def tell() -> None:
                # That somebody stopped it comes out of files that are looked at when it is told.
                if reason != BY_HAND or engine.put_away:
                    self.tell(seen, generation)

            self.at(0.2, tell)

    def _probe(self, engine: Engine) -> None:
        generation = self.generation
        verdict = self._verdict(engine)
        seconds = 5.0 if verdict == Verdict.SLOW else 0.01
        self.at(seconds, lambda: self.tell(core.Probed(engine.name, verdict, verdict), generation))

    def _verdict(self, engine: Engine) -> str:
        if engine.lie and engine.up:
            return engine.lie
        if engine.process != Unit.READY:
            return Verdict.REFUSED
        if engine.hung:
            return Verdict.SLOW
        return Verdict.GOOD if engine.listed or not engine.managed else Verdict.WRONG

    # hal-control: for each engine one order after the other, for different ones side by side

    def _next_order(self, name: str) -> None:
        if name in self.ordering or not self.orders[name]:
            return
        self.ordering.add(name)
        verb, generation = self.orders[name].pop(0)
        engine = self.engines[name]
        self.at(0.1, lambda: self._begin_order(verb, engine, generation))

    def _begin_order(self, verb: str, engine: Engine, generation: int) -> None:
        if verb == Verb.START:
            if not engine.up:
                self._no_other(engine)
                engine.by_hand = False
                self._process(engine)
            self._end_order(verb, engine)
            return
        if generation == self.generation and engine.process == Unit.READY and not (engine.hung or engine.lie):
            lost = self.streams(engine.name)
            assert not lost, f"{engine.name} is stopped under {len(lost)} requests"
        self.at(engine.stops_in if engine.up else 0.0, lambda: self._stopped(engine))

    def _stopped(self, engine: Engine) -> None:
        engine.life += 1
        engine.process = engine.words = Unit.STOPPED
        engine.hung = engine.by_hand = False
        self._watch(engine)
        self._end_order(Verb.STOP, engine)

    def _end_order(self, verb: str, engine: Engine) -> None:
        """Whoever waits for such an answer takes it, also one to an order of the selector before."""
        self.ordering.discard(engine.name)
        self.tell(core.OrderDone(engine.name, verb))
        self._next_order(engine.name)

    def _no_other(self, engine: Engine) -> None:
        if self.config.exclusive:
            others = [e.name for e in self.engines.values() if e.managed and e.process != Unit.STOPPED]
            wrong = [name for name in others if name != engine.name and not self.engines[name].by_hand]
            assert not wrong, f"{engine.name} is started while {wrong} may run"

    # Operators

    def command(self, verb: str, value: str = "") -> bool:
        """An operator's command; whether it was taken."""
        if self.state is None or core.refusal(self.state, core.Commanded(verb, value)):
            return False
        generation, before = self.generation, self.wanted
        self.excused = True
        self._note_choice()
        if verb == Verb.SWITCH:
            self.wanted, self.wanted_at = value, self.now
        elif verb == Verb.POLICY:
            self.wanted = ""
        self.tell(core.Commanded(verb, value))
        if self.generation != generation or self.state is None:
            # It died over it: nobody was told that it was taken.
            kept = self.disk if self.disk is not None and self._current(self.disk) else None
            self.wanted = kept.desired if kept is not None else before if self.disk is None else ""
            self.back = None
        return True

    def reload(self, given: Config) -> None:
        """The configuration files are read again, by this selector or the next."""
        same = configured(self.config) == configured(given)
        if not same or (self.state is not None and self.state.refused):
            self.wanted = ""
        self.config = given
        self.excused = True
        self._note_choice()
        self.tell(core.Reconfigured(given))

    def _note_choice(self) -> None:
        """What a switch that now begins has to return to should it fail."""
        if self.state is None:
            self.back = None
        elif self.state.switch is None or self.state.switch.back is None:
            self.back = self.state.choice

    def _current(self, kept: core.Saved) -> bool:
        return kept.configured == configured(self.config)

    # What must hold

    def _judge_switch(self) -> None:
        if self.state is None:
            return
        switch = self.state.switch
        if switch is not None:
            key = (self.generation, switch.target, switch.since)
            begun = self.switches.setdefault(key, self.now)
            assert self.now - begun <= SWITCH_BOUND, f"a switch without an end: {switch}"

    def _judge_failure(self, before: core.State, told: core.Event, after: core.State) -> None:
        """A commanded switch that fails leaves things as they were."""
        commanded = before.switch is not None and before.switch.back is not None
        if not commanded or after.switch is not None or isinstance(told, core.Commanded | core.Reconfigured):
            return
        assert after.ended is not None, "a switch has vanished"
        if not after.ended.ok and self.back is not None:
            assert after.choice == self.back, f"{self.back} was wanted before the switch that failed"

    def _judge_hope(self, engine: Engine) -> None:
        """Only an engine that somebody mends, or starts, gets ready while requests are refused at once."""
        if self.state is None or not self.state.hopeless or self.excused or engine.by_hand:
            return
        allowed = (self.state.desired, self.state.policy)
        matters = engine.name in allowed or self.state.policy == AUTO
        if matters and engine.here and engine.fits:
            raise AssertionError(f"{engine.name} gets ready, and requests are refused: {self.state.hopeless}")

    def check(self) -> None:
        """What must hold whenever nothing is in the middle of being done."""
        ready = [name for name, on in self.gateway.servers.items() if on]
        if self.state is None:
            return
        if self.connected and self.gateway.up and self.state.hopeless_asked is not None:
            assert self.gateway.hopeless == bool(self.state.hopeless), "the flag is not as it should be"
        if any(engine.healthy and engine.selectable for engine in self.state.engines):
            assert not self.state.hopeless or self.state.policy != AUTO, "there is an engine that can serve"
        if core.serving(self.state):
            assert not self.state.hopeless
            assert self.gateway.up and self.gateway.serving, "it says that it serves"
            assert ready == [self.state.active], f"it serves with {ready}"
        if self.wanted:
            assert self.state.desired == self.wanted, f"{self.wanted} was commanded, and is forgotten"
            assert self.disk is not None and self.disk.desired == self.wanted, "and not kept"
        assert len(self.state.decisions) <= 50
        for engine in self.state.engines:
            assert engine.probing or engine.probe_at <= self.now + 2.0, "an engine is not looked at"

    def calm(self) -> None:
        """From here on everybody behaves."""
        for name in self.engines:
            self.mend(name)
            self.model(name, True)
            if self.engines[name].put_away:
                self.by_hand(name)
        self.control_broken = self.control_lost = False
        self.crash_after = None
        if not self.gateway.up:
            self.gateway_starts()
        self.selector_starts()

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until something is so; whether it got so in time."""
        end = self.now + seconds
        while not condition():
            if self.now >= end:
                return False
            self.pass_time(1.0)
        return True

    def did(self, *kinds: type, since: float = 0.0) -> list[core.Action]:
        """The actions of some kinds, in order."""
        return [action for at, action in self.done if at >= since and isinstance(action, kinds)]

    def up(self) -> list[str]:
        """The managed engines that have processes."""
        return [engine.name for engine in self.engines.values() if engine.managed and engine.up]

    def serves(self) -> str:
        """The engine that requests really reach: ready server, flag, and an engine that works; else ""."""
        ready = [name for name, on in self.gateway.servers.items() if on]
        if not (self.gateway.up and self.gateway.serving and len(ready) == 1):
            return ""
        engine = self.engines[ready[0]]
        return engine.name if engine.process == Unit.READY and not engine.hung else ""
