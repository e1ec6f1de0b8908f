"""The selector's configuration, /etc/hal/selector.json, which hal renders and nobody edits."""

from __future__ import annotations

import json
from typing import NamedTuple

AUTO = "auto"
"""The policy that takes the first healthy engine in the order of preference."""


class EngineConfig(NamedTuple):
    """An engine: where it answers (loopback), what makes it ready, and its server's name in the gateway.

    An empty `models_path` means that the engine's models are not asked for. `listed_model` is how the engine
    lists its model where that is not the model's name; `state_file` is where its launcher, if it has one,
    says how it is.
    """

    name: str
    host: str
    port: int
    base_url: str
    health_path: str
    health_status: int
    models_path: str
    model: str
    orchestrator_model: str
    server: str
    listed_model: str = ""
    state_file: str = ""


class Config(NamedTuple):
    """What the selector is told: the engines, in order of preference, and the sockets.

    `policy` is `auto` or an engine's name; `gateway_socket` is HAProxy's runtime API, `status_socket`
    the selector's own.
    """

    policy: str
    engines: tuple[EngineConfig, ...]
    gateway_socket: str
    status_socket: str


class ConfigError(Exception):
    """The file cannot be used; the message says why in one line."""


def parse(text: str) -> Config:
    """The configuration in a JSON text.

    Raises:
        ConfigError: not JSON, a key missing or of a wrong type, or a policy that names no engine.
    """
    try:
        data = json.loads(text)
        engines = tuple(_engine(entry) for entry in data["engines"])
        config = Config(
            policy=_text(data, "policy"),
            engines=engines,
            gateway_socket=_text(data, "gateway_socket"),
            status_socket=_text(data, "status_socket"),
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from None
    except KeyError as error:
        raise ConfigError(f"the key {error} is missing") from None
    names = [engine.name for engine in engines]
    if not names:
        raise ConfigError("there are no engines")
    if len(set(names)) != len(names):
        raise ConfigError("two engines have the same name")
    if config.policy != AUTO and config.policy not in names:
        raise ConfigError(f"the policy {config.policy!r} is neither {AUTO} nor one of {', '.join(names)}")
    return config


def _engine(entry: dict[str, object]) -> EngineConfig:
    return EngineConfig(
        name=_text(entry, "name"),
        host=_text(entry, "host"),
        port=_number(entry, "port"),
        base_url=_text(entry, "base_url"),
        health_path=_text(entry, "health_path"),
        health_status=_number(entry, "health_status"),
        models_path=_text(entry, "models_path"),
        model=_text(entry, "model"),
        orchestrator_model=_text(entry, "orchestrator_model"),
        server=_text(entry, "server"),
        listed_model=_text(entry, "listed_model") if "listed_model" in entry else "",
        state_file=_text(entry, "state_file") if "state_file" in entry else "",
    )


def _text(entry: dict[str, object], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{key} must be one line of text")
    return value


def _number(entry: dict[str, object], key: str) -> int:
    value = entry[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{key} must be a whole number")
    return value
