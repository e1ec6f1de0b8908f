"""The real daemon, natively: files over loopback, commands through its socket, kills, restarts, imports."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.models import Model
from hal.packs.build import model_pack
from hal.packs.exported import export_pack
from hal.sandbox import Sandbox
from services.provisioner.config import Config, Policy
from services.provisioner.pins import PinnedModel
from tests.services.provision_daemon import Files, Provisioner
from tests.services.provision_pins import configuration, content, pinned_file, pinned_model
from tests.services.provision_run import leftovers, shown

LARGE = content("large", 3_000_000)
SMALL = content("small", 700)
GIFT = content("gift", 90_000)
QUICK = Policy(first=0.1, cap=0.2, attempts=1000, stall=5.0, rest=2.0)

Maker = Callable[..., Provisioner]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "large").write_bytes(LARGE)
    (folder / "small").write_bytes(SMALL)
    served = Files(folder)
    yield served
    served.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Maker]:
    made: list[Provisioner] = []

    def maker(*models: PinnedModel, **more: object) -> Provisioner:
        config = configuration(tmp_path, *models, **{"policy": QUICK, **more})
        made.append(Provisioner(tmp_path, config))
        return made[-1]

    yield maker
    for one in made:
        one.close()


def fetched_model(files: Files) -> PinnedModel:
    return pinned_model(
        "fetched",
        pinned_file("model.gguf", LARGE, files.url("large")),
        pinned_file("sub/config.json", SMALL, files.url("small")),
    )


def brought_model() -> PinnedModel:
    return pinned_model("brought", pinned_file("gift.gguf", GIFT, ""), delivery="import")


def memory(process: int) -> int:
    """The most bytes a process ever had in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_a_first_boot_and_what_systemd_hears(make: Maker, files: Files) -> None:
    files.open()
    provisioner = make(fetched_model(files)).start()
    found = provisioner.wait_state("fetched", "ready")
    assert shown(provisioner.config, "fetched") == {"model.gguf": LARGE, "sub/config.json": SMALL}
    assert (Path(provisioner.config.markers) / "fetched").read_text().strip() == fetched_model(files).id
    assert found["fetched"] == found["bytes"] == found["size"] == len(LARGE) + len(SMALL)
    assert found["attempts"] == 2 and found["error"] == "" and found["eta"] is None
    assert provisioner.process is not None and memory(provisioner.process.pid) < 80_000_000
    assert provisioner.stop() == 0
    told = provisioner.told
    assert "READY=1" in told[:2] and "WATCHDOG=1" in told and "STOPPING=1" in told
    assert "STATUS=1 of 1 models ready" in told


