"""A power cut at any instant: engines see the old model or the new one, never a part, and work goes on.

Once by stopping in front of every change of the disk, once with a disk that has lost what was not synced.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.provisioner.config import Config, Policy
from services.provisioner.disk.calls import Disk
from services.provisioner.pins import PinnedModel
from tests.services.provision_disk import Breaking, Forgetful, PowerCut, Small
from tests.services.provision_pins import configuration, content, pinned_file, pinned_model
from tests.services.provision_run import Run, leftovers, shown

OLD = {"model.gguf": content("old", 4500), "tokenizer/config.json": content("same", 300)}
NEW = {"model.gguf": content("new", 5000), "tokenizer/config.json": content("same", 300)}
OTHER = {"weights": content("other", 2500), "tokenizer.json": content("same", 300)}
CONTENTS = {pinned_file("", data).sha256: data for files in (OLD, NEW, OTHER) for data in files.values()}


def model(name: str, files: dict[str, bytes]) -> PinnedModel:
    return pinned_model(name, *(pinned_file(path, data) for path, data in files.items()))


def appliance(root: Path, *models: PinnedModel) -> Config:
    """The state partition is `disk`; /run is another one, empty at each boot."""
    config = configuration(root / "disk", *models, policy=Policy(rest=30.0))
    return config._replace(markers=f"{root}/run/models", runtime_directory=f"{root}/run")


@contextmanager
def power_cut() -> Iterator[None]:
    with pytest.raises(PowerCut):
        yield


def before(root: Path) -> Config:
    """An appliance that has the old model, and the configuration of the next image."""
    (root / "disk").mkdir(parents=True)
    (root / "run").mkdir()
    Run(appliance(root, model("one", OLD)), CONTENTS, Breaking()).go()
    config = appliance(root, model("one", NEW), model("two", OTHER))
    assert shown(config, "one") == OLD
    return config


def check(config: Config) -> None:
    """What engines may see at any instant."""
    assert shown(config, "one") in (OLD, NEW)
    assert shown(config, "two") in (None, OTHER)


def boot(config: Config, disk: Disk | None = None) -> Run:
    run = Run(config, CONTENTS, disk or Breaking())
    run.go()
    return run


def check_end(root: Path, config: Config) -> None:
    assert shown(config, "one") == NEW and shown(config, "two") == OTHER
    assert leftovers(config) == []
    for one in config.models:
        assert (root / "run/models" / one.name).read_text() == f"{one.id}\n"


def changes(tmp_path: Path) -> int:
    """How many changes of the disk the way to the new models takes."""
    disk = Breaking()
    boot(before(tmp_path / "count"), disk)
    return disk.count


def test_in_front_of_every_change_of_the_disk(tmp_path: Path) -> None:
    number = changes(tmp_path)
    assert number > 60
    for at in range(number):
        root = tmp_path / str(at)
        config = before(root)
        with power_cut():
            boot(config, Breaking(at, before=lambda config=config: check(config)))
        check(config)
        again = boot(config)
        check_end(root, config)
        assert again.fetched <= sum(map(len, NEW.values())) + len(OTHER["weights"])


def test_a_second_cut_while_the_first_is_mended(tmp_path: Path) -> None:
    chance = random.Random(5)
    number = changes(tmp_path)
    for at in range(0, number, 3):
        root = tmp_path / str(at)
        config = before(root)
        with power_cut():
            boot(config, Breaking(at))
        for _ in range(3):
            try:
                boot(config, Breaking(chance.randrange(number)))
            except PowerCut:
                check(config)
        boot(config)
        check_end(root, config)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_not_synced_is_lost(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for at in range(changes(tmp_path)):
        root = tmp_path / f"{seed}-{at}"
        config = before(root)
        disk = Forgetful(root / "disk", at)
        with power_cut():
            boot(config, disk)
        disk.cut(chance)
        check(config)
        boot(config)
        check_end(root, config)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_change_that_fails_is_made_again_later(tmp_path: Path, error: int) -> None:
    for at in range(changes(tmp_path)):
        root = tmp_path / f"{error}-{at}"
        config = before(root)
        disk = Breaking(at, before=lambda config=config: check(config), error=error)
        try:
            boot(config, disk)
        except OSError:
            boot(config, disk)  # while it starts: the init system starts it anew
        check_end(root, config)


def test_a_disk_that_fills_gives_the_space_back_and_the_other_model_finishes(tmp_path: Path) -> None:
    """At 60 % of the first model; nobody could know before: the file system says that there is room."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    config = appliance(tmp_path, model("one", NEW), model("two", OTHER))
    disk = Small(tmp_path / "disk", room=int(0.6 * sum(map(len, NEW.values()))) + 1500)
    run = boot(config, disk)
    assert shown(config, "two") == OTHER and shown(config, "one") is None
    assert run.state.model("one").trouble == "no-space" and "No space left" in run.state.model("one").reason
    parts = [path.name for path in (tmp_path / "disk/provisioner/parts").iterdir()]
    assert parts == [], "what was fetched of it was not given back"
    disk.room *= 10
    boot(config, disk)
    check_end(tmp_path, config)


def test_the_forgetful_disk_does_forget(tmp_path: Path) -> None:
    """The test's own disk: without syncs, a file's content and its name are lost; with them, they stay."""
    for synced in (False, True):
        root = tmp_path / str(synced)
        root.mkdir()
        outcomes = set()
        for seed in range(30):
            (root / "kept").write_bytes(b"before")
            disk = Forgetful(root)
            descriptor = disk.create(f"{root}/new")
            disk.write(descriptor, b"content", 0)
            if synced:
                disk.sync(descriptor)
            disk.rename(f"{root}/new", f"{root}/kept")
            if synced:
                disk.sync_folder(str(root))
            disk.cut(random.Random(seed))
            outcomes.add((root / "kept").read_bytes())
        assert outcomes == {b"content"} if synced else {b"before", b"", b"content"} <= outcomes


def test_bytes_that_were_synced_are_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    config = appliance(tmp_path, model("one", NEW))
    total, disk = 0, Breaking()
    for at in range(20, 200, 7):
        run = Run(config, CONTENTS, Breaking(at))
        try:
            run.go()
        except PowerCut:
            total += run.fetched
        else:
            total += run.fetched
            break
    assert shown(config, "one") == NEW
    assert total <= sum(map(len, NEW.values())) + 4 * 1000, "more than a chunk per cut was fetched again"
    assert disk.count == 0
