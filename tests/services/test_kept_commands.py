"""A command is on the disk before it is answered: the selector is killed at every system call until then."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.selector import commands, store
from services.selector.config import Config, EngineConfig
from services.selector.daemon import Daemon
from services.selector.settings import Settings

CALLS = ("open", "write", "fsync", "close", "rename")
"""What store.py changes the disk with."""


class Killed(BaseException):
    """The selector is no more."""


def config(home: Path) -> Config:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    engines = tuple(
        EngineConfig(name, "127.0.0.1", port, "http://e/v1", "/health", 200, "", "m", "m", f"engines/{name}")
        for name in "ab"
    )
    return Config("auto", engines, str(home / "admin"), str(home / "http"), state_path=str(home / "state"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon("absent", Settings(config(tmp_path)), None)
    made.step(commands.Commanded(commands.Verb.SWITCH, "a"))
    yield made
    made.close()


def dies(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Kill the selector at its system call of this number; the calls that it made until then."""
    made: list[str] = []

    def watched(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(made) == number:
                raise Killed
            made.append(name)
            return real(*arguments, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(store.os, name, watched(name))
    return made


def switch(daemon: Daemon, name: str) -> list[bytes]:
    """What an operator is answered."""
    answers: list[bytes] = []
    request = json.dumps({"do": "switch", "engine": name}).encode()
    commands.Commands(daemon).handle(request + b"\n", answers.append)
    return answers


def test_it_is_synced_put_in_place_and_synced_again_before_the_answer(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dies(monkeypatch, -1)
    (answer,) = switch(daemon, "b")
    monkeypatch.undo()
    assert b"error" not in answer
    assert made[:8] == ["open", "write", "fsync", "close", "rename", "open", "fsync", "close"]


@pytest.mark.parametrize("number", range(8))
def test_a_selector_that_is_killed_at_a_system_call(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nobody was told yet: the command counts or does not; the next selector goes on with what is there."""
    before = store.load(daemon.config.state_path)[0]
    dies(monkeypatch, number)
    answers: list[bytes] = []
    with pytest.raises(Killed):
        answers += switch(daemon, "b")
    monkeypatch.undo()
    assert not answers, "answered before it was kept"
    saved, problem = store.load(daemon.config.state_path)
    assert saved is not None and not problem, "half a file"
    assert saved.desired == ("b" if number > 4 else "a") and (number > 4 or saved == before)
    daemon.close()
    again = Daemon("absent", Settings(daemon.config), saved)
    assert again.state.desired == saved.desired
    if saved.desired == "b":
        assert again.state.goal == "b" and again.state.switch is not None, "it goes on with the switch"
    again.close()
