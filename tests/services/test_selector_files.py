"""Commands, tokens, the gateway's answers: no text of others breaks the selector."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services import terminal
from services.selector import commands, gateway, probe, tokens

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(st.binary())
@example(b"[" * 100_000)
def test_any_command(data: bytes) -> None:
    try:
        assert commands.parse(data)["do"] in commands.COMMANDS
    except commands.CommandError as error:
        assert error.code == 2


@given(json_values)
def test_any_json_command(value: object) -> None:
    with pytest.raises(commands.CommandError):
        commands.parse(json.dumps(value).encode())


@given(st.text(), st.sampled_from(["tokens.map", "scopes.map"]))
def test_any_map_of_tokens(text: str, name: str) -> None:
    try:
        for key, value in tokens.parse(text, name):
            assert f"{key} {value}".isprintable() and " " not in key + value
    except tokens.TokensError as error:
        assert str(error).startswith(name)


def test_tokens_are_read() -> None:
    line = f"{'A' * 64} alice:60:4:domains"
    assert tokens.parse(f"# x\n{line}\n", "tokens.map") == [("A" * 64, "alice:60:4:domains")]
    assert tokens.parse("alice/finance 1\n", "scopes.map") == [("alice/finance", "1")]
    for wrong in (f"{'a' * 64} alice:60:4:all", "A a:1:1:all", f"{line}\n{line}"):
        with pytest.raises(tokens.TokensError):
            tokens.parse(wrong, "tokens.map")


@given(st.text())
def test_any_table_of_the_gateway(text: str) -> None:
    found = gateway.open_requests(text, "a")
    assert found is None or found >= 0
    assert isinstance(gateway.map_files(text), frozenset)


def test_open_requests_are_counted() -> None:
    text = "# pxname,svname,qcur,qmax,scur,smax,\nengines,a,1,2,3,4,\nengines,b,,2,0,4,\n"
    assert gateway.open_requests(text, "a") == 4
    assert gateway.open_requests(text, "b") == 0
    assert gateway.open_requests(text, "c") is None
    assert gateway.map_files("# id (file)\n-1 (/etc/t.map) pattern loaded\n") == {"/etc/t.map"}


@given(st.binary())
def test_any_reason_of_an_endpoint_elsewhere(value: bytes) -> None:
    found = probe.header(b"HTTP/1.1 503 X\r\nX-HAL-Reason: " + value + b"\r\n\r\n", probe.WHY)
    assert found.isprintable() and len(found) <= probe.LONGEST_WHY


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_time_spans(seconds: float, text: str) -> None:
    assert terminal.span(seconds) == text
