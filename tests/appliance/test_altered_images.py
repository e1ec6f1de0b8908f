"""Images that are not what was measured, built and booted: `hal verify` refuses each for its own reason.

All have the name and version of the honest image. What differs is one thing each, and everything that follows
from it is as a build makes it: hash trees, command line, UKI, disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hal import build as building
from hal.measure.explain import explain
from hal.render.files import RenderedFile
from hal.render.sysctl import PATH as A_FILE
from tests import tiny_model
from tests.appliance.conftest import TOKEN, Boot, Build, Image
from tests.appliance.evidence import WISHES, key_of, reasons, verify, wait
from tests.appliance.probing import altered
from tests.appliance.test_boots import EVERYTHING
from tests.services.gateways import digest

NAME = "tiny-production-systemd"
MORE = EVERYTHING.format(init="systemd", token=digest(TOKEN))


@pytest.fixture(scope="module")
def honest(build_image: Build, write_spec: Callable[..., Path]) -> Image:
    return build_image(write_spec(NAME, "production", MORE))


@pytest.fixture
def built(build_image: Build, honest: Image, tmp_path: Path) -> Callable[[str], Image]:
    """Builds the honest image's spec once more, with another text if one is given."""

    def made(text: str | None = None) -> Image:
        directory = honest.loaded.path.parent
        spec = directory / f"{tmp_path.name}.yaml"
        spec.write_text(text or honest.loaded.path.read_text())
        return build_image(spec, elsewhere=tmp_path / "out")

    return made


@dataclass(frozen=True)
class Alteration:
    """How an image comes about, and what is said of it: the checks that fail, with words of each."""

    make: Callable[[Callable[..., Image], Image], Image]
    wanted: dict[str, str]
    inputs: frozenset[str]
    """What `hal measure --explain` names."""


def one_byte(built: Callable[..., Image], honest: Image) -> Image:
    """Of a comment, in a file that nothing else is made of."""

    def change(files: dict[str, RenderedFile]) -> None:
        content = files[A_FILE].content
        files[A_FILE] = RenderedFile(content.replace("Generated", "generated", 1), files[A_FILE].mode)

    with altered(change):
        return built()


def another_command_line(built: Callable[..., Image], honest: Image) -> Image:
    line = building.command_line

    def longer(*values: Any, **options: Any) -> str:
        return f"{line(*values, **options)} hal.added=1"

    with replaced("command_line", longer):
        return built()


@contextmanager
def replaced(name: str, value: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, name, value)
        yield


def another_pack(built: Callable[..., Image], honest: Image) -> Image:
    """The same model's name, with another file behind it."""
    text = honest.loaded.path.read_text()
    model = honest.loaded.path.with_name("other.gguf")
    content = bytearray(tiny_model.write(model).read_bytes())
    content[-1] ^= 1  # a weight's last byte: it loads, and is no other model to the eye
    model.write_bytes(content)
    file = honest.loaded.path.with_name("tiny.gguf").read_bytes()
    first, second = (hashlib.sha256(data).hexdigest() for data in (file, content))
    return built(text.replace("path: tiny.gguf", "path: other.gguf").replace(first, second))


def debug(built: Callable[..., Image], honest: Image) -> Image:
    text = honest.loaded.path.read_text().replace("variant: production", "variant: debug")
    return built(text.replace("\ngateway:\n", "\ngateway:\n  tls: true\n"))


ALTERED = {
    "one byte of the root": Alteration(
        one_byte,
        {"measurement": "command line in the unified kernel image (and so, another root)"},
        frozenset({"root hash", "uki", "command line"}),
    ),
    "another command line": Alteration(
        another_command_line,
        {"measurement": "PCR 11 is"},
        frozenset({"uki", "command line"}),
    ),
    "another pack": Alteration(
        another_pack,
        {"manifest": "pack 'tiny' is another one", "measurement": "another root"},
        frozenset({"root hash", "uki", "command line", "manifest", "pack tiny"}),
    ),
    "debug": Alteration(
        debug,
        {
            "manifest": "variant 'debug', measured was 'production'",
            "variant": "debug: its operators have a shell",
            "measurement": "another root",
        },
        frozenset({"root hash", "uki", "command line", "manifest", "variant"}),
    ),
}


@pytest.mark.parametrize("alteration", ALTERED.values(), ids=ALTERED)
def test_an_image_that_was_not_measured_is_refused(
    alteration: Alteration, built: Callable[[str], Image], honest: Image, boot_image: Boot, tmp_path: Path
) -> None:
    image = alteration.make(built, honest)
    differing = {difference.input for difference in explain(honest.built.directory, image.built.directory)}
    assert differing >= alteration.inputs
    measurements = honest.built.directory / "measurements.json"
    with boot_image(image, wishes=WISHES) as machine:
        wait(machine)
        key = key_of(machine)
        # Its own measurements fit: nothing but what was altered stands in the way.
        own = verify(machine.url, image.built.directory / "measurements.json", key, tmp_path, "--allow-debug")
        assert own.exit_code == 0, own.output
        found = reasons(verify(machine.url, measurements, key, tmp_path))
    assert found.keys() == alteration.wanted.keys(), json.dumps(found, indent=1)
    for name, words in alteration.wanted.items():
        assert words in found[name]
