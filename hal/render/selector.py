"""The selector's files: what it is told of the engines, and the variables that say it in familiar names."""

from __future__ import annotations

import json
from typing import Any

from hal.engines import Engine
from hal.engines.gpu import gpu_of
from hal.engines.needs import needs, served_names, tensor_parallel
from hal.render import arriving
from hal.render import engine as launching
from hal.render.files import RenderedFile, origin, text
from hal.render.memory import SLICE
from hal.spec.loading import LoadedSpec
from hal.spec.remotes import Remote, remotes

CONFIG = "/etc/hal/selector.json"
ENVIRONMENT = "/etc/hal/selector.env"
STATE_DIRECTORY = "/var/lib/hal"
STATE = f"{STATE_DIRECTORY}/selector"
"""What the selector keeps over restarts: the engine and the policy that somebody asked for."""

ADMIN_SOCKET = "/run/hal/gateway/admin.sock"
METRICS_SOCKET = "/run/hal/gateway/metrics.sock"
STATUS_SOCKET = "/run/hal/selector/http.sock"
CONTROL_SOCKET = "/run/hal/selector/control.sock"
CONTROL = "/run/hal/control"
"""Where hal-control takes orders, and says what came of them."""

GATEWAY = "/etc/hal/gateway"
ROUTES = "/etc/hal/routes.json"

BACKEND = "engines"
SERVING = "switch/serving"
"""The server of the gateway whose state lets requests go on."""

HOPELESS = "switch/hopeless"
"""The one whose state refuses them at once while they may not."""

GROUP = "hal-control"
GROUP_ID = 900
"""The group that may write orders: the selector's, and nobody else's."""

MODELS = "/v1/models"
"""Where every endpoint that speaks OpenAI's API lists its models."""

FAMILIAR = {"openai": "OPENAI_COMPATIBLE"}
"""What variables begin with where it is not the engine's name."""


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The selector's configuration, and its environment file as the image has it."""
    data = selector_data(loaded)
    return {
        CONFIG: RenderedFile(json.dumps(data, indent=2) + "\n"),
        ENVIRONMENT: text("selector.env", loaded, policy=data["policy"], engines=data["engines"]),
    }


def exclusive(loaded: LoadedSpec) -> bool:
    """Whether only one engine of this machine may run at a time."""
    asked = loaded.spec.selector.exclusive
    if isinstance(asked, bool):
        return asked
    return sum(gpu_of(engine, loaded.choice(engine)) is not None for engine in loaded.engines) >= 2


def preferred(loaded: LoadedSpec) -> tuple[str, ...]:
    """All engines in order of preference; those that `selector.preference` leaves out come last."""
    chosen = loaded.spec.selector.preference
    return (*chosen, *(choice.name for choice in loaded.spec.engines if choice.name not in chosen))


def at_boot(loaded: LoadedSpec) -> tuple[Engine, ...]:
    """The engines that start with the machine: all, or the one that is to serve where only one may run.

    One that opens its model when it starts waits for a model that is still to arrive: the selector starts it.
    """
    ready = tuple(engine for engine in loaded.engines if not _waits(loaded, engine))
    if not exclusive(loaded):
        return ready
    policy = loaded.spec.selector.policy
    first = preferred(loaded)[0] if policy == "auto" else policy
    return tuple(engine for engine in ready if engine.name == first)


def _waits(loaded: LoadedSpec, engine: Engine) -> bool:
    """Whether an engine cannot start with the machine, as its model is not in the image."""
    return engine.binds_models == "start" and any(
        not model.packed for model in launching.bound_models(loaded, engine)
    )


