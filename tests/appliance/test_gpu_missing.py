"""A spec asks for a GPU and the machine has none: a plain failure, never a silent run on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.appliance.conftest import Boot, Build
from tests.conftest import Archive

NODES = "/dev/nvidiactl, /dev/nvidia0, /dev/nvidia-uvm"


def test_the_unit_fails_within_seconds_and_names_the_nodes(
    build_image: Build, write_spec: Callable[..., Path], ollama: Archive, boot_image: Boot
) -> None:
    engines = f"[{{ollama: {{version: {ollama.version}, settings: {{gpu: nvidia}}}}}}]"
    image = build_image(write_spec("tiny-gpu", engines=engines, more="disk: {state: 256M}\n"), ollama.option)
    with boot_image(image) as appliance:
        appliance.wait_gateway()
        seen: list[dict[str, object]] = []

        def told() -> bool:
            seen.append(appliance.status())
            return "no GPU" in str(seen[-1].get("reason", ""))

        appliance.vm.wait(told, appliance.deadline(10), "the status that says why")
        assert seen[-1]["healthy"] is False
        assert NODES in str(seen[-1]["reason"])
        host = appliance.ssh()
        journal = host.check_output("journalctl --no-pager --unit=ollama")
        assert f"no GPU: the device nodes {NODES} missing (the spec asks for nvidia)" in journal
        assert "Failed with result 'exit-code'" in journal
        # systemd empties the text at each new try, so it is there most of the time, not always.
        appliance.vm.wait(
            lambda: "no GPU" in host.check_output("systemctl show --property=StatusText ollama"),
            appliance.deadline(10),
            "the unit's status text",
        )
        assert host.run("pgrep --uid ollama --full 'ollama serve'").stdout == "", "nothing ran on the CPU"
        assert appliance.get("/health").status_code == 503
        assert appliance.get("/v1/models").json()["error"]["code"] == "no_engine_ready"
