"""How work is told: to a log, to programs, on a terminal; and what stands at the end."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from hal.build import Built
from hal.cli.summary import built_summary, doctor_summary, profiles_summary, repro_summary
from hal.doctor import Finding
from hal.profiles import list_profiles
from hal.progress import JsonLines, Lines, Reporter, Silent, Terminal
from hal.repro import Comparison

MANIFEST = {
    "artefacts": {
        name: {"size": 1 << 20}
        for name in (
            "disk.img",
            "vmlinuz",
            "initrd",
            "cmdline",
            "uki.efi",
            "measurements.json",
            "sbom.cdx.json",
        )
    },
    "root": {"size": 80 << 20, "root_hash": "ab" * 32},
    "packs": [{"name": "tiny", "kind": "model", "size": 4096, "root_hash": "cd" * 32, "disk": "disk.img"}],
    "kernel": "6.12.0-cloud-amd64",
    "substitutions": [{"package": "bash", "locked": "5.1", "used": "5.2"}],
}


def test_lines_tell_steps_that_ended_notes_and_downloads(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Lines()
    with reporter.step("root image"):
        assert capsys.readouterr().err == ""
    reporter.note("a package was replaced")
    reporter.expect(120_000_000)
    for _ in range(12):
        reporter.advance(10_000_000)
    reporter.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    texts = [re.sub(r"^\[ *\d+\.\d s\] ", "", line) for line in captured.err.splitlines()]
    assert re.fullmatch(r"root image \(\d+\.\d s\)", texts[0])
    assert texts[1:] == [
        "note: a package was replaced",
        "downloaded 50 of 120 MB",
        "downloaded 100 of 120 MB",
        "downloaded 120 of 120 MB",
    ]


def test_lines_say_nothing_of_a_step_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), Lines().step("root image"):
        raise ValueError
    assert capsys.readouterr().err == ""


def test_json_lines_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonLines()
    with reporter.step("one"):
        reporter.note("text")
    with pytest.raises(KeyboardInterrupt), reporter.step("two"):
        raise KeyboardInterrupt
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    seconds = events[2].pop("seconds")
    assert 0 <= seconds < 5
    assert events == [
        {"event": "step", "name": "one", "state": "started"},
        {"event": "note", "text": "text"},
        {"event": "step", "name": "one", "state": "done"},
        {"event": "step", "name": "two", "state": "started"},
        {"event": "step", "name": "two", "state": "failed"},
    ]
    assert captured.err == ""


def test_json_lines_of_several_threads_stay_apart(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = JsonLines()

    def work() -> None:
        for number in range(200):
            with reporter.step(f"step {number}"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4 * 200 * 2
    assert all(json.loads(line)["event"] == "step" for line in lines)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 100 columns would have got."""
    shown = io.StringIO()

    class Forced(Console):
        def __init__(self, **options: object) -> None:
            super().__init__(file=shown, force_terminal=True, width=100, highlight=False)

    monkeypatch.setattr("rich.console.Console", Forced)
    return shown


def test_a_terminal_shows_steps_and_a_bar(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("hal.progress.time.monotonic", lambda: float(next(clock)))
    reporter = Terminal()
    with reporter.step("inputs"):
        reporter.expect(2_000_000)
        reporter.advance(1_000_000)
        reporter.expect(1_000_000)
        reporter.advance(2_000_000)
    reporter.close()
    reporter.note("[/] is no markup, nor is [bold]this")
    with pytest.raises(ValueError), reporter.step("packing"):
        raise ValueError
    with reporter.step("a [dim] name"):
        pass
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "downloading" in text
    assert "3.0/3.0 MB" in text
    assert "✓ inputs 1.0 s" in text
    assert "note: [/] is no markup, nor is [bold]this" in text
    assert "✓ a [dim] name 1.0 s" in text
    assert "✓ packing" not in text
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h"), (
        "the cursor is hidden"
    )


@pytest.mark.parametrize("make", [Silent, Lines, JsonLines, Terminal])
def test_every_reporter_takes_everything_in_any_order(
    make: type[Reporter], screen: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = make()
    reporter.close()
    reporter.advance(-5)
    with reporter.step("outer"), reporter.step("inner"):
        reporter.expect(10)
        reporter.close()
        reporter.expect(10)
        reporter.advance(10)
    reporter.note("done")
    reporter.close()
    reporter.close()


def test_the_summary_of_a_build(capsys: pytest.CaptureFixture[str]) -> None:
    built_summary(Built(Path("build/starter"), MANIFEST, fresh=True), "starter")
    out = capsys.readouterr().out
    assert "up to date" not in out
    assert "abababababababab…" in out
    assert "tiny" in out and "model pack" in out
    assert "note: bash: 5.2 in place of 5.1" in out
    assert out.splitlines()[-1] == "  .venv/bin/hal boot starter --wait"


def test_the_summary_of_a_build_elsewhere_gives_a_command_that_finds_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    built_summary(Built(Path("/my [out]/good"), MANIFEST, fresh=False), "a spec.yaml")
    out = capsys.readouterr().out
    assert out.startswith("/my [out]/good: up to date")
    assert out.splitlines()[-1] == "  .venv/bin/hal boot 'a spec.yaml' --out '/my [out]' --wait"


def test_the_summary_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    repro_summary(Comparison(("disk.img", "initrd"), ("initrd",)))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["equal", "disk.img"], ["differs", "initrd"]]


def test_the_other_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    doctor_summary([Finding("kvm", "note", "no [kvm] here", "modprobe kvm"), Finding("apt", "ok", "there")])
    profiles_summary(list_profiles(Path("build")))
    out = capsys.readouterr().out
    assert "no [kvm] here" in out and "modprobe kvm" in out
    row = r"^starter +2G +2 +- +(~3\d\d|\d+)(\.\d)?M +A first appliance: .* Not for production\. *$"
    assert re.search(row, out, re.MULTILINE), "a line each"


def test_a_long_step_says_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    log = Lines()
    for text in ("package 1 of 60", "package 2 of 60"):  # at most one line in a while
        log.status("base tree", text)
    assert capsys.readouterr().err.count("\n") == 1
    JsonLines().status("base tree", "package 1 of 60")
    told = json.loads(capsys.readouterr().out)
    assert told == {"event": "step", "name": "base tree", "state": "running", "text": "package 1 of 60"}
    terminal = Terminal()
    with terminal.step("base tree"):
        terminal.status("base tree", "package [b] of 60")
        assert [task.description for task in terminal._progress.tasks] == ["base tree: package \\[b] of 60"]