def selector_data(loaded: LoadedSpec) -> dict[str, Any]:
    """The selector's configuration; its keys are those of services/selector/config.py.

    Its engines are in order of preference.
    """
    spec = loaded.spec
    order = preferred(loaded)
    found = [_local(loaded, engine) for engine in loaded.engines]
    found += [_remote(loaded, remote) for remote in remotes(loaded)]
    found.sort(key=lambda entry: order.index(entry["name"]) if entry["name"] in order else len(order))
    return {
        "generated": origin(loaded),
        "policy": spec.selector.policy,
        "exclusive": exclusive(loaded),
        "drain": spec.selector.drain,
        "wait": spec.selector.wait,
        "gateway_socket": ADMIN_SOCKET,
        "gateway_metrics": METRICS_SOCKET,
        "serving_server": SERVING,
        "hopeless_server": HOPELESS,
        "status_socket": STATUS_SOCKET,
        "control_socket": CONTROL_SOCKET,
        "control_pipe": f"{CONTROL}/requests",
        "hardware_file": f"{CONTROL}/hardware",
        "routes_file": ROUTES,
        "token_maps": [f"{GATEWAY}/{name}" for name in ("tokens.map", "scopes.map")],
        "state_path": f"{STATE}/state.json",
        "state_directory": STATE_DIRECTORY,
        "env_files": [ENVIRONMENT, f"{STATE_DIRECTORY}/selector.env"],
        # The state partition is the host's to alter; what it says may send no prompt elsewhere.
        "trusted_state": spec.variant == "debug",
        **({"provision_status": arriving.STATUS} if arriving.needed(loaded) else {}),
        "engines": found,
    }


def _local(loaded: LoadedSpec, engine: Engine) -> dict[str, Any]:
    choice, model, port = loaded.choice(engine), loaded.served(engine), loaded.port(engine)
    name = model.name if model is not None else ""
    asked = needs(engine, choice, model)
    awaits = [
        {"model": bound.name, "marker": bound.marker}
        for bound in launching.bound_models(loaded, engine)
        if not bound.packed
    ]
    return {
        "name": engine.name,
        "host": "127.0.0.1",
        "port": port,
        "base_url": f"http://127.0.0.1:{port}/v1",
        "health_path": engine.readiness.path,
        "health_status": engine.readiness.status,
        "models_path": engine.readiness.models_path or "",
        "model": name,
        "orchestrator_model": name,
        "listed_model": launching.listed_as(engine, model) if model is not None else "",
        "listed_as": engine.readiness.listed_as,
        "served": list(served_names(engine, choice, model)),
        "server": f"{BACKEND}/{engine.name}",
        "route_server": f"to-{engine.name}/{engine.name}" if _routed(loaded, engine.name) else "",
        "managed": True,
        "state_file": f"{launching.RUNTIME}/{engine.name}/state",
        "cgroup": _control_group(loaded, engine.name),
        "order_file": f"{CONTROL}/done/{engine.name}",
        "start_timeout": engine.start_timeout,
        "stop_timeout": engine.stop_timeout,
        "needs": {"gpu": asked.gpu, "vram": asked.vram, "memory": asked.memory, "gpus": asked.gpus},
        "environment": variable_prefix(engine.name),
        "tensor_parallel": tensor_parallel(engine, choice),
        # An engine that binds models at run time starts without them, and takes each when it arrives.
        **({"awaits": awaits, "binds": engine.binds_models == "start"} if awaits else {}),
    }


def _remote(loaded: LoadedSpec, remote: Remote) -> dict[str, Any]:
    """An endpoint elsewhere: an engine that may be chosen, or one that only routes lead to.

    The latter is looked at for the status; the gateway sends requests to it in any case.
    """
    routed = remote.engine and _routed(loaded, remote.name)
    return {
        "name": remote.name,
        # The gateway's own listener for it: the selector goes the way that requests go, and has no key.
        "host": f"unix:{remote.socket}",
        "port": 0,
        "base_url": remote.base_url,
        "health_path": MODELS,
        "health_status": 200,
        "models_path": MODELS,
        "model": remote.model,
        "orchestrator_model": remote.orchestrator_model,
        "server": f"{BACKEND}/{remote.name}" if remote.engine else "",
        "route_server": f"to-{remote.name}/{remote.name}" if routed else "",
        "managed": False,
        "selectable": remote.engine,
        "environment": variable_prefix(remote.name) if remote.engine else "",
    }


def _routed(loaded: LoadedSpec, name: str) -> bool:
    return any(route.to == name for route in loaded.spec.gateway.routes)


def _control_group(loaded: LoadedSpec, name: str) -> str:
    """Where the kernel says whether any process of an engine is there."""
    if loaded.spec.init == "sysv":
        return f"/sys/fs/cgroup/{SLICE}/{name}/service"
    return f"/sys/fs/cgroup/{SLICE}.slice/{name}.service"


def variable_prefix(name: str) -> str:
    """What the names of an engine's variables begin with, as people know them."""
    return FAMILIAR.get(name, name.upper().replace("-", "_"))
