"""Other ways to boot the same bits, the production variant, and what outlives a boot."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import AuthenticationError

from hal.machine.boot import Wishes
from tests.appliance.conftest import TOKEN, Appliance, Boot, Build, Image
from tests.tiny_model import ANSWER


def ask(appliance: Appliance, key: str = "none") -> str | None:
    answer = appliance.openai(key).chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=16, temperature=0
    )
    return answer.choices[0].message.content


def test_state_outlives_a_reboot(image: Image, boot_image: Boot, tmp_path: Path) -> None:
    with boot_image(image, directory=tmp_path) as appliance:
        host = appliance.ssh()
        host.check_output("echo kept > /var/lib/hal/note && touch /tmp/gone && sync")
        host.run("systemctl poweroff")
        appliance.vm.wait_end(appliance.deadline(20))
    with boot_image(image, directory=tmp_path) as appliance:
        host = appliance.ssh()
        assert host.file("/var/lib/hal/note").content_string == "kept\n"
        assert not host.file("/tmp/gone").exists


def test_a_larger_disk_is_a_larger_state(image: Image, boot_image: Boot, tmp_path: Path) -> None:
    def change(plan):  # type: ignore[no-untyped-def]
        with plan.files.disk.open("r+b") as disk:
            disk.truncate(plan.files.disk.stat().st_size + (1 << 30))
        return plan

    with boot_image(image, directory=tmp_path, change=change) as appliance:
        # Not every base has a df that is told what to print.
        size = appliance.ssh().check_output("df -k /var/lib/hal | tail -n 1").split()[1]
    assert int(size) > 900 << 10


def test_the_uki_boots_under_uefi_with_a_tpm(image: Image, boot_image: Boot) -> None:
    with boot_image(image, wishes=Wishes(port=0, firmware="ovmf", tpm=True)) as appliance:
        appliance.wait_ready(60)
        assert appliance.ssh().file("/sys/class/tpm/tpm0").exists
        assert ask(appliance) == ANSWER


EVERYTHING = """
init: {init}
gateway:
  tokens: [{{name: tests, sha256: {token}, rate: 600, concurrency: 8}}]
  remotes: [{{name: elsewhere, base_url: https://10.0.2.2:9/v1, model: m, credential: api-key}}]
  routes:
    - {{path_pattern: /v1/*bed*ings, to: llamacpp}}
    - {{priority: 1, domain: legal, header: {{X-Team: lawyers}}, to: elsewhere}}
"""
"""A gateway with all that it can do at once: regular expressions, Lua and TLS inside its sandbox."""


@pytest.fixture(scope="module", params=["systemd", "sysv"])
def production(request: pytest.FixtureRequest, build_image: Build, write_spec: Callable[..., Path]) -> Image:
    more = EVERYTHING.format(init=request.param, token=hashlib.sha256(TOKEN.encode()).hexdigest())
    return build_image(write_spec(f"tiny-production-{request.param}", "production", more))


def test_production_answers_only_with_a_token_and_has_no_way_in(production: Image, boot_image: Boot) -> None:
    with boot_image(production) as appliance:
        appliance.wait_ready(60)
        with pytest.raises(AuthenticationError) as refused:
            ask(appliance)
        assert "message" in refused.value.response.json()["error"]
        with pytest.raises(AuthenticationError):
            ask(appliance, "another-token")
        assert ask(appliance, TOKEN) == ANSWER
        assert appliance.get("/api/v1/inference/status").status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert (
            appliance.get("/v1/embeddings", headers=bearer)
            .headers["content-type"]
            .startswith("application/json")
        )
        elsewhere = appliance.get("/legal/v1/models", headers=bearer | {"X-Team": "lawyers"})
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (503, "credential_missing")
        log = appliance.vm.serial()
    assert appliance.plan.ssh_port is None
    assert "login:" not in log
    assert TOKEN not in log
    if production.loaded.spec.base == "buildroot":  # its kernel has no driver for the line
        assert log == ""


def test_production_does_not_listen_for_ssh(production: Image, boot_image: Boot) -> None:
    from dataclasses import replace

    from hal.machine.command import Forward
    from hal.machine.qemu import free_port

    port = free_port()

    def change(plan):  # type: ignore[no-untyped-def]
        machine = replace(plan.machine, forwards=(*plan.machine.forwards, Forward(port, 22)))
        return replace(plan, machine=machine)

    with boot_image(production, change=change) as appliance:
        appliance.wait_gateway()
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.settimeout(10)
            # QEMU's user network accepts for the guest and closes when the guest refuses.
            assert connection.recv(16) == b""
