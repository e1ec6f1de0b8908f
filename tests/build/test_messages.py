"""What a user reads when something is wrong: a line or two that name it, and the right exit code."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hal.lock.file import LOCK_PATH
from tests.build.builder import HAL, PROJECT, error_lines

BAD_SPEC = """\
appliance: {name: Bad Name, version: 1.0.0}
variannt: debug
engines: [llamacp]
models: [smollm2-135m]
"""
GOOD_SPEC = "appliance: {name: good, version: 1.0.0}\nengines: [llamacpp]\nmodels: [smollm2-135m]\n"

UNREACHABLE = "http://127.0.0.1:1/debian"
"""Port 1 (tcpmux) is one on which nothing listens."""


@dataclass(frozen=True)
class Case:
    """What is typed, and what comes back. `lines` bounds standard error, without the steps before the error.

    Arguments and environment may hold {tmp}, a directory of the test that has `bad.yaml`, `good.yaml`, a file
    `file`, a lock that is none, and `few`, a directory of programs without bubblewrap.
    """

    arguments: str
    code: int
    words: tuple[str, ...]
    lines: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)


CASES = {
    "a bad spec": Case(
        "build {tmp}/bad.yaml",
        2,
        ("bad.yaml:1: appliance.name", "bad.yaml:2: variannt", "bad.yaml:3: engines", "did you mean"),
        lines=5,
    ),
    "a spec that is not there": Case("build {tmp}/none.yaml", 2, ("none.yaml",)),
    "a spec that is a directory": Case("build {tmp}", 2, ("{tmp}",)),
    "a missing profile": Case("build startr", 2, ("startr", "did you mean", "starter")),
    "an unknown option": Case("build starter --ofline", 2, ("--ofline", "--offline"), lines=4),
    "an unknown command": Case("bulid starter", 2, ("bulid",), lines=4),
    "a port that is none": Case("boot starter --port 99999", 2, ("99999", "65535"), lines=4),
    "a mirror that is no directory": Case(
        "build starter --mirror {tmp}/file", 2, ("--mirror", "no such directory")
    ),
    "a mirror of an unknown kind": Case("build starter --mirror gopher://x/y", 2, ("gopher://x/y",)),
    "an unreachable mirror": Case(
        "build {tmp}/good.yaml --mirror " + UNREACHABLE,
        1,
        ("cannot be fetched from http://127.0.0.1:1/", "connection refused", "--mirror"),
        environment={"HAL_CACHE": "{tmp}/empty", "HAL_SNAPSHOT": UNREACHABLE},
    ),
    "offline with an empty cache": Case(
        "build starter --offline",
        1,
        ("neither cached nor in a local mirror", ".deb", "--mirror DIR"),
        lines=23,
        environment={"HAL_CACHE": "{tmp}/empty"},
    ),
    "a cache that is a file": Case(
        "build starter", 1, ("cannot be written", "HAL_CACHE"), environment={"HAL_CACHE": "{tmp}/file"}
    ),
    "no lock": Case("build starter --lock {tmp}/none.lock", 1, ("none.lock", "hal lock")),
    "a broken lock": Case("build starter --lock {tmp}/broken.lock", 1, ("broken.lock", "hal lock")),
    "a lock of another version": Case("build starter --lock {tmp}/future.lock", 1, ("future.lock", "schema")),
    "render to a place that cannot be": Case("render starter --out {tmp}/file/x", 1, ("file", "--out")),
    "no spec": Case("build", 2, ("SPEC",), lines=4),
}

NEEDING_CACHE = {
    "an output that cannot be": Case("build starter --offline --out {tmp}/file/x", 1, ("file", "--out")),
    "no bubblewrap": Case(
        "build starter --offline --out {tmp}/out",
        1,
        ("'bwrap' is not installed", "apt-get install bubblewrap"),
        environment={"PATH": "{tmp}/few"},
    ),
}


def check(case: Case, tmp: Path) -> None:
    (tmp / "bad.yaml").write_text(BAD_SPEC)
    (tmp / "good.yaml").write_text(GOOD_SPEC)
    (tmp / "file").write_text("")
    (tmp / "broken.lock").write_text(LOCK_PATH.read_text()[:1000])
    (tmp / "future.lock").write_text('{"schema": 99}')
    (tmp / "few").mkdir()
    for name in ("dpkg-deb", "tar", "sh"):
        (tmp / "few" / name).symlink_to(shutil.which(name) or name)
    environment = {name: value.format(tmp=tmp) for name, value in case.environment.items()}
    done = subprocess.run(
        [*HAL, *(word.format(tmp=tmp) for word in case.arguments.split())],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = error_lines(done.stderr) or done.stderr.splitlines()
    assert done.returncode == case.code, done.stderr
    assert "Traceback" not in done.stderr
    # A server in trouble is noted once, not for each of its files and attempts.
    assert done.stderr.count("note: ") <= 1
    assert len(lines) <= case.lines, done.stderr
    for word in case.words:
        assert word.format(tmp=tmp) in "\n".join(lines), done.stderr


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if "unreachable" in name else [])
        for name, case in CASES.items()
    ],
)
def test_a_wrong_request(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("case", NEEDING_CACHE.values(), ids=list(NEEDING_CACHE))
def test_a_build_that_cannot_be(case: Case, tmp_path: Path, filled: Path) -> None:
    check(case, tmp_path)


def test_a_port_that_is_taken(filled: Path, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        words = (f"port {port} is taken on this host", "--port")
        case = Case(f"boot starter --offline --port {port} --out {{tmp}}/out", 1, words)
        check(case, tmp_path)
    assert not (tmp_path / "out/starter.run").exists()
