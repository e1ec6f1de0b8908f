"""`hal-provision` as operators and programs meet it: help, tables, exit statuses, errors of one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from services import terminal
from services.provisioner import cli, tables
from services.provisioner.core import space
from services.provisioner.disk.erofs import Image, NotAPack
from services.provisioner.disk.seal import seal
from services.provisioner.network import route
from tests.services.provision_pins import as_json, configuration, content, pinned_file, pinned_model

ROOT = Path(__file__).resolve().parents[2]
ROW = {
    "name": "one",
    "delivery": "network",
    "state": "ready",
    "reason": "",
    "bytes": 5,
    "size": 5,
    "fetched": 5,
    "rate": 0,
    "eta": None,
    "attempts": 2,
    "error": "reset",
    "again_in": None,
    "sealed": True,
    "source": "https://models.example/one",
}


def row(**changes: Any) -> dict[str, Any]:
    return {**ROW, **changes}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration; its status file is written by the test."""
    model = pinned_model("one", pinned_file("w", content("w", 5)))
    path = tmp_path / "provision.json"
    path.write_text(json.dumps(as_json(configuration(tmp_path, model))))
    (tmp_path / "run").mkdir()
    return path


def tell(config: Path, *rows: dict[str, Any], age: float = 0.0) -> None:
    text = json.dumps({"version": 1, "updated": time.time() - age, "models": rows})
    (config.parent / "run/status.json").write_text(text)


def run(config: Path, *words: str) -> int:
    return cli.main(["--config", str(config), *words])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for word in (
        "status",
        "run",
        "retry",
        "prune",
        "verify",
        "import",
        "Exit status: 0 done, 1",
        "2 wrong usage",
    ):
        assert word in text


@pytest.mark.parametrize("words", [[], ["nothing"], ["retry"], ["import"], ["status", "--wait", "soon"]])
def test_wrong_usage_is_2(words: list[str], config: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run(config, *words)
    assert ended.value.code == 2


def test_status_as_a_table_and_for_programs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetching = row(
        name="two", state="fetching", bytes=1_500_000, size=3_000_000, rate=250_000, eta=6, sealed=False
    )
    waiting = row(name="three", state="backoff", again_in=65.0, bytes=0, sealed=False)
    tell(config, row(), fetching, waiting)
    assert run(config, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(tables.HEADER)
    assert lines[1].split()[:6] == ["one", "ready", "100", "%", "of", "5"]
    assert "50 % of 3 MB" in lines[2] and "250 kB/s" in lines[2] and "6 s" in lines[2]
    assert lines[3].endswith("again in 1 min 5 s: reset")
    assert run(config, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["models"][1]["name"] == "two"


def test_an_old_status_is_said_to_be_old(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(config, row(), age=3700)
    assert run(config, "status") == 0
    assert "this is 1 h 1 min old: does the provisioner run?" in capsys.readouterr().err


def test_wait_ends_when_all_are_ready_and_else_names_what_is_missing(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(config, row())
    assert run(config, "status", "--wait", "10") == 0
    tell(config, row(), row(name="two", state="failed", again_in=9.0))
    assert run(config, "status", "--wait", "0.1") == 1
    assert "not ready after 0.1 s: two (failed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["status"], ["retry", "one"], ["prune"], ["verify"], ["import", __file__], ["import", "/no/such"]],
)
def test_without_the_daemon_it_is_one_line_and_1(
    words: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, *words) == 1
    text = capsys.readouterr().err
    assert text.startswith("hal-provision: ") and text.count("\n") == 1


def test_a_configuration_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["status"], ["run"]):
        assert cli.main(["--config", f"{tmp_path}/no.json", *words]) == 1
        assert capsys.readouterr().err == f"hal-provision: {tmp_path}/no.json: No such file or directory\n"


def test_status_loads_nothing_of_the_network() -> None:
    code = "import services.provisioner.cli, services.provisioner.daemon, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "requests" not in done.stdout.split()


def test_bytes_and_times_as_people_read_them() -> None:
    assert [space.size(number) for number in (0, 999, 1000, 98_362_432, 4.7e9, 2e12)] == [
        *("0 B", "999 B", "1 kB", "98.4 MB", "4.7 GB", "2 TB")
    ]
    assert [terminal.span(number) for number in (0, 59, 60, 3661, 90_000)] == [
        *("0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h")
    ]


def test_a_route_is_one_that_leads_out(tmp_path: Path) -> None:
    ipv4, ipv6 = tmp_path / "route", tmp_path / "ipv6_route"
    head = "Iface\tDestination\tGateway\tFlags\n"
    own = f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"
    link = f"fe80{'0' * 28} 40 {'0' * 32} 00 {'0' * 32} 00000100 00000001 00000000 00000001     eth0\n"
    for text4, text6, there in (
        (head, own + link, False),
        (head + "lo\t0000007F\t00000000\t0001\n", "", False),
        (head + "eth0\t0002000A\t00000000\t0001\n", "", True),
        (head + "eth0\t0002000A\t00000000\t0201\n", "", False),
        ("", link.replace("fe80", "2001", 1), True),
    ):
        ipv4.write_text(text4)
        ipv6.write_text(text6)
        assert route.present(str(ipv4), str(ipv6)) is there
    assert not route.present(f"{tmp_path}/no", f"{tmp_path}/no")
    assert route.on_this_machine(["https://models.example/x", "http://127.0.0.1:9/x"])
    assert not route.on_this_machine(["https://models.example/x"])


def test_what_is_no_pack_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for data in (b"", b"x" * 5000, bytes(1024) + b"\xe2\xe1\xf5\xe0" + b"\xff" * 200):
        path.write_bytes(data)
        with path.open("rb") as file, pytest.raises(NotAPack):
            list(Image(file.fileno(), len(data)).files())


def test_a_file_system_without_verity_seals_nothing(tmp_path: Path) -> None:
    path = Path("/dev/shm") / f"{tmp_path.name}.seal"
    path.write_bytes(b"x" * 9000)
    try:
        with path.open("rb") as file:
            assert seal(file.fileno()) is False
    finally:
        path.unlink()
