"""Ollama in a guest: the unit, its API on loopback and through the gateway, and what happens when it dies.

The archive is the stand-in of the tests, or the real one: `pytest … --artifact ollama=FILE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import ollama as client
import pytest
from testinfra.host import Host

from tests.appliance.conftest import Appliance, Boot, Build, Image
from tests.conftest import Archive
from tests.tiny_model import ANSWER

QUESTION = [{"role": "user", "content": "Hi"}]
LOCAL = "http://127.0.0.1:11434"


@pytest.fixture(scope="module")
def image(build_image: Build, write_spec: Callable[..., Path], ollama: Archive) -> Image:
    spec = write_spec(
        "tiny-ollama", engines=f"[{{ollama: {{version: {ollama.version}}}}}]", more="selector: {wait: 2}\n"
    )
    return build_image(spec, ollama.option)


@pytest.fixture(scope="module")
def appliance(image: Image, boot_image: Boot) -> Iterator[Appliance]:
    with boot_image(image) as found:
        print(f"gateway {found.wait_gateway():.1f} s, ready {found.wait_ready(60):.1f} s")
        yield found


@pytest.fixture(scope="module")
def host(appliance: Appliance) -> Host:
    return appliance.ssh()


def inside(host: Host, path: str) -> str:
    """What Ollama itself answers, asked from within the guest."""
    program = f"import urllib.request as r; print(r.urlopen('{LOCAL}{path}', timeout=30).read().decode())"
    return host.check_output("python3 -c %s", program)


def processes(host: Host, unit: str = "ollama") -> list[str]:
    """The process ids of a unit, the launcher's first."""
    found = host.run(f"cat /sys/fs/cgroup/engines.slice/{unit}.service/cgroup.procs")
    return found.stdout.split() if found.rc == 0 else []


def test_the_unit_is_active_under_its_own_user(host: Host) -> None:
    assert host.check_output("systemctl is-active ollama") == "active"
    assert host.user("ollama").uid == 913
    users = {host.check_output(f"stat -c %U /proc/{pid}") for pid in processes(host)}
    assert users == {"ollama"}
    assert "serving tiny" in host.check_output("systemctl show --property=StatusText ollama")


def test_it_answers_and_lists_the_model_without_a_pull(host: Host, ollama: Archive) -> None:
    assert inside(host, "/").startswith("Ollama is running")
    version = json.loads(inside(host, "/api/version"))["version"]
    assert ollama.stand_in == version.endswith("stand-in")
    assert [model["name"] for model in json.loads(inside(host, "/api/tags"))["models"]] == ["tiny:latest"]
    journal = host.check_output("journalctl --no-pager --unit=ollama")
    assert "registered the model tiny from /srv/models/tiny/tiny.gguf" in journal
    assert "pull" not in journal


def test_it_listens_on_loopback_only(host: Host) -> None:
    lines = host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
    addresses = {line.split()[3] for line in lines}
    assert "127.0.0.1:11434" in addresses
    assert {address for address in addresses if not address.startswith("127.")} == {"*:7001", "*:22"}


def test_the_selector_serves_through_it(appliance: Appliance) -> None:
    status = appliance.status()
    assert (status["backend"], status["model"], status["healthy"]) == ("ollama", "tiny", True)


def test_the_openai_client(appliance: Appliance) -> None:
    assert [model.id for model in appliance.openai().models.list()] == ["tiny:latest"]
    answer = appliance.openai().chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.content == ANSWER


def test_the_ollama_client(appliance: Appliance) -> None:
    talk = client.Client(host=appliance.url, timeout=240)
    assert [model.model for model in talk.list().models] == ["tiny:latest"]
    options = {"num_predict": 16, "temperature": 0}
    assert talk.chat("tiny", QUESTION, options=options).message.content == ANSWER
    pieces = [
        part.message.content or "" for part in talk.chat("tiny", QUESTION, options=options, stream=True)
    ]
    assert "".join(pieces) == ANSWER


def test_an_unknown_model_is_a_404_that_names_it(appliance: Appliance) -> None:
    with pytest.raises(client.ResponseError) as refused:
        client.Client(host=appliance.url, timeout=60).chat("absent", QUESTION)
    assert refused.value.status_code == 404
    assert "absent" in refused.value.error and "not found" in refused.value.error


def test_a_pull_fails_and_says_so(host: Host) -> None:
    """An engine has no way out: a model comes with the image or not at all."""
    done = host.run("OLLAMA_HOST=127.0.0.1:11434 HOME=/tmp /opt/ollama/bin/ollama pull absent")
    assert done.rc != 0
    assert "Error" in done.stderr and "manifest" in done.stderr


def test_a_web_page_and_another_host_name_are_no_matter(appliance: Appliance) -> None:
    headers = {"Host": "appliance.example", "Origin": "https://page.example"}
    assert httpx.get(f"{appliance.url}/api/tags", headers=headers, timeout=60).status_code == 200


def test_a_killed_engine_comes_back_and_nothing_of_it_is_left(appliance: Appliance, host: Host) -> None:
    assert client.Client(host=appliance.url, timeout=240).chat("tiny", QUESTION, options={"num_predict": 1})
    before = processes(host)
    assert len(before) >= 3, "the launcher, the server and the process that computes"
    server = host.check_output(f"pgrep --parent {before[0]}").split()[0]
    host.check_output(f"kill -9 {server}")

    def back() -> bool:
        now = processes(host)
        return bool(now) and not set(now) & set(before) and appliance.status()["healthy"]

    appliance.vm.wait(back, appliance.deadline(30), "Ollama, started again")
    journal = host.check_output("journalctl --no-pager --unit=ollama")
    assert "the engine ended by itself, killed by signal 9" in journal
    assert journal.count("registered the model tiny") == 1, "its models outlive it"


def test_a_stop_leaves_no_process_and_closes_its_api(appliance: Appliance, host: Host) -> None:
    assert client.Client(host=appliance.url, timeout=240).chat("tiny", QUESTION, options={"num_predict": 1})
    host.check_output("systemctl stop ollama")
    assert host.check_output("systemctl show --property=Result --value ollama") == "success"
    assert processes(host) == []
    assert host.run("pgrep --uid ollama").stdout == ""
    appliance.vm.wait(lambda: not appliance.status()["healthy"], appliance.deadline(10), "the selector")
    refused = appliance.get("/api/tags")
    assert (refused.status_code, refused.json()["code"]) == (503, "no_engine_expected")
    host.check_output("systemctl start ollama")
    assert host.check_output("systemctl is-active ollama") == "active"
