"""/etc/hal/engines/NAME.json and NAME.env, which hal renders and nobody edits."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

DIRECTORY = "/etc/hal/engines"

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_LONE_VARIABLE = re.compile(r"\$(\w+)")
_ESCAPE = re.compile(r"\\(.)")


class LaunchError(Exception):
    """Why the engine cannot run, in one line."""


class AwaitedError(LaunchError):
    """It cannot yet: its model is still to arrive."""


class Model(NamedTuple):
    """A model: its name for clients, how the engine lists it, where it lies, its (first file's) digest.

    `marker` is the file that says that it has arrived and was found good; "" for a model of the image.
    """

    name: str
    listed: str
    path: str
    sha256: str
    format: str = "gguf"
    marker: str = ""

    @property
    def arrived(self) -> bool:
        """Whether an engine may open it."""
        return not self.marker or not missing(self.marker)


class Registration(NamedTuple):
    """How a model becomes known to a running engine: the content of a file, and a command that reads it.

    `{model_name}`, `{model_path}`, `{model_sha256}` and `{file}` in the values are filled in here. `store` is
    the variable that says where its store is, if models in Ollama's own form go into that instead.
    """

    text: str
    command: tuple[str, ...]
    store: str = ""


class Config(NamedTuple):
    """All that the launcher is told. Times are in seconds; empty paths mean that there is none.

    `binds_late`: the engine runs without its models and takes them in whenever they arrive.
    """

    name: str
    command: tuple[str, ...]
    environment_file: str
    state_directory: str
    host: str
    port: int
    health_path: str
    health_status: int
    models_path: str
    models: tuple[Model, ...]
    registration: Registration | None
    start_timeout: float
    stop_timeout: float
    devices: tuple[str, ...]
    device_reason: str
    binds_late: bool = False


def load(name: str, directory: str = DIRECTORY) -> Config:
    """The launcher's configuration for the engine `name`.

    Raises:
        LaunchError: there is none, or it cannot be used.
    """
    path = f"{directory}/{name}.json"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs at start-up)
            data: dict[str, Any] = json.load(file)
        registration = data["registration"]
        return Config(
            name=data["name"],
            command=tuple(data["command"]),
            environment_file=data["environment_file"],
            state_directory=data["state_directory"],
            host=data["host"],
            port=data["port"],
            health_path=data["readiness"]["path"],
            health_status=data["readiness"]["status"],
            models_path=data["readiness"]["models_path"],
            models=tuple(Model(**entry) for entry in data["models"]),
            registration=registration
            and Registration(
                registration["text"], tuple(registration["command"]), registration.get("store", "")
            ),
            start_timeout=data["start_timeout"],
            stop_timeout=data["stop_timeout"],
            devices=tuple(data["devices"]),
            device_reason=data["device_reason"],
            binds_late=data.get("binds_models") == "runtime",
        )
    except OSError as error:
        raise LaunchError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise LaunchError(f"{path}: {error}") from None
    except KeyError as error:
        raise LaunchError(f"{path}: the key {error} is missing") from None


def environment(config: Config, given: dict[str, str]) -> dict[str, str]:
    """The engine's environment: what the launcher was `given`, and over it its file's variables.

    Raises:
        LaunchError: the file cannot be read.
    """
    try:
        with open(config.environment_file, encoding="utf-8") as file:  # noqa: PTH123
            return {**given, **parse_environment(file.read())}
    except OSError as error:
        raise LaunchError(f"{config.environment_file}: {error.strerror}") from None


def parse_environment(text: str) -> dict[str, str]:
    """The variables of an environment file in the form that hal writes: NAME=value or NAME="quoted value"."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = _ESCAPE.sub(r"\1", value[1:-1])
        found[name] = value
    return found


def arguments(command: tuple[str, ...], variables: dict[str, str]) -> list[str]:
    """A command line with its variables filled in, as systemd does it (systemd.service(5), "Command lines").

    `${NAME}` within a word is the variable's text; a word that is `$NAME` becomes one word for each in the
    variable, and none where it is empty. Variables that are not set are empty.
    """
    found = []
    for word in command:
        lone = _LONE_VARIABLE.fullmatch(word)
        if lone:
            text = variables.get(lone[1], "")
            if '"' in text or "'" in text or "\\" in text:
                import shlex

                found += shlex.split(text)
            else:
                found += text.split()
        else:
            found.append(_VARIABLE.sub(lambda match: variables.get(match[1], ""), word))
    return found


def filled(text: str, model: Model, **more: str) -> str:
    """`text` with the placeholders of a model filled in."""
    values = {"model_name": model.name, "model_path": model.path, "model_sha256": model.sha256, **more}
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)


def missing(path: str) -> bool:
    """Whether there is nothing at `path`."""
    return not os.path.lexists(path) or not os.path.exists(path)  # noqa: PTH110
