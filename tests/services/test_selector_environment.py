"""The selector's environment files: every line is taken or refused with its reason, whatever it holds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.selector import environment, probe
from services.selector.config import Config
from services.selector.environment import VariableError, applied
from tests.services.selector_configs import CONFIG

STATE_FILE = "/var/lib/hal/selector.env"


def wanted(text: str, file: str = STATE_FILE, config: Config = CONFIG) -> environment.Wanted:
    return applied(config, environment.parse(text, file))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b  ", "b"),
        ("export A=b", "b"),
        ("A=b c # comment", "b c"),
        ("A=b#c", "b#c"),
        ("A='b # c'", "b # c"),
        ('A="b \\"c\\" \\$d \\n"', 'b "c" $d \\n'),
        ('A="b" # comment', "b"),
        ("A=", ""),
        ("A=''", ""),
        ("A=b\r", "b"),
    ],
)
def test_lines_of_an_environment_file(line: str, value: str) -> None:
    (found,) = environment.parse(f"# comment\n; another\n\n{line}\n", "f")
    assert (found.name, found.value, found.line) == ("A", value, 4)


@pytest.mark.parametrize("line", ["A", "=b", "1A=b", "A='b", 'A="b', "A='b'c", 'A="b\\', "A B=c", "A=\x07"])
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(VariableError, match=r"^f:1: "):
        environment.parse(line, "f")


@given(st.text())
@example('A="\\')
def test_any_environment_file(text: str) -> None:
    try:
        for variable in environment.parse(text, "f"):
            assert variable.value.isprintable() and variable.name
    except VariableError as error:
        assert str(error).startswith("f:") and str(error).isprintable()


names = st.sampled_from([*environment.known(CONFIG), "VLLM_API_KEY", "X", "OPENAI_COMPATIBLE_API_KEY"])
values = st.text() | st.sampled_from(["auto", "vllm", "m", "http://localhost:8000", "2", "openai"])


@given(st.lists(st.tuples(names, values)), st.booleans())
def test_any_variables(pairs: list[tuple[str, str]], trusted: bool) -> None:
    variables = [environment.Variable(name, value, STATE_FILE, 1) for name, value in pairs]
    try:
        found = applied(CONFIG._replace(trusted_state=trusted), variables)
    except VariableError as error:
        assert "\n" not in str(error)
    else:
        assert found.backend in (None, "auto", "vllm", "ollama", "openai")
        urls = [(e.name, e.host, e.port, e.base_url) for e in found.config.engines]
        assert urls == [(e.name, e.host, e.port, e.base_url) for e in CONFIG.engines], "prompts go elsewhere"


@given(st.text(min_size=1))
def test_no_key_is_ever_repeated(key: str) -> None:
    variable = environment.Variable("OPENAI_COMPATIBLE_API_KEY", f"sk-{key}", "f", 1)
    with pytest.raises(VariableError) as raised:
        applied(CONFIG, [variable])
    assert f"sk-{key}" not in str(raised.value) and "credential" in str(raised.value)


def test_the_backend_and_models() -> None:
    found = wanted("LLM_BACKEND=ollama\nOLLAMA_MODEL=llama3:8b\nVLLM_MODEL=other\n")
    assert (found.backend, found.source) == ("ollama", f"LLM_BACKEND in {STATE_FILE}")
    assert found.config.engine("ollama").listed_model == "llama3:8b"
    assert found.config.engine("ollama").orchestrator_model == "llama3:8b"
    assert found.config.engine("vllm").model == "other"
    two = wanted("OLLAMA_MODEL=a\nOLLAMA_ORCHESTRATOR_MODEL=b\n").config.engine("ollama")
    assert probe.wanted_models(two) == {"a:latest": "a", "b:latest": "b"}


def test_facts_of_the_image_may_be_written_down() -> None:
    text = (
        "VLLM_BASE_URL=http://localhost:8000\nVLLM_TENSOR_PARALLEL=2\nOLLAMA_BASE_URL=http://127.0.0.1:11434/\n"
        "OPENAI_COMPATIBLE_BASE_URL=https://api.example.com/openai/v1/\n"
    )
    assert wanted(text, "/etc/hal/selector.env").config == CONFIG


def test_a_target_url_names_the_engine() -> None:
    assert wanted("UV_CUBE_AGENT_TARGET_URL=http://127.0.0.1:11434", "/etc/x").backend == "ollama"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("LLM_BACKEND=llamacpp", "'llamacpp' (not in this image) is not one of auto, vllm, ollama, openai"),
        ("LLM_BACKEND=", "'' is not one of auto"),
        ("LLM_BACKENDS=vllm", "the name is not known; known are LLM_BACKEND, VLLM_BASE_URL"),
        ("OLLAMA_TENSOR_PARALLEL=2", "the name is not known"),
        ("VLLM_MODEL=x", "vllm serves m, other and nothing else"),
        ("OLLAMA_MODEL=../../etc", "must be the name of a model"),
        ("OLLAMA_MODEL=", "must be the name of a model"),
        ("VLLM_BASE_URL=http://10.0.0.1:8000/v1", "on loopback: only http://127.0.0.1:8000/v1 is allowed"),
        ("VLLM_BASE_URL=http://127.0.0.1:9/v1", "is part of the image: only http://127.0.0.1:8000/v1"),
        ("OPENAI_COMPATIBLE_BASE_URL=https://evil.example/v1", "is part of the image"),
        ("VLLM_TENSOR_PARALLEL=4", "only 2 is allowed"),
        ("UV_CUBE_AGENT_TARGET_URL=http://127.0.0.1:1", "is no engine's URL"),
        (
            "LLM_BACKEND=vllm\nUV_CUBE_AGENT_TARGET_URL=http://127.0.0.1:11434",
            "is ollama's, and LLM_BACKEND says vllm",
        ),
        ("OPENAI_COMPATIBLE_API_KEY=x", "give it as a credential"),
    ],
)
def test_wrong_values_are_refused_with_their_line(line: str, words: str) -> None:
    with pytest.raises(VariableError) as raised:
        wanted(line, "/etc/hal/selector.env")
    assert words in str(raised.value)
    assert str(raised.value).startswith(
        f"/etc/hal/selector.env:{line.count(chr(10)) + 1}: {line.splitlines()[-1].split('=')[0]}"
    )


@pytest.mark.parametrize(
    "name", ["VLLM_BASE_URL=http://127.0.0.1:8000", "UV_CUBE_AGENT_TARGET_URL=http://127.0.0.1:8000"]
)
def test_a_production_image_takes_no_url_from_its_state_partition(name: str) -> None:
    with pytest.raises(VariableError, match="which the host can alter"):
        wanted(name)
    wanted(name, config=CONFIG._replace(trusted_state=True))
