"""The gate through which hal runs programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hal.errors import HalError
from hal.run import environment, run, spawn


def test_output_and_status_are_returned() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_a_failure_says_what_was_done_and_shows_the_last_lines() -> None:
    with pytest.raises(HalError) as caught:
        run(["sh", "-c", "for i in $(seq 50); do echo line $i >&2; done; exit 7"], what="packing")
    assert caught.value.message == "packing failed with exit status 7"
    assert caught.value.details[-1] == "  | line 50"
    assert len(caught.value.details) == 12


def test_an_end_by_a_signal_is_named() -> None:
    with pytest.raises(HalError, match="was ended by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_missing_program_is_named() -> None:
    with pytest.raises(HalError, match="'no-such-program' is not installed"):
        run(["no-such-program"])


def test_a_full_disk_is_recognised() -> None:
    with pytest.raises(HalError) as caught:
        run(["sh", "-c", "echo 'cannot write: No space left on device' >&2; exit 1"])
    assert caught.value.hint is not None and "space" in caught.value.hint


def test_the_environment_is_chosen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE")
    monkeypatch.setenv("A_SECRET", "x")
    made = environment({"MORE": "1"})
    assert made["LC_ALL"] == "C.UTF-8"
    assert made["TZ"] == "UTC"
    assert made["MORE"] == "1"
    assert "A_SECRET" not in made


def test_nothing_is_read_from_the_terminal() -> None:
    assert run(["cat"]).stdout == ""
    assert run(["cat"], input=b"given").stdout == "given"


def test_a_program_dies_with_hal(tmp_path: Path) -> None:
    """kill -9 of the process that started a program ends the program, too."""
    pid_file = tmp_path / "pid"
    code = (
        "from hal.run import spawn; from pathlib import Path; import time\n"
        f"Path({str(pid_file)!r}).write_text(str(spawn(['sleep', '60']).pid)); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not pid_file.exists() or not pid_file.read_text():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    child = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while _alive(child):
        assert time.monotonic() < deadline, "the program outlived hal"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_spawn_returns_at_once() -> None:
    process = spawn(["sleep", "60"])
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
