"""What the core is told and what it asks for: events, actions, and the words in them."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Config


class Verdict:
    """What a probe found. REFUSED and WRONG count at once, SLOW after `SLOW_LIMIT`."""

    GOOD = "good"
    REFUSED = "refused"
    WRONG = "wrong"
    SLOW = "slow"


class Unit:
    """How an engine's service is. All but STOPPED may hold the machine's memory or its GPU."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


BY_HAND = "stopped by hand"
"""What is said of a service that ended because somebody else than the selector stopped it."""


class Verb:
    """What can be ordered of a service (START, STOP), and commanded of the selector (the others)."""

    START = "start"
    STOP = "stop"
    SWITCH = "switch"
    POLICY = "policy"
    DRAIN = "drain"
    UNDRAIN = "undrain"


class Tick(NamedTuple):
    """Time has passed."""


class Probed(NamedTuple):
    """A probe of `engine` ended; `reason` is for people, without any content of requests.

    `lasting`: it stays so until somebody mends it.
    """

    engine: str
    verdict: str
    reason: str
    lasting: bool = False


class GatewayUp(NamedTuple):
    """The runtime API answers; a gateway that has just started has every server in maintenance."""


class GatewayDown(NamedTuple):
    """The runtime API cannot be reached, or its connection ended."""


class ServerSet(NamedTuple):
    """The gateway carried out a SetServer."""

    engine: str
    ready: bool


class RouteSet(NamedTuple):
    """The gateway carried out a SetRoute."""

    engine: str
    ready: bool


class ServingSet(NamedTuple):
    """The gateway carried out a SetServing."""

    on: bool


class HopelessSet(NamedTuple):
    """The gateway carried out a SetHopeless."""

    on: bool


class Streams(NamedTuple):
    """So many requests are open at the engine, of those that CountStreams asked for."""

    engine: str
    number: int


class Cut(NamedTuple):
    """The gateway carried out a CutStreams."""

    engine: str


class UnitSeen(NamedTuple):
    """What the engine's launcher, or the service manager, says of it; `state` is one of `Unit`.

    May be told as often as one likes: only what differs from the last one is news. That an order to stop was
    carried out is not seen here but told by OrderDone. `lasting`: it stays so until somebody mends it.
    """

    engine: str
    state: str
    reason: str = ""
    lasting: bool = False


class OrderDone(NamedTuple):
    """An order (START or STOP) was carried out: no process of a stopped engine is left."""

    engine: str
    verb: str


class OrderFailed(NamedTuple):
    """An order could not be carried out."""

    engine: str
    verb: str
    reason: str


class Commanded(NamedTuple):
    """An operator's command: SWITCH with an engine ("" takes a switch back), POLICY with one, DRAIN, UNDRAIN.

    `refusal` says beforehand whether it would be refused, and why.
    """

    verb: str
    value: str = ""


class Reconfigured(NamedTuple):
    """The configuration was read again and is good. Another policy or order in it counts as a command."""

    config: Config


class Fits(NamedTuple):
    """Whether the hardware is enough for the engine: "" or the reason why not."""

    engine: str
    reason: str


class ModelSeen(NamedTuple):
    """Whether the models of the engine are there: "" or the reason why not; `soon`: they may be in time."""

    engine: str
    missing: str
    soon: bool = False


class Probe(NamedTuple):
    """Ask `engine` for its health and its models. Answered by Probed."""

    engine: str


class ConnectGateway(NamedTuple):
    """Try to reach the runtime API. Answered by GatewayUp or GatewayDown."""


class SetServer(NamedTuple):
    """Make the engine's server in the gateway take requests, or put it into maintenance.

    Answered by ServerSet or GatewayDown, as all that is asked of the gateway.
    """

    engine: str
    ready: bool


class SetRoute(NamedTuple):
    """The same for the server that routes lead to (`route_server`). Answered by RouteSet."""

    engine: str
    ready: bool


class SetServing(NamedTuple):
    """Let requests go on, or let them wait. Answered by ServingSet."""

    on: bool


class SetHopeless(NamedTuple):
    """Refuse requests at once while they may not go on, or let them wait. Answered by HopelessSet."""

    on: bool


class CountStreams(NamedTuple):
    """Count the requests that are open at the engine. Answered by Streams.

    `routes`: over all of its servers (it is to stop); else only those that came without a route.
    """

    engine: str
    routes: bool


class CutStreams(NamedTuple):
    """End the requests that are open at the engine, `routes` as in CountStreams. Answered by Cut."""

    engine: str
    routes: bool


class Start(NamedTuple):
    """Start the engine's service; nothing happens if it runs. Answered by OrderDone or OrderFailed.

    Orders are carried out one after the other, in the order in which they were given.
    """

    engine: str


class Stop(NamedTuple):
    """Stop the engine's service, also one that is to be started again. Answered as Start."""

    engine: str


class Saved(NamedTuple):
    """What outlives the selector.

    `configured` is the policy and the order that the configuration had; under another one, `policy`,
    `desired` and `back` are out of date. `policy` is what was commanded ("": as configured), `desired` the
    engine that was commanded ("": none), `back` the two as they were before a switch that has not ended.
    `active` had the requests; `resident` was the one managed engine that might be up; `drained`: an
    operator wants no requests.
    """

    configured: tuple[str, ...]
    policy: str = ""
    desired: str = ""
    back: tuple[str, str] | None = None
    active: str = ""
    resident: str = ""
    drained: bool = False


class Save(NamedTuple):
    """Keep this over a restart, durably, before the actions that follow are performed. Not answered."""

    saved: Saved


class Log(NamedTuple):
    """A line worth keeping: the state has changed."""

    text: str


Event = (
    Tick
    | Probed
    | GatewayUp
    | GatewayDown
    | ServerSet
    | RouteSet
    | ServingSet
    | HopelessSet
    | Streams
    | Cut
    | UnitSeen
    | OrderDone
    | OrderFailed
    | Commanded
    | Reconfigured
    | Fits
    | ModelSeen
)
Action = (
    Probe
    | ConnectGateway
    | SetServer
    | SetRoute
    | SetServing
    | SetHopeless
    | CountStreams
    | CutStreams
    | Start
    | Stop
    | Save
    | Log
)
