"""The selector's configuration, /etc/hal/selector.json, which hal renders and nobody edits."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

AUTO = "auto"
"""The policy that takes the first engine that can serve, in the order of preference."""

GPU_KINDS = ("", "nvidia", "amd", "intel")
UNIX = "unix:"
"""What a `host` begins with that is a socket's path: an endpoint elsewhere, reached through the gateway."""


class Needs(NamedTuple):
    """What an engine takes of the machine: make of GPU (empty: none), bytes on the GPUs, bytes, GPUs.

    `vram` is for all GPUs together; 0 where it is not known. `gpus` is 1 at least where there is a `gpu`.
    """

    gpu: str = ""
    vram: int = 0
    memory: int = 0
    gpus: int = 0


class Awaited(NamedTuple):
    """A model that comes while the machine runs, and the file that is there once it has arrived."""

    model: str
    marker: str


class EngineConfig(NamedTuple):
    """An engine: where it answers, what makes it ready, its servers in the gateway, and how it is run.

    `host` is an address on loopback, or `unix:PATH` with the port 0. An empty `models_path` means that the
    engine's models are not asked for. `listed_model` is how the engine lists its model where that is not the
    model's name, and `listed_as` how it names any model. `served` are the names that it can ever list; empty:
    any, as it binds models at run time. `server` takes requests without a route, `route_server` those that a
    route sends here ("" without such a route). `managed`: a service of this machine, which can be started
    and stopped; `state_file` is where its launcher says how it is, `cgroup` its control group, `order_file`
    where hal-control says that it has stopped it. `selectable`: it may be the active engine; else
    only routes lead to it. Timeouts in seconds. `environment` is what its variables begin with (`VLLM`; ""
    without any), `tensor_parallel` how many GPUs share its model ("" where that is no question). `awaits` are
    its models that come while the machine runs; where it `binds` models, it cannot be started without them.
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
    managed: bool = True
    start_timeout: float = 300.0
    stop_timeout: float = 20.0
    needs: Needs = Needs()
    listed_as: str = "{model_name}"
    served: tuple[str, ...] = ()
    route_server: str = ""
    cgroup: str = ""
    order_file: str = ""
    selectable: bool = True
    environment: str = ""
    tensor_parallel: str = ""
    awaits: tuple[Awaited, ...] = ()
    binds: bool = True

    def listed(self, model: str) -> str:
        """How this engine's list of models names `model`."""
        if self.listed_as.endswith(":latest") and ":" in model:
            return model  # it has a tag of its own
        return self.listed_as.replace("{model_name}", model)


class Config(NamedTuple):
    """What the selector is told: the engines, in order of preference, the policy, and the sockets.

    `policy` is `auto` or an engine's name. `exclusive`: no two managed engines may be up at once. `drain` is
    how many seconds streams get to end in a switch, `wait` how many a request waits for an engine.
    `gateway_socket` is HAProxy's runtime API, `gateway_metrics` its exporter, `serving_server` the server
    whose state lets requests go on, `hopeless_server` the one whose state refuses them at once;
    `status_socket` and `control_socket` are the selector's own. `control_pipe` leads to hal-control, which
    also writes `hardware_file`. `state_path` keeps what was commanded. `env_files` are read in this order; of
    those below `state_directory` only the backend's and the models' names count unless `trusted_state`.
    `token_maps` are the gateway's maps that a reload reads again. `provision_status` is where hal-provision
    says how far models are ("": it does not).
    """

    policy: str
    engines: tuple[EngineConfig, ...]
    gateway_socket: str
    status_socket: str
    exclusive: bool = False
    drain: float = 60.0
    wait: float = 60.0
    control_socket: str = ""
    control_pipe: str = ""
    state_path: str = ""
    env_files: tuple[str, ...] = ()
    state_directory: str = "/var/lib/hal"
    trusted_state: bool = False
    serving_server: str = "switch/serving"
    hopeless_server: str = "switch/hopeless"
    gateway_metrics: str = ""
    hardware_file: str = ""
    routes_file: str = ""
    token_maps: tuple[str, ...] = ()
    provision_status: str = ""

    def engine(self, name: str) -> EngineConfig:
        """The engine of this name.

        Raises:
            KeyError: there is none.
        """
        for engine in self.engines:
            if engine.name == name:
                return engine
        raise KeyError(name)


class ConfigError(Exception):
    """The file cannot be used; the message says why in one line."""


def parse(text: str) -> Config:
    """The configuration in a JSON text.

    Raises:
        ConfigError: not JSON, a key missing, unknown or of a wrong type, or a policy that names no engine.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or not isinstance(data.get("engines"), list):
            raise TypeError("it must be an object with a list of engines")
        data.pop("generated", None)
        config: Config = _filled(Config, data)
    except RecursionError:
        raise ConfigError("it is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from None
    except KeyError as error:
        raise ConfigError(f"the key {error} is missing") from None
    names = [engine.name for engine in config.engines]
    if not names:
        raise ConfigError("there are no engines")
    if len(set(names)) != len(names):
        raise ConfigError("two engines have the same name")
    if config.policy != AUTO and config.policy not in names:
        raise ConfigError(f"the policy {config.policy!r} is neither {AUTO} nor one of {', '.join(names)}")
    return config


def _filled(kind: Any, entry: object) -> Any:
    """A NamedTuple out of a JSON object: each value of the type that the field's default or name asks for."""
    if not isinstance(entry, dict):
        raise TypeError(f"{entry!r:.40} must be an object")
    unknown = [key for key in entry if key not in kind._fields]
    if unknown:
        raise TypeError(f"the key {unknown[0]!r} is not known")
    values = {}
    for field in kind._fields:
        if field in entry:
            values[field] = _value(field, entry[field], kind._field_defaults.get(field))
        elif field not in kind._field_defaults:
            raise KeyError(field)
    return kind(**values)


def _value(key: str, value: object, default: object) -> Any:
    if key == "engines":
        assert isinstance(value, list)
        return tuple(_filled(EngineConfig, entry) for entry in value)
    if key == "awaits":
        if not isinstance(value, list):
            raise TypeError(f"{key} must be a list")
        return tuple(_filled(Awaited, entry) for entry in value)
    if key == "needs":
        return _filled(Needs, value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{key} must be true or false")
        return value
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            raise TypeError(f"{key} must be a number of seconds")
        return float(value)
    if isinstance(default, int) or key in ("port", "health_status"):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TypeError(f"{key} must be a whole number")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list):
            raise TypeError(f"{key} must be a list")
        return tuple(_text(key, entry) for entry in value)
    text = _text(key, value)
    if key == "gpu" and text not in GPU_KINDS:
        raise TypeError(f"gpu must be one of {', '.join(GPU_KINDS[1:])}, or empty")
    return text


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{key} must be one line of text")
    return value
