"""A model on a disk of its own: served where it is attached, named as missing where it is not."""

from __future__ import annotations

import json

from hal.machine.boot import Wishes
from tests.appliance.conftest import Appliance, Boot, Build
from tests.appliance.test_boots import ask
from tests.tiny_model import ANSWER


def packs(appliance: Appliance) -> dict[str, tuple[str, str | None]]:
    report = json.loads(appliance.ssh().file("/run/hal/boot.json").content_string)
    return {pack["name"]: (pack["state"], pack.get("reason")) for pack in report["packs"]}


def test_a_model_on_a_disk_of_its_own(build_image: Build, write_spec, boot_image: Boot) -> None:  # type: ignore[no-untyped-def]
    image = build_image(write_spec("model-disk", more="    delivery: disk\n"))
    with boot_image(image) as appliance:
        appliance.wait_ready(60)
        assert ask(appliance) == ANSWER
        assert packs(appliance)["tiny"] == ("ok", None)
    with boot_image(image, wishes=Wishes(port=0, without_disks=("tiny",))) as appliance:
        appliance.wait_gateway(60)
        assert packs(appliance)["tiny"] == ("missing", "no partition has its label")
        assert appliance.get("/health").status_code == 503
