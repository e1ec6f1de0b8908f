"""What an engine's environment file holds in one appliance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hal.documents.document import SpecError
from hal.documents.wording import unknown_key
from hal.engines import PLACEHOLDER, Engine, RemoteEngine
from hal.engines.settings import setting_problem, setting_text
from hal.models import Model

if TYPE_CHECKING:
    from hal.spec.model import EngineChoice, Spec


def engine_environment(
    engine: Engine, choice: EngineChoice, model: Model | None, spec: Spec
) -> dict[str, str]:
    """The variables of an engine's environment file, sorted, each a line of text without quotes.

    `{port}`, `{model_path}`, `{model_name}`, `{model_marker}`, `{cpus}` and the names of settings are filled
    in; `model` is what the engine opens (`LoadedSpec.served`); its placeholders are empty where it is None.
    Other braces stay as they are, so that a value may be JSON.

    Raises:
        SpecError: a setting is unknown to the engine or out of its range (`load_spec` has told before,
            with the line).
    """
    wrong = [
        f"engines.{engine.name}.settings.{name}: {text}" for name, text in settings_problems(engine, choice)
    ]
    if wrong:
        raise SpecError(f"the settings of {engine.name} are not valid", details=tuple(wrong))
    values = {name: setting.default for name, setting in engine.settings.items()} | choice.settings
    filled = {name: setting_text(value) for name, value in values.items()} | {
        "port": str(choice.port or engine.port),
        "model_path": model.path if model else "",
        "model_name": model.name if model else "",
        "model_marker": model.marker if model else "",
        "cpus": str(spec.machine.cpus),
    }
    return {
        variable: PLACEHOLDER.sub(lambda found: filled[found[1]], text)
        for variable, text in sorted(engine.environment.items())
    }


def filled(text: str, engine: Engine, choice: EngineChoice) -> str:
    """A text of an engine's file with the names of settings, in braces, filled in."""
    values = {name: setting.default for name, setting in engine.settings.items()} | choice.settings
    return PLACEHOLDER.sub(lambda found: setting_text(values[found[1]]), text)


def settings_problems(engine: Engine | RemoteEngine, choice: EngineChoice) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings that a spec gives an engine: each setting's name, and the problem."""
    for name, value in choice.settings.items():
        if name in engine.settings:
            problem = setting_problem(engine.settings[name], value)
        elif engine.settings:
            problem = unknown_key(name, sorted(engine.settings))
        else:
            problem = f"unknown key; {engine.name} has no settings"
        if problem:
            yield name, problem
