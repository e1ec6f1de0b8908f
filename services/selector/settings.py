"""All that the selector reads when it starts and when it is told to read anew, put together."""

from __future__ import annotations

import os
from typing import NamedTuple

from . import environment, store, tokens
from .config import Config, ConfigError, parse
from .environment import Variable, VariableError

CONFIG = "/etc/hal/selector.json"
LARGEST_FILE = 1_000_000


class Settings(NamedTuple):
    """The configuration in force; where its policy is from ("": the image); what was refused of it."""

    config: Config
    source: str = ""
    refused: str = ""


class Map(NamedTuple):
    """A map of the gateway, its entries, and whether they are others than those that it starts with."""

    path: str
    entries: list[tuple[str, str]]
    replaced: bool


def read(path: str, *, strict: bool) -> Settings:
    """The configuration at `path` with its environment files and the order that was commanded.

    `strict`: an environment file that is refused refuses all; else (there is nothing yet to go on with) it is
    left out, and `refused` says why.

    Raises:
        ConfigError: the configuration cannot be used, or something is refused.
    """
    base = parse(_text(path))
    base = reordered(base, store.load_names(preference_path(base)))
    if strict and base.routes_file:
        _check_routes(base.routes_file)
    variables: list[Variable] = []
    settings, refused = Settings(base), ""
    for file in base.env_files:
        try:
            text = _text(file)
        except FileNotFoundError:
            continue
        except PermissionError:
            problem = f"{file}: the selector's user may not read it: `chmod 644 {file}`"
        except (OSError, ValueError) as error:
            problem = f"{file}: {getattr(error, 'strerror', None) or 'not text'}"
        else:
            try:
                more = [*variables, *environment.parse(text, file)]
                wanted = environment.applied(base, more)
                config = wanted.config._replace(policy=wanted.backend or base.policy)
                variables, settings, problem = more, Settings(config, wanted.source), ""
            except VariableError as error:
                problem = str(error)
        if problem and strict:
            raise ConfigError(problem)
        refused = refused or problem
    return settings._replace(refused=refused)


def _check_routes(path: str) -> None:
    """Refuse routes that hal's build would refuse: the same code finds the same."""
    from .routechecks import refuse  # start-up does not need it
    from .routes import parse as parse_routes

    try:
        refuse(parse_routes(_text(path)))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def reordered(config: Config, names: tuple[str, ...]) -> Config:
    """The configuration with these engines first, in this order; names that it has not do not count."""
    order = [name for name in names if any(engine.name == name for engine in config.engines)]
    first = tuple(config.engine(name) for name in dict.fromkeys(order))
    return config._replace(engines=(*first, *(e for e in config.engines if e.name not in order)))


def preference_path(config: Config) -> str:
    """Where an order of preference is kept that somebody commanded; "" where nothing is kept."""
    return f"{os.path.dirname(config.state_path)}/preference.json" if config.state_path else ""  # noqa: PTH120


def maps(config: Config) -> list[Map]:
    """The gateway's maps of tokens as their files have them now.

    A debug image takes those of the state partition (`gateway/tokens.map` there) in place of its own; a
    production image does not, since the host could alter them.

    Raises:
        ConfigError: a file is not what it should be.
    """
    found = []
    for path in config.token_maps:
        other = f"{config.state_directory}/gateway/{os.path.basename(path)}"  # noqa: PTH119
        replaced = config.trusted_state and os.path.exists(other)  # noqa: PTH110
        try:
            found.append(Map(path, tokens.read(other if replaced else path), replaced))
        except tokens.TokensError as error:
            raise ConfigError(str(error)) from None
    return found


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs at start-up)
        return file.read(LARGEST_FILE)
