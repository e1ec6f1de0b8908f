"""What hal's launcher is told of an engine, whatever the init system (services/engine reads it)."""

from __future__ import annotations

import json

from hal.engines import Engine
from hal.engines.gpu import gpu_of
from hal.models import Model
from hal.render.files import PROGRAM, RenderedFile, origin, text
from hal.spec.loading import LoadedSpec

LAUNCHER = "/usr/bin/hal-engine"
DIRECTORY = "/etc/hal/engines"
RUNTIME = "/run/hal/engines"
"""Where each engine has a directory of its own in which its launcher says how it is."""


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The launcher, and its configuration for each engine that says nothing to systemd itself."""
    launched = [engine for engine in loaded.engines if not engine.notifies]
    if not launched:
        return {}
    found = {LAUNCHER: RenderedFile(text("hal-engine", loaded).content, PROGRAM)}
    for engine in launched:
        found[f"{DIRECTORY}/{engine.name}.json"] = RenderedFile(launch_json(loaded, engine))
    return found


def command(engine: Engine) -> tuple[str, ...]:
    """What an init system starts: the engine's own command, or the launcher that starts it."""
    return engine.command if engine.notifies else (LAUNCHER, engine.name)


def bound_models(loaded: LoadedSpec, engine: Engine) -> tuple[Model, ...]:
    """The models that an engine serves: one that is bound at start, or all that are in a format it reads."""
    if engine.binds_models == "runtime":
        return tuple(model for model in loaded.models if model.format in engine.formats)
    served = loaded.served(engine)
    return (served,) if served is not None else ()


def listed_as(engine: Engine, model: Model) -> str:
    """How an engine's list of models names a model."""
    return engine.readiness.listed_as.replace("{model_name}", model.name)


def launch_json(loaded: LoadedSpec, engine: Engine) -> str:
    """The launcher's configuration for one engine; its keys are those of services/engine/config.py."""
    registration, gpu = engine.registration, gpu_of(engine, loaded.choice(engine))
    data = {
        "generated": origin(loaded),
        "name": engine.name,
        "command": list(engine.command),
        "environment_file": f"{DIRECTORY}/{engine.name}.env",
        "state_directory": f"/var/lib/{engine.state_directory}" if engine.state_directory else "",
        "host": "127.0.0.1",
        "port": loaded.port(engine),
        "readiness": {
            "path": engine.readiness.path,
            "status": engine.readiness.status,
            "models_path": engine.readiness.models_path or "",
        },
        "binds_models": engine.binds_models,
        "models": [
            {
                "name": model.name,
                "listed": listed_as(engine, model),
                "path": model.path,
                "sha256": model.files[0].sha256,
                "format": model.format,
                "marker": model.marker,
            }
            for model in bound_models(loaded, engine)
        ],
        "registration": None
        if registration is None
        else {
            "text": registration.text + "\n",
            "command": list(registration.command),
            "store": registration.store,
        },
        "start_timeout": engine.start_timeout,
        "stop_timeout": engine.stop_timeout,
        "devices": list(gpu.nodes) if gpu else [],
        "device_reason": f"the spec asks for {gpu.kind}" if gpu else "",
    }
    return json.dumps(data, indent=2) + "\n"
