"""The shipped image with its real model: slow where floating point is emulated (seconds per token)."""

from __future__ import annotations

import pytest

from tests.appliance.conftest import Boot, Build


@pytest.mark.slow
def test_starter_answers_with_smollm2(build_image: Build, boot_image: Boot) -> None:
    image = build_image("starter")
    with boot_image(image) as appliance:
        gateway, ready = appliance.wait_gateway(), appliance.wait_ready(60)
        answer = appliance.openai().completions.create(
            model="smollm2-135m", prompt="The capital of France is", max_tokens=4, temperature=0
        )
        print(f"gateway {gateway:.1f} s, ready {ready:.1f} s, answered {appliance.vm.uptime:.1f} s")
    assert "Paris" in answer.choices[0].text
