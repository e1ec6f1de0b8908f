"""docs/troubleshooting.md: every symptom names the test that provokes it, and that test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SECTIONS = re.split(r"^## ", (PROJECT / "docs/troubleshooting.md").read_text(), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=[section.splitlines()[0] for section in SECTIONS])
def test_a_symptom_has_a_cause_a_mend_and_a_test(section: str) -> None:
    assert "*Cause:*" in section and "*Mend:*" in section
    file, name = re.findall(r"^Test: `([^`]+)`, `(\w+)`", section, re.MULTILINE)[0]
    assert re.search(rf"^def {name}\(", (PROJECT / file).read_text(), re.MULTILINE), f"{file} has no {name}"
