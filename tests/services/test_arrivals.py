"""Models that arrive while the machine runs: what the selector reads of them, and what it says."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selector import models, tables
from services.selector.config import Awaited, Config, ConfigError, EngineConfig, parse
from services.selector.core import ModelSeen
from services.selector.daemon import Daemon
from services.selector.models import Model, Progress
from services.selector.report import status
from services.selector.settings import Settings
from services.selector.status import metrics
from services.selector.status import status as public

GIB = 1 << 30


def entry(state: str, **more: object) -> dict[str, object]:
    found = {"name": "m", "delivery": "network", "state": state, "reason": "", "bytes": 43 * GIB}
    return {**found, "size": 100 * GIB, "eta": None, "error": "", "again_in": None, **more}


def progress(state: str, **more: object) -> Progress:
    return models.parse(json.dumps({"version": 1, "models": [entry(state, **more)]}).encode())["m"]


@pytest.mark.parametrize(
    ("found", "words", "soon"),
    [
        (progress("fetching", eta=30), "fetching, 43 %", True),
        (progress("fetching", eta=300), "fetching, 43 %", False),
        (progress("fetching"), "fetching, 43 %", False),
        (progress("fetching", bytes=100 * GIB - 1), "fetching, 99 %", True),
        (progress("fetching", error="reset"), "fetching, 43 %: reset", False),
        (progress("backoff", again_in=5, bytes=99.9 * GIB), "backoff, 99 %", True),
        (progress("backoff", again_in=300, error="no answer"), "backoff, 43 %: no answer", False),
        (progress("verifying", bytes=100 * GIB), "verifying", True),
        (progress("waiting", reason="no network"), "waiting, 43 %: no network", False),
        (progress("failed", error="404"), "failed, 43 %: 404", False),
        (progress("failed", again_in=9, bytes=100 * GIB, error="reset"), "failed, 99 %: reset", True),
        (progress("failed", again_in=3000, bytes=100 * GIB, error="reset"), "failed, 99 %: reset", False),
        (progress("waiting", reason="for its turn", size=44 * GIB), "waiting, 97 %: for its turn", False),
        (progress("waiting", reason="for its turn", bytes=99.9 * GIB), "waiting, 99 %: for its turn", True),
        (progress("no-space", reason="7 GB lack"), "no-space, 43 %: 7 GB lack", False),
        (progress("missing", size=None, reason="awaited"), "missing: awaited", False),
        (progress("ready"), "verifying", True),
    ],
)
def test_how_far_a_model_is(found: Progress, words: str, soon: bool) -> None:
    engine = EngineConfig("a", "h", 1, "u", "/", 200, "", "m", "m", "e/a", awaits=(Awaited("m", "/x"),))
    event = models.lacking(engine, {"m": False}, {"m": found}, 0, 60)
    assert event == ModelSeen("a", f"the model m has not arrived: {words}", soon)
    assert models.lacking(engine, {"m": True}, {"m": found}, 0, 60) == ModelSeen("a", "")


def test_a_model_of_which_nothing_is_known_may_come_at_first() -> None:
    engine = EngineConfig("a", "h", 1, "u", "/", 200, "", "m", "m", "e/a", awaits=(Awaited("m", "/x"),))
    assert models.lacking(engine, {"m": False}, {}, 10, 60).soon
    event = models.lacking(engine, {"m": False}, {}, -1, 60)
    assert not event.soon and event.missing.endswith("hal-provision has not said anything of it")


def test_an_engine_that_awaits_nothing_needs_what_it_lists() -> None:
    engine = EngineConfig("a", "h", 1, "u", "/", 200, "", "m", "m", "e/a")
    missing = progress("missing", reason="no disk has its label", size=None)
    assert models.lacking(engine, {"m": False}, {"m": missing}, 0, 60).missing.endswith(
        "no disk has its label"
    )
    assert models.lacking(engine, {}, {}, 0, 60) == ModelSeen("a", "")


def test_an_engine_that_binds_late_does_not_wait_for_its_other_models() -> None:
    awaits = (Awaited("m", "/x"), Awaited("other", "/y"))
    engine = EngineConfig("a", "h", 1, "u", "/", 200, "", "m", "m", "e/a", awaits=awaits)
    there = {"m": True, "other": False}
    assert models.lacking(engine, there, {}, 0, 60).missing.startswith("the model other has not arrived")
    assert models.lacking(engine._replace(binds=False), there, {}, 0, 60) == ModelSeen("a", "")


@given(
    st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_status_of_hal_provision(content: bytes) -> None:
    assert isinstance(models.parse(content), dict)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
keys = st.sampled_from(["name", "state", "reason", "error", "bytes", "size", "eta", "again_in"])


@given(st.lists(st.dictionaries(keys, values)))
def test_any_entries_of_hal_provision(entries: list[dict[str, Any]]) -> None:
    for name, found in models.parse(json.dumps({"models": entries}).encode()).items():
        assert found.left >= 0 and found.words.isprintable()
        assert found.percent is None or 0 <= found.percent <= 100
        assert models.named(name, False, found).reason


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    engine = EngineConfig("a", "127.0.0.1", port, url, "/health", 200, "", "m", "m", "engines/a")
    config = Config(
        "auto",
        (engine._replace(awaits=(Awaited("m", str(tmp_path / "marker")),)),),
        str(tmp_path / "admin"),
        str(tmp_path / "http"),
        provision_status=str(tmp_path / "status.json"),
    )
    made = Daemon("absent", Settings(config), None)
    yield made
    made.close()


def turns(daemon: Daemon, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        daemon.turn()


def write(path: Path, *entries: dict[str, object]) -> None:
    path.with_suffix(".new").write_text(json.dumps({"version": 1, "updated": 1, "models": list(entries)}))
    path.with_suffix(".new").rename(path)


def test_it_is_followed_and_shown(daemon: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "status.json", entry("fetching"), {**entry("ready"), "name": "other"})
    turns(daemon, 0.7)
    reason = "the model m has not arrived: fetching, 43 %"
    assert daemon.state.engines[0].missing == reason
    missing = Model("m", "fetching", reason, 43)
    assert daemon.models.seen == (missing, Model("other", "ready", "", 100)), "missing ones first"
    found = status(daemon.state, daemon.config, daemon.facts(), daemon.clock())
    assert found["engines"][0]["state"] == "waiting" and found["engines"][0]["reason"] == reason  # type: ignore[index]
    assert f"missing: {reason}" in tables.status(found)
    told = public(daemon.state, daemon.config, daemon.models.seen)
    assert told["reason"] == reason
    assert told["models"][0] == {"name": "m", "state": "fetching", "reason": reason, "percent": 43}  # type: ignore[index]
    text = metrics(daemon.state, daemon.counts, daemon.models.seen)
    assert 'hal_selector_model_ready{model="m"} 0' in text
    assert 'hal_selector_model_ready{model="other"} 1' in text

    write(tmp_path / "status.json", entry("fetching", bytes=77 * GIB))
    turns(daemon, 0.7)
    assert daemon.state.engines[0].missing.endswith("77 %")
    (tmp_path / "marker").touch()
    began = time.monotonic()
    while daemon.state.engines[0].missing:
        daemon.turn()
    assert time.monotonic() - began < 1
    assert 'model_ready{model="m"} 1' in metrics(daemon.state, daemon.counts, daemon.models.seen)


def test_looking_for_models_costs_next_to_nothing(daemon: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "status.json", entry("fetching"))
    turns(daemon, 0.5)
    began = time.process_time()
    for _ in range(1000):
        daemon.models.look()
    assert (time.process_time() - began) / 1000 < 0.001, "seconds, twice in each second"


def test_its_keys_in_the_configuration() -> None:
    given = EngineConfig("a", "h", 1, "u", "/", 200, "", "m", "m", "s")._asdict()
    awaits = [{"model": "m", "marker": "/run/m"}]
    one = {**given, "needs": given["needs"]._asdict(), "binds": False, "awaits": awaits}
    whole = {"policy": "auto", "gateway_socket": "/g", "status_socket": "/s", "engines": [one]}
    config = parse(json.dumps({**whole, "provision_status": "/p"}))
    assert config.engines[0].awaits == (Awaited("m", "/run/m"),) and not config.engines[0].binds
    assert config.provision_status == "/p"
    assert parse(json.dumps(whole)).provision_status == ""
    for wrong in ({"model": "m"}, {"model": "m", "marker": 1}, "m", {**awaits[0], "more": ""}):
        with pytest.raises(ConfigError):
            parse(json.dumps({**whole, "engines": [{**one, "awaits": [wrong]}]}))