def test_others_may_read_what_engines_need_and_nothing_else(make: Maker, files: Files) -> None:
    files.open()
    provisioner = make(fetched_model(files)).start()
    provisioner.wait_state("fetched", "ready")
    config = provisioner.config
    model = Path(config.directory) / "fetched"
    for path in (model / "model.gguf", Path(config.markers) / "fetched", Path(config.status_file)):
        assert path.stat().st_mode & 0o777 == 0o644
    for path in (Path(config.directory), model, model / "sub", Path(config.markers)):
        assert path.stat().st_mode & 0o777 == 0o755
    for path in (Path(config.state_directory), Path(config.state_directory) / "parts"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert Path(config.control_socket).stat().st_mode & 0o777 == 0o600


def test_killed_again_and_again_it_finishes_and_nothing_half_is_seen(make: Maker, files: Files) -> None:
    files.open()
    chance = random.Random(3)
    provisioner = make(fetched_model(files), bandwidth=4_000_000)
    for _ in range(8):
        provisioner.start()
        end = time.monotonic() + chance.uniform(0.2, 0.6)
        while time.monotonic() < end:
            assert shown(provisioner.config, "fetched") in (
                None,
                {"model.gguf": LARGE, "sub/config.json": SMALL},
            )
            time.sleep(0.01)
        provisioner.kill()
    provisioner.start()
    provisioner.wait_state("fetched", "ready")
    assert shown(provisioner.config, "fetched") == {"model.gguf": LARGE, "sub/config.json": SMALL}
    assert leftovers(provisioner.config) == []


def test_a_server_that_comes_later_needs_no_restart(make: Maker, files: Files) -> None:
    provisioner = make(fetched_model(files)).start()
    found = provisioner.wait(lambda all: all["fetched"]["attempts"] > 5)["fetched"]
    assert found["state"] in ("backoff", "fetching") and "refused" in found["error"]
    files.open()
    assert provisioner.wait_state("fetched", "ready")["error"]  # the last one stays to be seen


def test_a_changed_byte_is_found_at_the_next_start_and_only_that_file_comes_again(
    make: Maker, files: Files
) -> None:
    files.open()
    provisioner = make(fetched_model(files)).start()
    provisioner.wait_state("fetched", "ready")
    provisioner.stop()
    path = Path(provisioner.config.directory) / "fetched/sub/config.json"
    path.write_bytes(b"X" + SMALL[1:])
    provisioner.start()
    provisioner.wait(lambda all: all["fetched"]["attempts"] == 3 and all["fetched"]["state"] == "ready")
    assert shown(provisioner.config, "fetched") == {"model.gguf": LARGE, "sub/config.json": SMALL}
    assert "wrong on the disk: sub/config.json" in provisioner.log


def test_verify_finds_a_changed_byte_while_it_runs(make: Maker, files: Files) -> None:
    files.open()
    provisioner = make(fetched_model(files)).start()
    provisioner.wait_state("fetched", "ready")
    good = provisioner.ask("verify")
    assert (good.returncode, good.stdout) == (0, "fetched: as pinned\n")
    files.close()
    (Path(provisioner.config.directory) / "fetched/extra.py").write_text("import os")
    (Path(provisioner.config.directory) / "fetched/sub/config.json").write_bytes(b"X" + SMALL[1:])
    bad = provisioner.ask("verify", "fetched")
    assert bad.returncode == 1 and "wrong on the disk, and on their way anew: fetched" in bad.stderr
    assert not (Path(provisioner.config.markers) / "fetched").exists()
    assert shown(provisioner.config, "fetched") is None
    files.open()
    provisioner.wait_state("fetched", "ready")
    assert shown(provisioner.config, "fetched") == {"model.gguf": LARGE, "sub/config.json": SMALL}


def test_a_file_is_imported_by_its_content(make: Maker, files: Files, tmp_path: Path) -> None:
    provisioner = make(brought_model()).start()
    assert provisioner.wait_state("brought", "missing")["reason"].startswith("`hal-provision import`")
    (tmp_path / "wrong").write_bytes(bytes(len(GIFT)))
    (tmp_path / "useless").write_bytes(b"nothing")
    for name, words in (("wrong", "its size fits, and its SHA-256 is"), ("useless", "no model here wants")):
        refused = provisioner.ask("import", str(tmp_path / name))
        assert refused.returncode == 1 and words in refused.stderr, refused
    (tmp_path / "any-name").write_bytes(GIFT)
    taken = provisioner.ask("import", str(tmp_path / "any-name"))
    assert taken.returncode == 0 and taken.stdout.endswith("any-name: taken: gift.gguf\n"), taken
    provisioner.wait_state("brought", "ready")
    assert shown(provisioner.config, "brought") == {"gift.gguf": GIFT} and leftovers(provisioner.config) == []
    assert "nothing is missing" in provisioner.ask("import", str(tmp_path / "any-name")).stderr


def test_a_model_pack_is_imported(make: Maker, tools: Sandbox, tmp_path: Path) -> None:
    contents = {"model.gguf": LARGE, "sub/config.json": SMALL, "empty": b"", "sub/block": content("b", 4096)}
    pinned = pinned_model(
        "packed", *(pinned_file(name, data, "") for name, data in contents.items()), delivery="import"
    )
    sources = {}
    for file in pinned.files:
        sources[file.sha256] = tmp_path / file.sha256
        sources[file.sha256].write_bytes(contents[file.name])
    model = Model.model_construct(name="packed", files=pinned.files)  # the spec knows no empty file
    export_pack(model_pack(model, sources, tools, Cache(tmp_path / "cache")), tmp_path / "out")
    provisioner = make(pinned).start()
    provisioner.wait_state("packed", "missing")
    image = tmp_path / "out/pack.erofs"
    whole = image.read_bytes()
    chance = random.Random(1)
    for _ in range(20):  # a damaged image is refused in words, or what is good in it is taken
        damaged = bytearray(whole[: chance.choice([2000, 5000, len(whole)])])
        for _ in range(30):
            damaged[chance.randrange(1024, min(len(damaged), 12_000))] = chance.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        answer = provisioner.ask("import", str(tmp_path / "damaged"))
        assert "Traceback" not in answer.stderr and "internal" not in answer.stderr, answer
    provisioner.ask("import", str(tmp_path / "out"))
    provisioner.wait_state("packed", "ready")
    assert shown(provisioner.config, "packed") == contents


def test_a_new_image_brings_a_new_model_and_the_old_one_goes_when_it_is_there(
    make: Maker, files: Files
) -> None:
    old = pinned_model("fetched", pinned_file("model.gguf", SMALL, files.url("small")))
    files.open()
    first = make(old).start()
    first.wait_state("fetched", "ready")
    first.stop()
    files.close()
    second = Provisioner(_other(first.root), first.config._replace(models=(fetched_model(files),))).start()
    try:
        second.wait(lambda all: all["fetched"]["attempts"] > 2)
        assert shown(second.config, "fetched") == {"model.gguf": SMALL}
        assert not (Path(second.config.markers) / "fetched").exists()  # engines wait for the new one
        assert "there is nothing to remove" in second.ask("prune").stdout
        files.open()
        second.wait_state("fetched", "ready")
        assert shown(second.config, "fetched") == {"model.gguf": LARGE, "sub/config.json": SMALL}
        assert leftovers(second.config) == []
    finally:
        second.close()


def _other(root: Path) -> Path:
    other = root / "other"
    other.mkdir()
    return other


def test_prune_old_gives_the_space_of_an_old_model_back(make: Maker, files: Files, tmp_path: Path) -> None:
    files.open()
    first = make(pinned_model("fetched", pinned_file("model.gguf", SMALL, files.url("small")))).start()
    first.wait_state("fetched", "ready")
    first.stop()
    files.close()
    second = Provisioner(_other(tmp_path), first.config._replace(models=(fetched_model(files),))).start()
    try:
        second.wait(lambda all: all["fetched"]["attempts"] > 1)
        pruned = second.ask("prune", "--old")
        assert pruned.returncode == 0 and "700 B given back" in pruned.stdout, pruned
        assert shown(second.config, "fetched") is None
    finally:
        second.close()


def test_retry_begins_at_once(make: Maker, files: Files) -> None:
    slow = Policy(first=500.0, cap=500.0, attempts=3, rest=5000.0)
    provisioner = make(fetched_model(files), policy=slow).start()
    provisioner.wait_state("fetched", "backoff")
    files.open()
    assert provisioner.ask("retry", "fetched").returncode == 0
    provisioner.wait_state("fetched", "ready")
    again = provisioner.ask("retry", "fetched")
    assert again.returncode == 1 and "nothing to retry" in again.stderr


def test_a_quota_that_is_too_small_says_so_and_the_rest_is_served(make: Maker, files: Files) -> None:
    files.open()
    small = pinned_model("small", pinned_file("model.gguf", SMALL, files.url("small")))
    provisioner = make(fetched_model(files), small, quota=100_000).start()
    provisioner.wait_state("small", "ready")
    found = provisioner.wait_state("fetched", "no-space")
    assert "it needs 3.03 MB of disk and" in found["reason"] and found["attempts"] == 0


def test_packs_are_told_with_the_initrds_reason(make: Maker, tmp_path: Path) -> None:
    packed = brought_model()._replace(delivery="image")
    away = pinned_model("away", pinned_file("w", SMALL, ""), delivery="disk")
    packs = [
        {"mountpoint": "/srv/models/brought", "state": "ok"},
        {"mountpoint": "/srv/models/away", "state": "missing", "reason": "no partition has its label"},
    ]
    (tmp_path / "boot.json").write_text(json.dumps({"packs": packs}))
    provisioner = make(packed, away).start()
    found = provisioner.wait(lambda all: True)
    assert found["brought"]["state"] == "ready" and found["away"]["state"] == "missing"
    assert found["away"]["reason"].startswith("no partition has its label; attach the disk")


def test_one_at_a_time(make: Maker, tmp_path: Path) -> None:
    provisioner = make(brought_model()).start()
    provisioner.wait_state("brought", "missing")
    other = provisioner.ask("run")
    assert other.returncode == 1 and "another provisioner runs" in other.stderr
    assert other.stderr.count("\n") == 1


def test_what_comes_through_the_socket_is_not_believed(make: Maker) -> None:
    provisioner = make(brought_model()).start()
    provisioner.wait_state("brought", "missing")
    lines = [
        b"\n",
        b"{\n",
        b"[]\n",
        b'{"do": "import"}\n',
        b'{"do": 1, "model": ["x"]}\n',
        b"x" * 5000 + b"\n",
    ]
    for line in lines:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(provisioner.config.control_socket)
            client.sendall(line)
            answer = json.loads(client.makefile().readline())
            assert answer["ok"] is False, line
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as client:  # a descriptor that is no file
        client.connect(provisioner.config.control_socket)
        socket.send_fds(client, [b'{"do": "import"}\n'], [reader])
        assert "neither a file nor a partition" in client.makefile().readline()
    os.close(reader)
    os.close(writer)
    assert provisioner.ask("retry", "brought").returncode == 0


def test_run_once_ends_with_what_came_of_it(make: Maker, files: Files) -> None:
    files.open()
    provisioner = make(fetched_model(files))
    assert provisioner.ask("run", "--once").returncode == 0
    assert shown(provisioner.config, "fetched") == {"model.gguf": LARGE, "sub/config.json": SMALL}
    away = make_other(provisioner, pinned_model("away", pinned_file("a", LARGE[:9], files.url("nowhere"))))
    try:
        done = away.ask("run", "--once")
        assert done.returncode == 1 and "away: failed" in done.stdout
        assert away.ask("status").returncode == 0 and away.ask("status", "--wait", "0.1").returncode == 1
    finally:
        away.close()


def make_other(first: Provisioner, *models: PinnedModel) -> Provisioner:
    config: Config = first.config._replace(models=models)
    return Provisioner(_other(first.root), config)
