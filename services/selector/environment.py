"""The familiar names: LLM_BACKEND, VLLM_MODEL and others, from environment files.

/etc/hal/selector.env is part of the image, /var/lib/hal/selector.env is what somebody wants otherwise. Most
names are facts of the image (which port an engine listens on, how many GPUs share its model, where an
endpoint elsewhere is): they may be written down, and are refused where they say something else than the
image. What can be changed while it runs is LLM_BACKEND, and the models' names: which one must be listed, and
what the status tells.

The file's form is that of systemd.exec(5), `EnvironmentFile=`, without its continued lines: NAME=value,
comments, single and double quotes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .config import AUTO, Config, EngineConfig

LARGEST_FILE = 65536
BACKEND = "LLM_BACKEND"
TARGET = "UV_CUBE_AGENT_TARGET_URL"
MODEL, ORCHESTRATOR = "_MODEL", "_ORCHESTRATOR_MODEL"
BASE_URL, KEY, TENSOR_PARALLEL = "_BASE_URL", "_API_KEY", "_TENSOR_PARALLEL"

FAMILIAR = {"vllm": "VLLM", "ollama": "OLLAMA", "openai": "OPENAI_COMPATIBLE"}
"""Engines whose names are known even in an image that has none of them: then the message can say so."""

LONGEST_MODEL = 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_ESCAPED = re.compile(r'\\(["\\`$])')
_LOOPBACK = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\])(?::([0-9]{1,5}))?(?:/v1)?/?")


class VariableError(Exception):
    """A file cannot be used; the message has the file, the line, and what is allowed."""


class Variable(NamedTuple):
    """A variable, and where it stands."""

    name: str
    value: str
    file: str
    line: int

    def refused(self, words: str) -> VariableError:
        """The error for this variable; its value is never part of it, unless `words` has it."""
        return VariableError(f"{self.file}:{self.line}: {self.name}: {words}")


def parse(text: str, file: str) -> list[Variable]:
    """The variables of an environment file, in its order; of a name given twice the last counts.

    Raises:
        VariableError: a line is none of those.
    """
    found: dict[str, Variable] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        name = name.rstrip(" \t").removeprefix("export ").strip(" \t")
        if not equals or not _NAME.fullmatch(name):
            raise VariableError(f"{file}:{number}: not NAME=value")
        text_of = _unquoted(value.strip(" \t"))
        if text_of is None:
            raise VariableError(f"{file}:{number}: {name}: a quote is not closed, or text follows it")
        if not text_of.isprintable():
            raise VariableError(f"{file}:{number}: {name}: must be one line of text")
        found.pop(name, None)
        found[name] = Variable(name, text_of, file, number)
    return list(found.values())


def _unquoted(value: str) -> str | None:
    """The text of a value: as it stands, or inside quotes; None where the quotes do not match."""
    if not value or value[0] not in "\"'":
        for mark in (" #", "\t#"):  # a comment behind a plain value, as shells have it
            value = value.partition(mark)[0]
        return value.rstrip(" \t")
    if value[0] == "'":
        inner, closed, rest = value[1:].partition("'")
        return inner if closed and _nothing(rest) else None
    index = 1
    while index < len(value) and value[index] != '"':
        index += 2 if value[index] == "\\" else 1
    if index >= len(value) or not _nothing(value[index + 1 :]):
        return None
    return _ESCAPED.sub(r"\1", value[1:index])


def _nothing(rest: str) -> bool:
    return not rest.strip(" \t") or rest.lstrip(" \t").startswith("#")


class Wanted(NamedTuple):
    """What the files ask for: the configuration with their models, the policy (None: none), and its place."""

    config: Config
    backend: str | None
    source: str


def applied(config: Config, variables: list[Variable]) -> Wanted:
    """The configuration with the variables in place; later ones win.

    Raises:
        VariableError: a name that is not known, a value that is not allowed, or a name that does not count
            in this file.
    """
    backend: Variable | None = None
    target: Variable | None = None
    engines = {engine.name: engine for engine in config.engines}
    prefixes = {engine.environment: engine.name for engine in config.engines if engine.environment}
    for variable in variables:
        if variable.name == BACKEND:
            backend = variable
            _check_backend(variable, config)
            continue
        if variable.name == TARGET:
            _trusted(variable, config)
            target = variable
            continue
        prefix, suffix = _split(variable.name)
        name = prefixes.get(prefix, "")
        if suffix == KEY:
            # Not even whether it is set is told of its value.
            raise variable.refused(_key_words(config))
        familiar = prefix in (*prefixes, *FAMILIAR.values())
        if not familiar or (name and variable.name not in known(config)):
            raise variable.refused(f"the name is not known; known are {', '.join(known(config))}")
        if not name:
            there = ", ".join(engine.name for engine in config.engines)
            raise variable.refused(f"this image has no such engine; it has {there}")
        engines[name] = _changed(variable, suffix, engines[name], config)
    config = config._replace(engines=tuple(engines[engine.name] for engine in config.engines))
    if target is not None:
        chosen = _target(target, config)
        if backend is None or backend.value == AUTO:
            backend = target._replace(value=chosen)
        elif backend.value != chosen:
            raise target.refused(f"is {chosen}'s, and {BACKEND} says {backend.value}")
    if backend is None:
        return Wanted(config, None, "")
    return Wanted(config, backend.value, f"{backend.name} in {backend.file}")


def known(config: Config) -> list[str]:
    """Every name that counts in this image."""
    names = [BACKEND]
    for engine in config.engines:
        if engine.environment:
            ends = [BASE_URL, MODEL, ORCHESTRATOR]
            ends += [TENSOR_PARALLEL] if engine.tensor_parallel else []
            names += [engine.environment + end for end in ends]
    return [*names, TARGET]


def _split(name: str) -> tuple[str, str]:
    for suffix in (ORCHESTRATOR, MODEL, BASE_URL, KEY, TENSOR_PARALLEL):
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return "", ""


def _check_backend(variable: Variable, config: Config) -> None:
    allowed = [AUTO, *(engine.name for engine in config.engines)]
    if variable.value not in allowed:
        absent = " (not in this image)" if variable.value in (*FAMILIAR, "llamacpp") else ""
        raise variable.refused(f"{variable.value[:40]!r}{absent} is not one of {', '.join(allowed)}")


def _trusted(variable: Variable, config: Config) -> None:
    """Refuse what could send prompts elsewhere where it comes from a disk that the host can alter."""
    if not config.trusted_state and variable.file.startswith(f"{config.state_directory}/"):
        raise variable.refused(
            f"not taken from the state partition of a production image, which the host can alter; {BACKEND} "
            "and models' names are"
        )


def _changed(variable: Variable, suffix: str, engine: EngineConfig, config: Config) -> EngineConfig:
    if suffix in (MODEL, ORCHESTRATOR):
        return _with_model(variable, suffix, engine)
    _trusted(variable, config)
    if suffix == BASE_URL:
        _check_url(variable, engine)
    else:
        _check_tensor_parallel(variable, engine)
    return engine


def _with_model(variable: Variable, suffix: str, engine: EngineConfig) -> EngineConfig:
    model = variable.value
    if len(model) > LONGEST_MODEL or not _MODEL_NAME.fullmatch(model) or ".." in model:
        raise variable.refused("must be the name of a model: letters, digits and any of . _ : / @ + -")
    if engine.served and model not in engine.served:
        raise variable.refused(
            f"{engine.name} serves {', '.join(engine.served)} and nothing else: its model is bound when it "
            "starts, and is part of the image (`models` of the spec)"
        )
    if suffix == ORCHESTRATOR:
        return engine._replace(orchestrator_model=model)
    follows = engine.orchestrator_model == engine.model
    return engine._replace(
        model=model,
        listed_model=engine.listed(model),
        orchestrator_model=model if follows else engine.orchestrator_model,
    )


def _check_url(variable: Variable, engine: EngineConfig) -> None:
    if _same_url(variable.value, engine.base_url):
        return
    if engine.managed and not _LOOPBACK.fullmatch(variable.value):
        words = f"{engine.name} runs in this machine, on loopback"
    else:
        words = f"where {engine.name} is, is part of the image"
    raise variable.refused(f"{words}: only {engine.base_url} is allowed")


def _check_tensor_parallel(variable: Variable, engine: EngineConfig) -> None:
    if variable.value != engine.tensor_parallel:
        raise variable.refused(
            f"only {engine.tensor_parallel} is allowed: how many GPUs share the model is part of the image "
            f"(`engines.{engine.name}.settings.tensor_parallel_size` of the spec)"
        )


def _target(variable: Variable, config: Config) -> str:
    for engine in config.engines:
        if _same_url(variable.value, engine.base_url):
            return engine.name
    urls = ", ".join(engine.base_url for engine in config.engines)
    raise variable.refused(f"is no engine's URL: {urls} are")


def _same_url(one: str, other: str) -> bool:
    return _plain_url(one) == _plain_url(other)


def _plain_url(url: str) -> str:
    """A URL for comparison: without what means nothing (a slash at its end, /v1, a name of loopback)."""
    found = _LOOPBACK.fullmatch(url)
    return f"loopback:{int(found[1] or 80)}" if found else url.rstrip("/").removesuffix("/v1")


def _key_words(config: Config) -> str:
    remote = next((engine.name for engine in config.engines if not engine.managed), "openai")
    return (
        f"keys are never read from this file: give it as a credential, named by "
        f"`engines.{remote}.settings.credential` of the spec; only the gateway reads that"
    )
