"""vLLM and Ollama in one guest, under systemd and under init scripts: minutes without KVM.

Both serve the same weights under the same name. Ollama's archive is the stand-in of the tests, or the real
one: `pytest … --artifact ollama=FILE`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import ollama as client
import pytest
from testinfra.host import Host

from tests import tiny_model
from tests.appliance.conftest import Appliance, Boot, Build
from tests.conftest import Archive
from tests.tiny_model import ANSWER

pytestmark = pytest.mark.large

QUESTION = [{"role": "user", "content": "Hi"}]
USERS = {"vllm": 912, "ollama": 913}
START = 300
"""Seconds with KVM; deadlines stretch them where the CPU is emulated."""

SPEC = """\
appliance: {{name: tiny-dual-{init}, version: 1.0.0}}
variant: debug
init: {init}
engines:
  vllm: {{settings: {{device: cpu, dtype: float32, served_model_names: tiny}}}}
  ollama: {{version: {version}}}
machine: {{memory: 8G}}
disk: {{state: 256M}}
models:
"""
MODEL = "  - name: {name}\n    format: {format}\n    files:\n"
FILE = "      - {{name: {name}, size: {size}, sha256: {sha256}, source: {{kind: file, path: {path}}}}}\n"


def file_entry(path: Path, directory: Path) -> str:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return FILE.format(name=path.name, size=len(content), sha256=digest, path=path.relative_to(directory))


@pytest.fixture(scope="module", params=["systemd", "sysv"])
def init(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def appliance(
    init: str,
    tmp_path_factory: pytest.TempPathFactory,
    build_image: Build,
    boot_image: Boot,
    ollama: Archive,
) -> Iterator[Appliance]:
    directory = tmp_path_factory.mktemp("dual")
    text = SPEC.format(init=init, version=ollama.version)
    text += MODEL.format(name="tiny-safetensors", format="safetensors")
    for file in sorted(tiny_model.write_safetensors(directory / "safetensors").iterdir()):
        text += file_entry(file, directory)
    text += MODEL.format(name="tiny", format="gguf")
    text += file_entry(tiny_model.write(directory / "tiny.gguf"), directory)
    (directory / "dual.yaml").write_text(text)
    with boot_image(build_image(directory / "dual.yaml", ollama.option)) as found:
        first = found.wait_ready(START)
        # Ollama is ready first, and serves.
        found.vm.wait(lambda: healthy(found, "vllm"), found.deadline(START), "vLLM")
        print(f"{init}: the first engine was ready after {first:.0f} s, both after {found.vm.uptime:.0f} s")
        yield found


@pytest.fixture(scope="module")
def host(appliance: Appliance) -> Host:
    return appliance.ssh()


def service(host: Host, init: str, name: str, verb: str) -> int:
    """Run a verb of an engine's unit or script; its exit status. A start is not waited for."""
    if init == "systemd":
        # It would block for the minutes that vLLM takes, longer than an idle ssh channel lives.
        option = "--no-block " if verb == "start" else ""
        return int(host.run(f"systemctl {option}{verb} {name}").rc)
    return int(host.run(f"/etc/init.d/S96{name} {verb}").rc)


def healthy(appliance: Appliance, name: str) -> bool:
    """Whether the selector finds that an engine answers and lists its model.

    Asked over HTTP and seldom: each ssh session takes seconds of the emulated CPU that the engine needs.
    """
    time.sleep(1)
    return f'hal_selector_engine_healthy{{engine="{name}"}} 1' in appliance.get("/metrics/selector").text


def served_by(appliance: Appliance, name: str) -> bool:
    status = appliance.status()
    return status["backend"] == name and status["healthy"] is True


def inside(host: Host, address: str) -> str:
    url = f"http://127.0.0.1:{address}"
    program = f"import urllib.request as r; print(r.urlopen('{url}', timeout=60).read().decode())"
    return host.check_output("python3 -c %s", program)


def test_each_runs_under_its_own_user_on_loopback(host: Host) -> None:
    for name, uid in USERS.items():
        assert host.run(f"pgrep --uid {uid}").rc == 0, name
    lines = host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
    addresses = {line.split()[3] for line in lines}
    assert {"127.0.0.1:8000", "127.0.0.1:11434"} <= addresses
    outside = {address for address in addresses if not address.startswith(("127.", "[::1]"))}
    assert {address.rpartition(":")[2] for address in outside} == {"7001", "22"}, "the gateway and ssh"


def test_both_list_their_model(host: Host) -> None:
    assert json.loads(inside(host, "11434/api/version"))["version"]
    assert [model["name"] for model in json.loads(inside(host, "11434/api/tags"))["models"]] == [
        "tiny:latest"
    ]
    names = {model["id"] for model in json.loads(inside(host, "8000/v1/models"))["data"]}
    assert {"tiny", "tiny-safetensors"} <= names


def test_the_selector_moves_between_them_and_api_follows_ollama(
    appliance: Appliance, host: Host, init: str
) -> None:
    assert service(host, init, "vllm", "stop") == 0
    appliance.vm.wait(lambda: served_by(appliance, "ollama"), appliance.deadline(15), "Ollama, selected")
    assert appliance.get("/api/tags").status_code == 200
    talk = client.Client(host=appliance.url, timeout=600)
    assert (
        talk.chat("tiny", QUESTION, options={"num_predict": 16, "temperature": 0}).message.content == ANSWER
    )

    assert service(host, init, "vllm", "start") == 0
    appliance.vm.wait(lambda: healthy(appliance, "vllm"), appliance.deadline(START), "vLLM")
    assert service(host, init, "ollama", "stop") == 0
    appliance.vm.wait(lambda: served_by(appliance, "vllm"), appliance.deadline(15), "vLLM, selected")
    refused = appliance.get("/api/tags")
    assert refused.status_code == 404
    assert refused.json()["code"] == "ollama_not_active"
    assert service(host, init, "ollama", "start") == 0
    appliance.vm.wait(lambda: healthy(appliance, "ollama"), appliance.deadline(30), "Ollama")
    assert appliance.get("/api/tags").status_code == 404, "Ollama runs, and vLLM serves"


def test_vllm_gives_the_answer_that_ollama_gave(appliance: Appliance) -> None:
    answer = appliance.openai().chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.content == ANSWER


def test_init_scripts_have_their_exit_codes(host: Host, init: str) -> None:
    if init != "sysv":
        pytest.skip("systemd has no init scripts")
    assert service(host, init, "ollama", "status") == 0
    assert service(host, init, "ollama", "start") == 0, "started twice"
    assert service(host, init, "ollama", "stop") == 0
    assert host.run("pgrep --uid ollama").stdout == ""
    assert service(host, init, "ollama", "stop") == 0, "stopped twice"
    assert service(host, init, "ollama", "status") == 3
    host.check_output("echo 99999 > /run/hal/ollama.pid")
    assert service(host, init, "ollama", "status") == 1, "a stale pid file"
    assert service(host, init, "ollama", "start") == 0
    assert service(host, init, "ollama", "restart") == 0
    assert service(host, init, "ollama", "status") == 0
