"""The selector's files: environment files, hal-control's words, its own state, tokens. None may break it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services import terminal
from services.selector import commands, control, environment, gateway, hardware, probe, store, tokens
from services.selector.config import Config, EngineConfig, Needs
from services.selector.core.events import BY_HAND, OrderDone, OrderFailed, Saved, Unit, UnitSeen, Verb
from services.selector.environment import VariableError, applied

ROOT = Path(__file__).resolve().parents[2]
STATE_FILE = "/var/lib/hal/selector.env"
GIB = 1 << 30


def engine(name: str, port: int, **changes: object) -> EngineConfig:
    made = EngineConfig(
        name,
        "127.0.0.1",
        port,
        f"http://127.0.0.1:{port}/v1",
        "/health",
        200,
        "/v1/models",
        "m",
        "m",
        f"engines/{name}",
    )
    return made._replace(**changes)  # type: ignore[arg-type]


VLLM = engine("vllm", 8000, environment="VLLM", served=("m", "other"), tensor_parallel="2")
OLLAMA = engine(
    "ollama", 11434, environment="OLLAMA", listed_as="{model_name}:latest", listed_model="m:latest"
)
OPENAI = engine("openai", 0, environment="OPENAI_COMPATIBLE", managed=False)._replace(
    host="unix:/run/x.sock", base_url="https://api.example.com/openai/v1"
)
CONFIG = Config("auto", (VLLM, OLLAMA, OPENAI), "/g", "/s")


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


# Hardware


@pytest.mark.parametrize(
    ("needs", "text", "words"),
    [
        (Needs(memory=GIB), "memory 524288\n", "it takes 1.0 GiB of memory, and the machine has 512 MiB"),
        (Needs(memory=GIB), "memory 2097152\n", ""),
        (Needs(memory=GIB), "", ""),
        (
            Needs("nvidia", 0, 0, 1),
            "memory 1\nnvidia 0\nintel 1\n",
            "there is no NVIDIA GPU (but 1 of Intel)",
        ),
        (Needs("nvidia", 0, 0, 4), "nvidia 2\n", "it takes 4 NVIDIA GPUs, and there are 2"),
        (Needs("nvidia", 90 * GIB, 0, 1), f"nvidia 1\nvram nvidia {80 * GIB}\n", "90.0 GiB of GPU memory"),
        (Needs("nvidia", 90 * GIB, 0, 2), f"nvidia 2\nvram nvidia {80 * GIB}\nvram nvidia {80 * GIB}\n", ""),
        (Needs("nvidia", 90 * GIB, 0, 1), "nvidia 1\n", ""),
        (Needs("amd", 90 * GIB, 0, 1), f"amd 2\nvram amd {8 * GIB}\n", ""),
    ],
)
def test_what_the_hardware_lacks(needs: Needs, text: str, words: str) -> None:
    found = hardware.lacking(needs, hardware.parse(text))
    assert words in found and bool(words) == bool(found)


@given(
    st.text()
    | st.lists(st.sampled_from(["memory", "nvidia", "vram", "amd", "1", "x", "\n", " "])).map(" ".join)
)
def test_any_hardware(text: str) -> None:
    found = hardware.parse(text)
    assert hardware.words(found).isprintable()
    assert isinstance(hardware.lacking(Needs("nvidia", GIB, GIB, 2), found), str)


def test_an_endpoint_elsewhere_takes_nothing() -> None:
    assert hardware.fits(CONFIG.engines, hardware.parse("memory 1\n"))["openai"] == ""


# Services


@pytest.mark.parametrize(
    ("said", "outcome", "alive", "state"),
    [
        ("ready", "", True, Unit.READY),
        ("starting", "", True, Unit.STARTING),
        ("stopped", "", True, Unit.UNKNOWN),
        ("", "", True, Unit.UNKNOWN),
        ("ready", "", False, Unit.FAILED),
        ("failed", "", False, Unit.FAILED),
        ("failed", "stop 0", False, Unit.STOPPED),
        ("ready", "stop 0", False, Unit.STOPPED),
        ("ready", "stop 1", False, Unit.FAILED),
        ("stopped", "", False, Unit.STOPPED),
        ("", "", False, Unit.STOPPED),
        ("ready", "", None, Unit.READY),
        ("nonsense", "", None, Unit.UNKNOWN),
    ],
)
def test_how_a_service_is(said: str, outcome: str, alive: bool | None, state: str) -> None:
    assert control.seen(said, "words", outcome, alive)[0] == state


@given(st.text(), st.text(), st.text(), st.sampled_from([True, False, None]))
def test_any_words_of_a_service(said: str, message: str, outcome: str, alive: bool | None) -> None:
    assert control.seen(said, message, outcome, alive)[0] in vars(Unit).values()


def files_of(tmp_path: Path) -> EngineConfig:
    (tmp_path / "group").mkdir()
    return engine(
        "a", 1, state_file=str(tmp_path / "s"), cgroup=str(tmp_path / "group"), order_file=str(tmp_path / "o")
    )


def put(path: Path, text: str) -> None:
    """As hal-control does it: a file of its own, in the place of the old one."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def test_a_stop_is_done_when_nothing_is_left(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    events = tmp_path / "group/cgroup.events"
    put(tmp_path / "o", "stop 0\n")
    put(events, "populated 1\nfrozen 0\n")
    put(tmp_path / "s", "ready serving\n")
    assert service.look(0) == [UnitSeen("a", Unit.READY, "serving")]
    service.ordered(Verb.STOP, 0)
    assert service.look(1) == [UnitSeen("a", Unit.READY, "serving")], "an older outcome is no answer"
    put(tmp_path / "o", "stop 0\n")
    assert service.look(2) == [UnitSeen("a", Unit.READY, "serving")], "a process is left"
    put(events, "populated 0\n")
    assert service.look(3)[0] == OrderDone("a", Verb.STOP)
    assert service.look(4) == [UnitSeen("a", Unit.STOPPED, "stopped")]


