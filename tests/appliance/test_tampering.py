"""What was changed is not run: flipped bytes and wrong hashes, each in a machine of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hal.machine.boot import Plan
from hal.sandbox import Sandbox
from tests.appliance.conftest import Appliance, Boot, Image

SECTOR, BLOCK = 512, 4096


def partition(disk: Path, label: str, tools: Sandbox) -> int:
    """Where the partition with this label begins, in bytes."""
    table = json.loads(tools.run(["sfdisk", "--json", str(disk)], readable=[disk]).stdout)
    partitions = table["partitiontable"]["partitions"]
    return int(next(part["start"] for part in partitions if part.get("name") == label)) * SECTOR


def flip(disk: Path, offset: int) -> None:
    """Change one bit of the byte at `offset`."""
    with disk.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def ended(appliance: Appliance) -> str:
    """The serial log of a machine that has to end by itself."""
    appliance.vm.wait_end(appliance.deadline(20))
    return appliance.vm.serial()


@pytest.fixture
def root_block(image: Image) -> Callable[[str, Plan], int]:
    """Where on a plan's disk a block of a file of the root lies."""

    def find(path: str, plan: Plan) -> int:
        start = partition(plan.files.disk, image.built.manifest["image"], image.tools)
        command = f'for path; do dump.erofs --offset={start} --path="$path" -e "$0" || true; done'
        # Where /usr/sbin is a link; dump.erofs follows none.
        paths = [path, path.replace("/sbin/", "/bin/")]
        text = image.tools.run(
            ["sh", "-uc", command, str(plan.files.disk), *paths], readable=[plan.files.disk]
        )
        # A row of the extent table: `0: 0.. 4096 | 4096 : 123456.. 127552 | 4096`.
        found = re.search(r"^\s*0:.*:\s*(\d+)\.\.", text.stdout, re.MULTILINE)
        assert found, text.stdout
        return start + int(found[1])

    return find


def test_a_wrong_root_hash_stops_in_the_initrd(image: Image, boot_image: Boot) -> None:
    def change(plan: Plan) -> Plan:
        root_hash = image.built.manifest["root"]["root_hash"]
        wrong = ("0" if root_hash[0] != "0" else "1") + root_hash[1:]
        return replace(plan, files=replace(plan.files, cmdline=plan.files.cmdline.replace(root_hash, wrong)))

    with boot_image(image, change=change) as appliance:
        log = ended(appliance)
    assert "hal-init: root: dm-verity refused it: wrong root hash or altered disk; not booting" in log
    assert "systemd" not in log


def test_a_changed_first_block_of_the_root_stops_in_the_initrd(image: Image, boot_image: Boot) -> None:
    def change(plan: Plan) -> Plan:
        flip(plan.files.disk, partition(plan.files.disk, image.built.manifest["image"], image.tools) + 1100)
        return plan

    with boot_image(image, change=change) as appliance:
        log = ended(appliance)
    assert "dm-verity refused it" in log


def test_a_byte_changed_in_a_program_of_the_root_ends_the_machine(
    image: Image, boot_image: Boot, root_block: Callable[[str, Plan], int]
) -> None:
    def change(plan: Plan) -> Plan:
        flip(plan.files.disk, root_block("/usr/sbin/haproxy", plan))
        return plan

    with boot_image(image, change=change) as appliance:
        log = ended(appliance)
    assert re.search(r"verity: .*data block \d+ is corrupted", log)
    assert "Kernel panic - not syncing: dm-verity device corrupted" in log


def test_a_byte_changed_in_the_model_is_not_served(image: Image, boot_image: Boot) -> None:
    (pack,) = (pack for pack in image.built.manifest["packs"] if pack["kind"] == "model")

    def change(plan: Plan) -> Plan:
        start = partition(plan.files.disk, pack["label"], image.tools)
        flip(plan.files.disk, start + pack["data_blocks"] // 2 * BLOCK + 7)
        return plan

    with boot_image(image, change=change) as appliance:
        appliance.wait_gateway()
        host = appliance.ssh()
        appliance.vm.wait(
            lambda: (
                "failed" in host.run("systemctl show --property=Result,NRestarts llamacpp").stdout
                or "exit-code" in host.run("systemctl show --property=Result llamacpp").stdout
            ),
            appliance.deadline(10),
            "the engine's failure",
        )
        journal = host.check_output("journalctl --no-pager --unit=llamacpp")
        # The engine may have failed before the selector was there to say so.
        appliance.vm.wait(
            lambda: "healthy" in appliance.status(), appliance.deadline(10), "the selector's status"
        )
        assert appliance.status()["healthy"] is False
        assert appliance.get("/health").status_code == 503
        answer = appliance.get("/v1/models", timeout=240)  # it waits for an engine first
        assert answer.status_code == 503
        assert "error" in answer.json()
    assert "/srv/models/" in journal
    assert "verity" in appliance.vm.serial()
