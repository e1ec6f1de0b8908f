"""Engine files: loading, every way in which one can be wrong, and the environment they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hal.engines import DIRECTORY, Engine, available_engines, load_any_engine, load_engine, served_model
from hal.engines.environment import engine_environment
from hal.engines.settings import Setting, setting_problem, setting_text
from hal.models import Model
from hal.spec.loading import EngineChoice, SpecError, load_spec, parse_spec

RAW: dict[str, Any] = yaml.safe_load((DIRECTORY / "llamacpp.yaml").read_text())


def written(folder: Path, **changes: Any) -> Path:
    """A folder with the engine `other`: llamacpp with some keys changed."""
    raw = {**RAW, "name": "other", **changes}
    (folder / "other.yaml").write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not ...}))
    return folder


def test_the_engines_that_hal_ships_are_valid() -> None:
    assert "llamacpp" in available_engines()
    found = [load_any_engine(name) for name in available_engines()]
    engines = [engine for engine in found if isinstance(engine, Engine)]
    assert [engine.name for engine in found if engine not in engines] == ["openai"]
    for numbers in ([engine.uid for engine in engines], [engine.port for engine in engines]):
        assert len(set(numbers)) == len(numbers)


def test_llamacpp() -> None:
    engine = load_engine("llamacpp")
    assert engine.uid == 911
    assert engine.command == ("/opt/llamacpp/bin/hal-llamacpp",)
    assert engine.readiness.path == "/health"
    assert engine.artifacts["x86_64"][0].project == "xllamacpp"


def test_the_environment_of_starter() -> None:
    loaded = load_spec("starter")
    engine = loaded.engines[0]
    environment = engine_environment(engine, loaded.choice(engine), loaded.served(engine), loaded.spec)
    assert environment == {
        "LLAMACPP_ALIAS": "smollm2-135m",
        "LLAMACPP_CONTEXT_LENGTH": "2048",
        "LLAMACPP_HOST": "127.0.0.1",
        "LLAMACPP_MARKER": "",
        "LLAMACPP_MODEL": "/srv/models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf",
        "LLAMACPP_PARALLEL": "1",
        "LLAMACPP_PORT": "8080",
        "LLAMACPP_THREADS": "0",
    }
    assert list(environment) == sorted(environment)


def test_a_spec_changes_the_environment(tmp_path: Path) -> None:
    text = """