def test_a_stop_by_hand_is_told_from_one_of_hal_control(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    put(tmp_path / "group/cgroup.events", "populated 0\n")

    def tell(name: str, text: str, at: int) -> None:
        put(tmp_path / name, text)
        os.utime(tmp_path / name, ns=(at, at))

    tell("s", "stopped stopped\n", 1)
    assert service.look(0) == [UnitSeen("a", Unit.STOPPED, BY_HAND)], "hal-control did nothing"
    tell("o", "stop 0\n", 2)
    assert service.look(1) == [UnitSeen("a", Unit.STOPPED, "stopped")], "it was hal-control, just now"
    tell("o", "start 0\n", 3)
    assert service.look(2) == [UnitSeen("a", Unit.STOPPED, "stopped")], "it ended without a word"
    tell("s", "stopped stopped\n", 4)
    assert service.look(3) == [UnitSeen("a", Unit.STOPPED, BY_HAND)], "it ran since, and somebody ended it"


def test_a_start_that_fails_and_one_that_takes_its_time(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    put(tmp_path / "s", "stopped stopped\n")
    service.ordered(Verb.START, 0)
    put(tmp_path / "o", "start 5\n")
    found = service.look(1)
    assert isinstance(found[0], OrderFailed) and "status 5" in found[0].reason
    service.ordered(Verb.START, 2)
    put(tmp_path / "o", "start 0\n")
    assert service.look(3) == [
        OrderDone("a", Verb.START),
        UnitSeen("a", Unit.STARTING, control.BEING_STARTED),
    ]
    put(tmp_path / "group/cgroup.events", "populated 1\n")
    assert service.look(20) == [UnitSeen("a", Unit.STARTING, control.BEING_STARTED)]
    put(tmp_path / "s", "starting reading\n")
    assert service.look(21) == [UnitSeen("a", Unit.STARTING, "reading")]


def test_a_start_says_what_is_known_of_the_one_before(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    group = tmp_path / "group/cgroup.events"
    put(group, "populated 0\n")
    put(tmp_path / "s", "failed the port is taken\n")
    assert service.look(0) == [UnitSeen("a", Unit.FAILED, "the port is taken")]
    service.ordered(Verb.START, 1)
    words = f"{control.BEING_STARTED}; the last time: the port is taken"
    assert service.look(1.1) == [UnitSeen("a", Unit.STARTING, words)]
    put(group, "populated 1\n")
    assert service.look(1.2) == [UnitSeen("a", Unit.STARTING, words)]
    put(group, "populated 0\n")
    (found,) = service.look(1.3)
    assert found == UnitSeen("a", Unit.FAILED, "the port is taken"), "it came and went without a word"
    service.ordered(Verb.START, 2)
    put(tmp_path / "o", "start 5\n")
    assert service.look(2.1)[1] == UnitSeen("a", Unit.FAILED, "the port is taken"), (
        "it was not started at all"
    )


def test_a_launcher_that_says_that_it_is_no_use(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    put(tmp_path / "group/cgroup.events", "populated 0\n")
    put(tmp_path / "s", "unable no GPU\n")
    assert service.look(0) == [UnitSeen("a", Unit.FAILED, "no GPU", lasting=True)]
    put(tmp_path / "group/cgroup.events", "populated 1\n")
    put(tmp_path / "s", "starting reading\n")
    assert service.look(1) == [UnitSeen("a", Unit.STARTING, "reading")]
    assert probe.own_words(str(tmp_path / "s")) == "reading"


def test_orders_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "absent"):
        with pytest.raises(control.OrderError, match="hal-control does not run"):
            control.give(str(tmp_path / path), Verb.START, "a")


# What is kept

saved = st.builds(
    Saved,
    configured=st.lists(st.sampled_from(["auto", "a", "b"])).map(tuple),
    policy=st.sampled_from(["", "auto", "a"]),
    desired=st.sampled_from(["", "a"]),
    back=st.none() | st.tuples(st.just("auto"), st.just("a")),
    active=st.sampled_from(["", "a"]),
    resident=st.sampled_from(["", "b"]),
    drained=st.booleans(),
)


@given(saved)
def test_what_is_kept_comes_back(value: Saved) -> None:
    assert store.parse(store.dump(value).encode()) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_state_file(content: bytes) -> None:
    assert store.parse(content) is None


@given(saved, st.integers(min_value=0, max_value=400))
def test_a_cut_state_file_is_none(value: Saved, at: int) -> None:
    text = store.dump(value).encode()
    assert store.parse(text[: min(at, len(text) - 3)]) is None


@given(saved, st.sampled_from(Saved._fields), json_values)
def test_a_state_file_with_another_value(value: Saved, field: str, other: object) -> None:
    data = {"version": store.VERSION, **value._asdict(), field: other}
    found = store.parse(json.dumps(data).encode())
    assert found is None or isinstance(found, Saved)


WRITER = """\
import sys
from services.selector import store
from services.selector.core.events import Saved
number = 0
while True:
    number += 1
    assert not store.save(sys.argv[1], Saved(("auto",), desired=str(number % 2) * 50))
    if number == 1:
        print(flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.007, 0.013, 0.02, 0.031, 0.04])
def test_a_kill_at_any_instant_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "state.json"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    found, problem = store.load(str(path))
    assert problem == "" and found is not None and found.desired in ("0" * 50, "1" * 50)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert "No such file" in store.save(str(tmp_path / "absent/state.json"), Saved(()))
    assert store.load(str(tmp_path / "absent/state.json")) == (None, "")


# The rest


@given(st.binary())
@example(b"[" * 100_000)
def test_any_command(data: bytes) -> None:
    try:
        assert commands.parse(data)["do"] in commands.COMMANDS
    except commands.CommandError as error:
        assert error.code == 2


@given(json_values)
def test_any_json_command(value: object) -> None:
    with pytest.raises(commands.CommandError):
        commands.parse(json.dumps(value).encode())


@given(st.text(), st.sampled_from(["tokens.map", "scopes.map"]))
def test_any_map_of_tokens(text: str, name: str) -> None:
    try:
        for key, value in tokens.parse(text, name):
            assert f"{key} {value}".isprintable() and " " not in key + value
    except tokens.TokensError as error:
        assert str(error).startswith(name)


def test_tokens_are_read() -> None:
    line = f"{'A' * 64} alice:60:4:domains"
    assert tokens.parse(f"# x\n{line}\n", "tokens.map") == [("A" * 64, "alice:60:4:domains")]
    assert tokens.parse("alice/finance 1\n", "scopes.map") == [("alice/finance", "1")]
    for wrong in (f"{'a' * 64} alice:60:4:all", "A a:1:1:all", f"{line}\n{line}"):
        with pytest.raises(tokens.TokensError):
            tokens.parse(wrong, "tokens.map")


@given(st.text())
def test_any_table_of_the_gateway(text: str) -> None:
    found = gateway.open_requests(text, "a")
    assert found is None or found >= 0
    assert isinstance(gateway.map_files(text), frozenset)


def test_open_requests_are_counted() -> None:
    text = "# pxname,svname,qcur,qmax,scur,smax,\nengines,a,1,2,3,4,\nengines,b,,2,0,4,\n"
    assert gateway.open_requests(text, "a") == 4
    assert gateway.open_requests(text, "b") == 0
    assert gateway.open_requests(text, "c") is None
    assert gateway.map_files("# id (file)\n-1 (/etc/t.map) pattern loaded\n") == {"/etc/t.map"}


@given(st.binary())
def test_any_reason_of_an_endpoint_elsewhere(value: bytes) -> None:
    found = probe.header(b"HTTP/1.1 503 X\r\nX-HAL-Reason: " + value + b"\r\n\r\n", probe.WHY)
    assert found.isprintable() and len(found) <= probe.LONGEST_WHY


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_time_spans(seconds: float, text: str) -> None:
    assert terminal.span(seconds) == text


def test_a_death_is_seen_once(tmp_path: Path) -> None:
    service = control.Service(files_of(tmp_path))
    service.look(0)
    assert not service.died, "it was never there"
    put(tmp_path / "group/cgroup.events", "populated 1\n")
    service.look(1)
    assert not service.died
    put(tmp_path / "group/cgroup.events", "populated 0\n")
    service.look(2)
    assert service.died
    service.look(3)
    assert not service.died


def test_a_group_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    assert control.changes_of(str(tmp_path)) == -1
