"""Operators and the selector: the command line, orders to engines, reloads, and what outlives a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.conftest import wait_for
from tests.services.gateways import later
from tests.services.pair import FIRST, SECOND, Pair, pair
from tests.services.switches import active, control
from tests.tiny_model import NAME

STATUS = "/api/v1/inference/status"


@pytest.fixture(scope="module")
def two(haproxy: Callable[[Path], list[str]], engine_pack: Path, tiny: Path) -> Iterator[Pair]:
    """Two engines that may both run; the selector has started them."""
    with pair(haproxy, engine_pack, tiny) as made:
        for name in ("control", "gateway", "selector"):
            made.start(name)
        wait_for(made.serves, "an engine serves")
        for name in (FIRST, SECOND):
            wait_for(lambda name=name: made.engine(name)["healthy"], f"{name} is healthy")
        assert made.cli("switch", FIRST, "--wait").returncode == 0
        yield made


@pytest.fixture
def both(two: Pair) -> Iterator[Pair]:
    """The same, as it was at first: the policy auto, and the first engine serving."""
    yield two
    (two.home / "var/lib/hal/selector.env").unlink(missing_ok=True)
    if "selector" not in two.processes:
        two.start("selector")
        wait_for(two.said, "the selector answers")
    assert two.cli("reload").returncode == 0
    two.cli("undrain")
    assert two.cli("policy", "auto", "--prefer", f"{FIRST},{SECOND}").returncode == 0
    assert two.cli("switch", FIRST, "--wait").returncode == 0


def test_status_is_a_table(both: Pair) -> None:
    lines = both.cli("status").stdout.splitlines()
    assert lines[0].split() == ["ENGINE", "ACTIVE", "HEALTHY", "STATE", "SINCE", "STREAMS", "REASON"]
    first = lines[1].split()
    assert first[:4] == [FIRST, "yes", "yes", "ready"]
    assert lines[2].split()[:4] == [SECOND, "no", "yes", "ready"]
    found = both.said()
    assert found["active"] == FIRST and found["serving"] and found["preference"] == [FIRST, SECOND]
    assert all(engine["streams"] == 0 for engine in found["engines"])


def test_a_switch_and_back(both: Pair) -> None:
    done = both.cli("switch", SECOND, "--wait")
    assert done.returncode == 0 and done.stdout.startswith(f"{SECOND} serves ("), done.stderr
    assert both.get(STATUS).json()["backend"] == SECOND
    assert both.get("/v1/models").json()["data"][0]["id"] == NAME
    done = both.cli("switch", FIRST)
    assert done.returncode == 0 and "hal-selector status" in done.stdout
    wait_for(lambda: both.serves() == FIRST, "it serves again")


def test_wrong_usage_is_told_in_a_line(both: Pair) -> None:
    done = both.cli("switch", "vllm")
    assert done.returncode == 2
    assert done.stderr == f"hal-selector: 'vllm' is not one of {FIRST}, {SECOND}\n"
    done = both.cli("policy", "vllm")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"auto, {FIRST}, {SECOND}" in done.stderr
    assert both.cli("policy", "--prefer", ",").returncode == 2
    assert both.cli("nonsense").returncode == 2
    assert both.cli("drain", SECOND).stderr == f"hal-selector: {SECOND} has no requests: {FIRST} is active\n"


def test_the_policy(both: Pair) -> None:
    assert both.cli("policy").stdout == f"auto (preference: {FIRST}, {SECOND})\n"
    assert both.cli("policy", SECOND).returncode == 0
    wait_for(lambda: both.serves() == SECOND, "the policy's engine serves")
    assert both.cli("policy", "auto", "--prefer", f"{FIRST},{SECOND}").returncode == 0


def test_preference_outlives_a_kill(both: Pair) -> None:
    done = both.cli("policy", "auto", "--prefer", f"{SECOND},{FIRST}")
    assert done.stdout == f"policy auto (preference: {SECOND}, {FIRST})\n", done.stderr
    both.kill("selector")
    both.start("selector")
    wait_for(lambda: both.said().get("preference") == [SECOND, FIRST], "the order is known again")


def test_a_command_outlives_a_kill(both: Pair) -> None:
    assert both.cli("switch", SECOND, "--wait").returncode == 0
    both.kill("selector")
    down = both.cli("status")
    assert down.returncode == 1 and down.stderr.startswith("hal-selector: the selector does not run; `")
    assert both.status_of("/v1/models") == 200, "requests go on without the selector"
    both.start("selector")
    wait_for(lambda: both.serves() == SECOND, "the commanded engine serves")
    assert both.said()["commanded"] == SECOND


def test_a_spoilt_state_file_is_no_command(both: Pair) -> None:
    both.kill("selector")
    (both.home / "var/lib/hal/selector/state.json").write_text('{"version": 1, "desired": ')
    both.start("selector")
    wait_for(lambda: both.serves() == FIRST, "the preferred engine serves")
    assert "state.json: not what the selector wrote" in both.log("selector")


def test_llm_backend_and_a_reload_are_a_switch(both: Pair) -> None:
    file = both.home / "var/lib/hal/selector.env"
    file.write_text(f"# mine\nLLM_BACKEND={SECOND}\n")
    assert both.cli("check", str(file)).returncode == 0
    assert both.cli("reload").returncode == 0
    wait_for(lambda: both.serves() == SECOND, "the engine of the file serves")
    assert both.said()["policy_from"] == f"LLM_BACKEND in {file}"


def test_sighup_is_a_reload(both: Pair) -> None:
    (both.home / "var/lib/hal/selector.env").write_text(f"LLM_BACKEND='{SECOND}'\n")
    os.kill(both.processes["selector"].pid, signal.SIGHUP)
    wait_for(lambda: both.serves() == SECOND, "the engine of the file serves")


def test_a_wrong_value_is_refused_and_all_goes_on(both: Pair) -> None:
    file = both.home / "var/lib/hal/selector.env"
    file.write_text("\nLLM_BACKEND=vllm\n")
    for command in (("reload",), ("check", str(file))):
        done = both.cli(*command)
        assert done.returncode == 1
        allowed = f"auto, {FIRST}, {SECOND}"
        assert done.stderr == (
            f"hal-selector: {file}:2: LLM_BACKEND: 'vllm' (not in this image) is not one of {allowed}\n"
        )
    assert both.serves() == FIRST
    # It does not keep the selector from starting either, and is told.
    both.kill("selector")
    both.start("selector")
    wait_for(lambda: both.serves() == FIRST, "it serves")
    assert f"{file}:2" in both.said()["refused"]
    assert "not taken:" in both.cli("status").stdout


def test_a_key_in_the_file_is_refused_and_never_repeated(both: Pair) -> None:
    (both.home / "var/lib/hal/selector.env").write_text("OPENAI_COMPATIBLE_API_KEY=Xylophone-4711\n")
    done = both.cli("reload")
    assert done.returncode == 1 and "credential" in done.stderr
    assert "Xylophone" not in done.stderr + both.log("selector") + json.dumps(both.said("explain"))


def test_explain_gives_reasons(both: Pair) -> None:
    both.cli("switch", SECOND, "--wait")
    text = both.cli("explain").stdout
    assert text.startswith(f"{SECOND} serves.\n") and "hardware: " in text and " of memory" in text
    found = both.said("explain")
    assert set(found["why"]) == {FIRST, SECOND} and all(found["why"].values())
    assert found["decisions"] and all(one["what"] for one in found["decisions"])


def test_drain_and_undrain(both: Pair) -> None:
    assert both.cli("drain").returncode == 0
    wait_for(lambda: both.status_of("/health") == 503, "nothing is served")
    assert "drained" in both.cli("status").stdout
    assert both.cli("undrain").returncode == 0
    wait_for(lambda: both.status_of("/health") == 200, "it serves again")


def test_an_engine_that_dies_is_replaced_and_started_again(both: Pair) -> None:
    pid = int((both.home / "cgroup" / FIRST / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: both.serves() == SECOND, "the other one serves", 10)
    wait_for(lambda: both.engine(FIRST)["healthy"], "it is started again", 30)


def test_routes_are_shown(both: Pair) -> None:
    assert both.cli("routes").stdout == "there are no routes: every request goes to the active engine\n"


def test_metrics_are_haproxys_and_the_selectors(both: Pair) -> None:
    text = both.get("/metrics").text
    assert "haproxy_backend_http_responses_total" in text
    assert f'hal_selector_engine_active{{engine="{FIRST}"}} 1' in text
    assert f'hal_selector_engine_state{{engine="{SECOND}",state="ready"}} 1' in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names)), "a series is there twice"
    both.cli("switch", SECOND, "--wait")
    again = both.get("/metrics").text
    assert f'hal_selector_switches_total{{engine="{SECOND}",cause="command",result="done"}}' in again
    own = both.get("/metrics/selector").text
    assert "hal_selector_serving 1" in own and "haproxy_" not in own


def test_metrics_while_haproxys_exporter_does_not_answer(both: Pair) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(both.home / "run/hal/selector/http.sock"))
        began = time.monotonic()
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.recv(100)
    assert head.startswith(b"HTTP/1.1 200") and time.monotonic() - began < 5


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"nonsense",
        b'{"do": "fly"}',
        b'{"do": "switch", "engine": 1}',
        b'{"do": []}',
    ],
)
def test_what_is_no_command_is_refused(both: Pair, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(both.home / "run/hal/selector/control.sock"))
        client.sendall(line + b"\n")
        answer = json.loads(client.makefile().read())
    assert answer["code"] == 2 and "\n" not in answer["error"]


def test_the_control_socket_is_its_owners(both: Pair) -> None:
    path = both.home / "run/hal/selector/control.sock"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_others_may_not_command(both: Pair) -> None:
    path = both.home / "run/hal/selector/control.sock"
    for directory in (both.home, path.parent):
        directory.chmod(0o755)
    path.chmod(0o666)
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])\n"
        's.sendall(b\'{"do": "drain"}\\n\')\n'
        "sys.stdout.buffer.write(s.recv(100))"
    )
    command = [
        "setpriv",
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        script,
    ]
    try:
        done = subprocess.run([*command, str(path)], capture_output=True)
    finally:
        path.chmod(0o600)
    assert done.stdout == b""
    assert both.status_of("/health") == 200 and not both.said()["drained"]


@pytest.mark.parametrize(
    "line",
    [
        "start",
        "stop",
        "start sshd",
        f"restart {FIRST}",
        f"stop {FIRST} now",
        "stop ../x",
        "; reboot",
        "stop *",
    ],
)
def test_hal_control_drops_what_is_no_order(both: Pair, line: str) -> None:
    before = both.log("control").count("dropped an order that is none")
    with (both.home / "run/hal/control/requests").open("w") as pipe:
        pipe.write(f"{line}\n")
    wait_for(lambda: both.log("control").count("dropped an order that is none") > before, "it is noted", 5)
    assert both.alive(FIRST) and both.alive(SECOND)


def test_hal_control_says_what_hardware_there_is(both: Pair) -> None:
    text = (both.home / "run/hal/control/hardware").read_text()
    words = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert int(words["memory"]) > 100_000 and {"nvidia", "amd", "intel"} <= set(words)


def test_orders_fail_with_a_reason_while_hal_control_is_down(both: Pair) -> None:
    both.kill("control", signal.SIGKILL)
    both.systemctl("stop", SECOND)
    wait_for(lambda: "stopped by hand" in both.cli("explain").stdout, "the selector leaves it alone", 20)
    assert both.cli("switch", SECOND).returncode == 0
    wait_for(lambda: "hal-control does not run" in both.log("selector"), "the selector says so", 20)
    both.start("control")
    wait_for(lambda: both.engine(SECOND)["healthy"], "the order is given again", 30)


def test_requests_that_nobody_can_answer_are_refused_at_once(both: Pair) -> None:
    both.systemctl("stop", SECOND)
    both.systemctl("stop", FIRST)
    wait_for(lambda: both.said()["hopeless"], "the selector knows", 20)
    began = time.monotonic()
    answer = both.get("/v1/models")
    assert time.monotonic() - began < 1
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert answer.json()["error"]["code"] == "no_engine_expected"
    assert "stopped by hand" not in answer.text, "clients are not told of what goes on inside"
    text = both.cli("status").stdout
    assert f"requests are refused at once: {FIRST} was stopped by hand; {SECOND} was stopped by hand" in text
    assert "hal_selector_hopeless 1" in both.get("/metrics/selector").text
    assert both.cli("switch", SECOND).returncode == 0
    assert both.get("/v1/models").status_code == 200, "requests wait again as soon as one is started"
    both.systemctl("start", FIRST)
    wait_for(lambda: both.engine(FIRST)["healthy"], "the other one is there, too", 20)
    assert not both.said()["hopeless"]


def test_a_selector_that_is_killed_right_after_a_command_keeps_it(both: Pair) -> None:
    """The answer comes after the command is on the disk: from there on a kill loses nothing."""
    for number in range(6):
        name = (SECOND, FIRST)[number % 2]
        assert "error" not in control(both, "switch", engine=name)
        time.sleep(0.002 * number)
        both.kill("selector", signal.SIGKILL)
        both.start("selector")
        wait_for(lambda name=name: active(both) == name, f"{name} serves")
        assert control(both, "status")["commanded"] == name


def test_memory_of_the_selector(both: Pair) -> None:
    text = Path(f"/proc/{both.processes['selector'].pid}/status").read_text()
    rss = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
    assert rss < 40_000, f"{rss} KiB"


@pytest.fixture
def one_at_a_time(haproxy: Callable[[Path], list[str]], engine_pack: Path, tiny: Path) -> Iterator[Pair]:
    """Two engines of which only one may run."""
    with pair(haproxy, engine_pack, tiny, "{wait: 20, drain: 2, exclusive: true}") as made:
        for name in ("control", "gateway", "selector"):
            made.start(name)
        wait_for(lambda: made.serves() == FIRST, "the first engine serves")
        yield made


def test_an_exclusive_switch_stops_first_and_a_failed_one_goes_back(one_at_a_time: Pair) -> None:
    pair = one_at_a_time
    assert pair.alive(FIRST) and not pair.alive(SECOND)
    done = pair.cli("switch", SECOND, "--wait")
    assert done.returncode == 0, done.stderr
    assert pair.alive(SECOND) and not pair.alive(FIRST)
    assert pair.engine(FIRST)["state"] == "stopped"
    (pair.home / "units" / f"{FIRST}.broken").touch()
    done = pair.cli("switch", FIRST, "--wait", "--timeout", "50")
    assert done.returncode == 1 and done.stderr.startswith(f"hal-selector: {FIRST} does not serve"), (
        done.stderr
    )
    wait_for(lambda: pair.serves() == SECOND, "the old one is back", 30)


def test_tokens_are_reloaded_and_outlive_a_restart_of_the_gateway(
    haproxy: Callable[[Path], list[str]], engine_pack: Path, tiny: Path
) -> None:
    def digest(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()

    def accepted(token: str) -> bool:
        return bool(made.status_of("/v1/models", headers={"Authorization": f"Bearer {token}"}) == 200)

    with pair(haproxy, engine_pack, tiny, tokens=f"[{{name: old, sha256: {digest('old')}}}]") as made:
        for name in ("control", "gateway", "selector"):
            made.start(name)
        wait_for(made.serves, "an engine serves")
        assert accepted("old") and not accepted("new")
        file = made.home / "var/lib/hal/gateway/tokens.map"
        file.parent.mkdir()
        file.write_text("nonsense\n")
        done = made.cli("reload")
        assert done.returncode == 1 and f"{file}:1: not SHA256" in done.stderr
        assert accepted("old")
        file.write_text(f"{digest('new').upper()} new:0:0:all\n")
        assert made.cli("reload").returncode == 0
        assert accepted("new") and not accepted("old")
        made.kill("gateway", signal.SIGTERM)
        made.start("gateway")
        wait_for(lambda: accepted("new"), "the new token is known to the new gateway")
        assert not accepted("old")
        assert "new" not in made.log("selector").replace("reloaded", "")


def test_engines_start_when_their_model_arrives(
    haproxy: Callable[[Path], list[str]], engine_pack: Path, tiny: Path
) -> None:
    with pair(haproxy, engine_pack, tiny, "{wait: 20}") as made:
        run = made.home / "run/hal"
        for name in ("models", "provisioner"):
            (run / name).mkdir()
        file = made.home / "etc/hal/selector.json"
        data = json.loads(file.read_text())
        for engine in data["engines"]:
            engine["awaits"] = [{"model": NAME, "marker": str(run / "models" / NAME)}]
        data["provision_status"] = str(run / "provisioner/status.json")
        file.write_text(json.dumps(data))

        def provisions(**more: object) -> None:
            entry = {"name": NAME, "state": "fetching", "reason": "", "error": "", "bytes": 43, "size": 100}
            fresh = run / "provisioner/new"
            fresh.write_text(json.dumps({"version": 1, "models": [{**entry, **more}]}))
            fresh.rename(run / "provisioner/status.json")

        provisions(eta=3600)
        for name in ("control", "gateway", "selector"):
            made.start(name)
        wait_for(lambda: made.said().get("hopeless"), "the selector knows that nothing comes soon")
        answer = made.get("/v1/models")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_engine_expected")
        reason = f"the model {NAME} has not arrived: fetching, 43 %"
        found = made.get(STATUS).json()
        assert found["reason"] == reason
        assert found["models"] == [{"name": NAME, "state": "fetching", "reason": reason, "percent": 43}]
        assert f"missing: {reason}" in made.cli("status").stdout
        assert reason in made.cli("explain").stdout
        assert f'hal_selector_model_ready{{model="{NAME}"}} 0' in made.get("/metrics/selector").text
        done = made.cli("switch", FIRST)
        assert (done.returncode, done.stderr) == (1, f"hal-selector: {FIRST} cannot serve yet: {reason}\n")
        assert not made.alive(FIRST) and not made.alive(SECOND)

        provisions(bytes=99, eta=3)
        wait_for(lambda: not made.said()["hopeless"], "it is about to be there", 3)
        waiting = later(lambda: made.get("/v1/models"))
        time.sleep(0.5)
        (run / "models" / NAME).touch()
        began = time.monotonic()
        wait_for(lambda: made.alive(FIRST) and made.alive(SECOND), "they are started", 3)
        print(f"\nstarted {time.monotonic() - began:.2f} s after the model was there")
        assert waiting().status_code == 200
        assert f'hal_selector_model_ready{{model="{NAME}"}} 1' in made.get("/metrics/selector").text
        (run / "models" / NAME).unlink()
        time.sleep(7)
        assert made.serves() and made.alive(FIRST) and made.alive(SECOND), "a model that goes stops nothing"