appliance: {name: a, version: 1.0.0}
engines: {other: {port: 8099, settings: {context_length: 512, exact: true, note: "a b"}}}
models: [smollm2-135m]
machine: {cpus: 3}
"""
    extra = {
        "exact": {"type": "bool", "default": False, "summary": "x"},
        "note": {"type": "str", "default": "none", "summary": "x"},
        "share": {"type": "float", "default": 0.5, "summary": "x"},
    }
    environment = {
        "A": "{port} {context_length} {exact}",
        "J": '{"n": "{note}", "s": {share}}',
        "C": "{cpus}",
    }
    folder = written(tmp_path, settings={**RAW["settings"], **extra}, environment=environment)
    loaded = parse_spec(text, Path("a.yaml"), engines=folder)
    (engine,) = loaded.engines
    assert engine_environment(engine, loaded.choice(engine), None, loaded.spec) == {
        "A": "8099 512 true",
        "C": "3",
        "J": '{"n": "a b", "s": 0.5}',
    }


def test_wrong_settings_do_not_reach_an_environment() -> None:
    loaded = load_spec("starter")
    engine = loaded.engines[0]
    choice = EngineChoice(name="llamacpp", settings={"threads": -1, "thread": 1})
    with pytest.raises(SpecError) as caught:
        engine_environment(engine, choice, None, loaded.spec)
    assert caught.value.details == (
        "engines.llamacpp.settings.thread: unknown key (did you mean threads?)",
        "engines.llamacpp.settings.threads: must be at least 0, not -1",
    )


def test_engines_in_another_folder(tmp_path: Path) -> None:
    assert available_engines(written(tmp_path)) == ("other",)
    assert load_engine("other", tmp_path).name == "other"
    with pytest.raises(SpecError, match="there is no engine 'llamacpp'; engines: other"):
        load_engine("llamacpp", tmp_path)
    with pytest.raises(SpecError, match=r"there is no engine 'llamacp' \(did you mean llamacpp\?\)"):
        load_engine("llamacp")


def test_what_an_engine_serves_is_the_first_model_it_reads() -> None:
    engine = load_engine("llamacpp")
    source = {"kind": "file", "path": "f"}
    files = [{"name": "f", "size": 1, "sha256": "a" * 64, "source": source}]
    models = [
        Model.model_validate({"name": name, "format": weights, "files": files})
        for name, weights in (("a", "safetensors"), ("b", "gguf"), ("c", "gguf"))
    ]
    served = served_model(engine, models)
    assert served is not None
    assert served.name == "b"
    assert served_model(engine, models[:1]) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"port": "8080"}, "port: must be a whole number, not '8080'"),
        ({"port": 80}, "port: must be at least 1024, not 80"),
        ({"uid": ...}, "uid: is required"),
        ({"user": "Ärger"}, "user: must be an engine's name: small letters, digits and hyphens"),
        ({"name": "another"}, "name: must be other, as the file is named"),
        ({"dialects": ["opnai"]},
         "dialects[0]: must be one of openai, ollama, not 'opnai' (did you mean openai?)"),
        ({"formats": "gguf"}, "formats: must be a list, not 'gguf'"),
        ({"stop_timout": 3}, "stop_timout: unknown key (did you mean stop_timeout?)"),
        ({"start_timeout": 0}, "start_timeout: must be at least 1, not 0"),
        ({"state_directory": "/var/lib/x"}, "state_directory: must be a relative path"),
        ({"state_directory": "../x"}, "state_directory: must be a relative path"),
        ({"readiness": {"path": "health"}}, "readiness.path: must be a path that begins with /"),
        ({"resources": {"gpu": "no", "memory": "1X"}},
         "resources.gpu: must be one of required, optional, none, not 'no' (did you mean none?)"),
        ({"resources": {"gpu": "none", "memory": "1X"}},
         "resources.memory: must be a size, such as 512M, 2G or 4GiB"),
        ({"environment": {"A": 1}}, "environment.A: must be text, not 1: put it in quotes"),
        ({"environment": {"a": "1"}}, "environment.a: must be the name of an environment variable"),
        ({"environment": {"A": "a\nb"}}, "environment.A: must be one line of text"),
        ({"environment": {"A": "{thread}"}},
         "environment.A: {thread} is neither port, model_path, model_name, model_marker, cpus nor a setting"),
        ({"settings": {"port": {"type": "int", "default": 1, "summary": "x"}}},
         "settings.port: is a placeholder that hal fills in itself"),
        ({"settings": {"n": {"type": "int", "default": "1", "summary": "x"}}},
         "settings.n.default: must be a whole number, not '1'"),
        ({"settings": {"n": {"type": "integer", "default": 1, "summary": "x"}}},
         "settings.n.type: must be one of bool, int, float, str, count, not 'integer' (did you mean int?)"),
        ({"settings": {"n": {"type": "int", "default": 1, "sumary": "x"}}},
         "settings.n.sumary: unknown key (did you mean summary?)"),
        ({"command": []}, "command: must not be empty"),
        ({"command": ["llama"]}, "command[0]: must be the absolute path of a program"),
        ({"command": ["/bin/x", "${NOPE}"]}, "command[1]: ${NOPE} is not in `environment`"),
        ({"artifacts": {"arm": []}}, "artifacts.arm: must be one of x86_64, aarch64, not 'arm'"),
        ({"artifacts": {"x86_64": [{"kind": "wheel", "projcet": "x"}]}},
         "artifacts.x86_64[0].projcet: unknown key (did you mean project?)"),
        ({"files": [{"source": "a", "path": "/b"}]}, "files[0].path: must be a relative path"),
        ({"files": [{"source": "a", "path": "b", "mode": 493}]},
         "files[0].mode: must be text, not 493: put it in quotes"),
        ({"sandbox": {"MemoryDenyWriteExecute": {"value": "no"}}},
         "sandbox.MemoryDenyWriteExecute.reason: is required"),
        ({"sandbox": {"a b": {"value": "no", "reason": "x"}}},
         "sandbox.a b: must be the name of a systemd directive"),
    ],
)  # fmt: skip
def test_errors_of_an_engine_file(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    folder = written(tmp_path, **changes)
    with pytest.raises(SpecError) as caught:
        load_engine("other", folder)
    told = [line.removeprefix(f"{folder / 'other.yaml'}:").partition(": ") for line in caught.value.details]
    assert expected in [problem for _, _, problem in told]
    assert all(line.isdigit() for line, _, _ in told)
    assert caught.value.message.startswith(f"{folder / 'other.yaml'} is not a valid engine file: ")


def test_two_engines_may_not_share_what_only_one_can_have(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "llamacpp.yaml").write_text(yaml.safe_dump(RAW))
    (tmp_path / "arm.yaml").write_text(
        yaml.safe_dump({**RAW, "name": "arm", "uid": 940, "port": 8090, "settings": {}, "environment": {},
                        "artifacts": {"aarch64": [{"kind": "wheel", "project": "x"}]}})
    )  # fmt: skip
    text = """
appliance: {name: a, version: 1.0.0}
engines:
  llamacpp:
  other:
  arm: {settings: {a: 1}}
models: [smollm2-135m]
"""
    with pytest.raises(SpecError) as caught:
        parse_spec(text, Path("a.yaml"), engines=tmp_path)
    assert caught.value.details == (
        "a.yaml:5: engines.other: other and llamacpp both have the user number 911",
        "a.yaml:5: engines.other.port: other and llamacpp cannot both listen on port 8080",
        "a.yaml:6: engines.arm: arm exists on aarch64 only, and arch is x86_64",
        "a.yaml:6: engines.arm.settings.a: unknown key; arm has no settings",
    )


@pytest.mark.parametrize(
    ("declared", "value", "problem"),
    [
        ({"type": "bool", "default": True}, 1, "must be true or false, not 1"),
        ({"type": "bool", "default": True}, False, None),
        ({"type": "int", "default": 1}, 1.5, "must be a whole number, not 1.5"),
        ({"type": "int", "default": 1}, True, "must be a whole number, not true"),
        ({"type": "float", "default": 1}, 2, None),
        ({"type": "float", "default": 1, "max": 1}, 1.5, "must be at most 1, not 1.5"),
        ({"type": "str", "default": "a"}, 1, "must be text, not 1"),
        ({"type": "str", "default": "a", "values": ["auto", "half"]}, "haf",
         "must be one of auto, half, not 'haf' (did you mean half?)"),
        ({"type": "str", "default": "a", "values": ["auto", "half"]}, "half", None),
    ],
)  # fmt: skip
def test_settings_have_types_ranges_and_choices(
    declared: dict[str, Any], value: Any, problem: str | None
) -> None:
    assert setting_problem(Setting(summary="x", **declared), value) == problem


def test_settings_as_text() -> None:
    assert [setting_text(value) for value in (True, 2048, 0.5, "x y")] == ["true", "2048", "0.5", "x y"]
