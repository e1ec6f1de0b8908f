"""The real `openai` client through the gateway, against the real vLLM on this machine's CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hal.spec.loading import LoadedSpec
from tests.services.conftest import wait_for
from tests.services.pair import SECOND, pair
from tests.services.switches import active, control
from tests.services.test_clients import (  # noqa: F401 (the same tests, against another engine)
    Service,
    test_chat,
    test_chat_streamed,
    test_completions,
    test_embeddings_or_an_error_of_the_apis_own,
    test_errors,
    test_models,
    test_raw_answers_have_an_id,
)
from tests.services.test_same_answers import loaded, vllm  # noqa: F401 (fixtures)
from tests.services.test_switching_vllm import READY, with_vllm
from tests.tiny_model import NAME

pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def service(
    haproxy: Any,
    engine_pack: Path,
    tiny: Path,
    vllm: Path,  # noqa: F811
    loaded: LoadedSpec,  # noqa: F811
) -> Iterator[Service]:
    """vLLM in the second engine's place, after a switch to it."""
    with pair(haproxy, engine_pack, tiny, selector=f"{{wait: {READY:g}, drain: 3}}") as stack:
        with_vllm(stack, vllm, loaded)
        for name in ("control", "gateway", "selector"):
            stack.start(name)
        wait_for(lambda: active(stack), "an engine serves", READY)
        control(stack, "switch", engine=SECOND)
        wait_for(lambda: active(stack) == SECOND, "vLLM serves", READY)
        yield Service(stack.url, SECOND, NAME)
