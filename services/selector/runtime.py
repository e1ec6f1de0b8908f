"""The core's actions that are carried out at the gateway, through its runtime API."""

from __future__ import annotations

from . import core, settings
from .config import Config, ConfigError, EngineConfig
from .gateway import Gateway, GatewayError


def perform(action: core.Action, gateway: Gateway, config: Config) -> core.Event:
    """Carry out what is asked of a gateway that is connected, and say so.

    Raises:
        GatewayError: it could not be done.
    """
    if isinstance(action, core.SetServing):
        gateway.set_server(config.serving_server, action.on)
        return core.ServingSet(action.on)
    if isinstance(action, core.SetHopeless):
        gateway.set_server(config.hopeless_server, action.on)
        return core.HopelessSet(action.on)
    assert isinstance(action, core.SetServer | core.SetRoute | core.CountStreams | core.CutStreams)
    engine = config.engine(action.engine)
    if isinstance(action, core.SetServer):
        if engine.server:
            gateway.set_server(engine.server, action.ready)
        return core.ServerSet(engine.name, action.ready)
    if isinstance(action, core.SetRoute):
        if engine.route_server:
            gateway.set_server(engine.route_server, action.ready)
        return core.RouteSet(engine.name, action.ready)
    if isinstance(action, core.CountStreams):
        return core.Streams(engine.name, gateway.streams(servers_of(engine)))
    gateway.cut(servers_of(engine))
    return core.Cut(engine.name)


def servers_of(engine: EngineConfig) -> list[str]:
    """An engine's servers in the gateway."""
    return [server for server in (engine.server, engine.route_server) if server]


def give_maps(gateway: Gateway, maps: list[settings.Map]) -> str:
    """Give the gateway its tokens anew; why it did not take them, or empty."""
    if not gateway.connected:
        return ""  # it reads its own files when it starts
    try:
        used = gateway.maps() if maps else frozenset()
        for one in (one for one in maps if one.path in used):
            gateway.replace_map(one.path, one.entries)
    except GatewayError as error:
        return f"the gateway keeps its tokens: {error}"
    return ""


def give_replaced_maps(gateway: Gateway, config: Config) -> None:
    """Give a gateway that has just started what it cannot have from its own files.

    Raises:
        GatewayError: it did not take them: better none than one that lets others in.
    """
    try:
        problem = give_maps(gateway, [one for one in settings.maps(config) if one.replaced])
    except ConfigError as error:
        print(f"the gateway keeps its own tokens: {error}", flush=True)
        return
    if problem:
        raise GatewayError(problem)
