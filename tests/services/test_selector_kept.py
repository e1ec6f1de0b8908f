"""What the selector keeps over restarts: it comes back whole or not at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selector import store
from services.selector.core.events import Saved

ROOT = Path(__file__).resolve().parents[2]


saved = st.builds(
    Saved,
    configured=st.lists(st.sampled_from(["auto", "a", "b"])).map(tuple),
    policy=st.sampled_from(["", "auto", "a"]),
    desired=st.sampled_from(["", "a"]),
    back=st.none() | st.tuples(st.just("auto"), st.just("a")),
    active=st.sampled_from(["", "a"]),
    resident=st.sampled_from(["", "b"]),
    drained=st.booleans(),
)


@given(saved)
def test_what_is_kept_comes_back(value: Saved) -> None:
    assert store.parse(store.dump(value).encode()) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_state_file(content: bytes) -> None:
    assert store.parse(content) is None


@given(saved, st.integers(min_value=0, max_value=400))
def test_a_cut_state_file_is_none(value: Saved, at: int) -> None:
    text = store.dump(value).encode()
    assert store.parse(text[: min(at, len(text) - 3)]) is None


@given(saved, st.sampled_from(Saved._fields), json_values)
def test_a_state_file_with_another_value(value: Saved, field: str, other: object) -> None:
    data = {"version": store.VERSION, **value._asdict(), field: other}
    found = store.parse(json.dumps(data).encode())
    assert found is None or isinstance(found, Saved)


WRITER = """\
import sys
from services.selector import store
from services.selector.core.events import Saved
number = 0
while True:
    number += 1
    assert not store.save(sys.argv[1], Saved(("auto",), desired=str(number % 2) * 50))
    if number == 1:
        print(flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.007, 0.013, 0.02, 0.031, 0.04])
def test_a_kill_at_any_instant_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "state.json"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    found, problem = store.load(str(path))
    assert problem == "" and found is not None and found.desired in ("0" * 50, "1" * 50)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert "No such file" in store.save(str(tmp_path / "absent/state.json"), Saved(()))
    assert store.load(str(tmp_path / "absent/state.json")) == (None, "")
