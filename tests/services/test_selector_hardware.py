"""What the hardware lacks for an engine, from the lines that hal-control writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selector import hardware
from services.selector.config import Needs
from tests.services.selector_configs import CONFIG

GIB = 1 << 30


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
