"""The shared machine from outside: what a client sees on the gateway's port."""

from __future__ import annotations

import threading
import time

import pytest
import requests
from openai import NotFoundError

from tests.appliance.conftest import Appliance
from tests.tiny_model import ANSWER

QUESTION = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def model(appliance: Appliance) -> str:
    """The name of the model that is served."""
    return appliance.openai().models.list().data[0].id


def test_health(appliance: Appliance) -> None:
    answer = appliance.get("/health")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


def test_status(appliance: Appliance, model: str) -> None:
    status = appliance.status()
    assert set(status) >= {"backend", "base_url", "model", "orchestrator_model", "healthy"}
    assert status["backend"] == "llamacpp"
    assert status["model"] == model
    assert status["healthy"] is True


def test_a_plain_answer(appliance: Appliance, model: str) -> None:
    answer = appliance.openai().chat.completions.create(
        model=model, messages=QUESTION, max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.content == (
        ANSWER if model == "tiny" else answer.choices[0].message.content
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_a_streamed_answer_comes_in_pieces(appliance: Appliance, model: str) -> None:
    stream = appliance.openai().chat.completions.create(
        model=model, messages=QUESTION, max_tokens=16, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1
    if model == "tiny":
        assert "".join(pieces) == ANSWER


def test_a_domain_before_the_path_is_taken_away(appliance: Appliance, model: str) -> None:
    assert appliance.get("/finance/v1/models").json()["data"][0]["id"] == model


def test_an_unknown_path_is_an_error_of_the_api(appliance: Appliance) -> None:
    answer = appliance.get("/no/such/thing")
    assert answer.status_code == 404
    assert "message" in answer.json()["error"]
    with pytest.raises(NotFoundError):
        appliance.openai().get("/no-such-thing", cast_to=object)


def test_ollamas_own_api_is_refused_with_a_reason(appliance: Appliance) -> None:
    answer = appliance.get("/api/tags")
    assert answer.status_code == 404
    assert "Ollama" in answer.text
    assert answer.json()


def test_metrics(appliance: Appliance) -> None:
    assert "haproxy_" in appliance.get("/metrics").text


def test_answers_have_a_request_id(appliance: Appliance) -> None:
    first, second = (appliance.get("/v1/models").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_a_killed_gateway_refuses_nobody(appliance: Appliance) -> None:
    """systemd holds the port: what is open then ends, what comes then waits."""
    host = appliance.ssh()
    failed: list[float] = []
    waits: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            begun = time.monotonic()
            try:
                assert appliance.get("/v1/models").status_code == 200
            except requests.ConnectionError:
                failed.append(begun)
            waits.append(time.monotonic() - begun)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    host.check_output("systemctl kill --signal=KILL hal-gateway.service")
    killed = time.monotonic()
    time.sleep(3)
    over.set()
    for client in clients:
        client.join()
    assert len(waits) > len(clients), "nobody asked meanwhile"
    assert len(failed) <= len(clients) and all(begun < killed for begun in failed)
    assert max(waits) < appliance.deadline(2).seconds
