"""The store: what it takes for a model, what it removes, and a disk that somebody else has been at."""

from __future__ import annotations

import errno
import os
import queue
import shutil
from pathlib import Path

import pytest

from services.provisioner.config import Config
from services.provisioner.core.events import Do, Job, JobDone
from services.provisioner.core.state import Found
from services.provisioner.disk.calls import Disk
from services.provisioner.disk.jobs import Jobs
from services.provisioner.disk.markers import Markers
from services.provisioner.disk.store import Store
from services.provisioner.disk.verify import verify
from services.provisioner.pins import PinnedModel
from tests.services.provision_pins import configuration, content, pinned_file, pinned_model
from tests.services.provision_run import leftovers, shown

WEIGHTS, SETTINGS = content("weights", 3000), content("settings", 40)
DATA = {pinned_file("", data).sha256: data for data in (WEIGHTS, SETTINGS)}
ONE = pinned_model("one", pinned_file("model.gguf", WEIGHTS), pinned_file("sub/settings", SETTINGS))
TWO = pinned_model("two", pinned_file("same", WEIGHTS))


def opened(config: Config, disk: Disk | None = None) -> Store:
    store = Store(config, disk)
    store.prepare()
    return store


def give(store: Store, sha256: str) -> None:
    path = Path(store.part(sha256))
    path.write_bytes(DATA[sha256])
    store.keep(sha256, str(path))


def complete(store: Store, model: PinnedModel) -> None:
    for file in model.files:
        give(store, file.sha256)
    assert store.publish(model) == ()
    store.show(model)


def test_a_model_is_seen_only_when_it_is_shown(tmp_path: Path) -> None:
    config = configuration(tmp_path, ONE)
    store = opened(config)
    first, second = (file.sha256 for file in ONE.files)
    give(store, first)
    assert store.scan() == (Found("one", False, frozenset({first})),)
    assert store.publish(ONE) == ("sub/settings",)
    give(store, second)
    assert shown(config, "one") is None
    assert store.publish(ONE) == () and shown(config, "one") is None
    assert store.scan() == (Found("one", stored=True),)
    store.show(ONE)
    assert shown(config, "one") == {"model.gguf": WEIGHTS, "sub/settings": SETTINGS}
    assert leftovers(config) == []


def test_a_file_of_two_models_lies_there_once(tmp_path: Path) -> None:
    config = configuration(tmp_path, ONE, TWO)
    store = opened(config)
    complete(store, ONE)
    assert store.publish(TWO) == ()
    store.show(TWO)
    one, two = tmp_path / "models/one/model.gguf", tmp_path / "models/two/same"
    assert one.stat().st_ino == two.stat().st_ino
    assert store.space()[1] == len(WEIGHTS) + len(SETTINGS)


def test_a_model_that_comes_later_takes_what_another_has(tmp_path: Path) -> None:
    complete(opened(configuration(tmp_path, ONE)), ONE)
    store = opened(configuration(tmp_path, ONE, TWO))
    assert store.publish(TWO) == ()


def test_prune_removes_all_that_is_not_pinned_and_nothing_else(tmp_path: Path) -> None:
    complete(opened(configuration(tmp_path, ONE, TWO)), ONE)
    store = opened(configuration(tmp_path, ONE, TWO))
    store.publish(TWO)
    store.show(TWO)
    kept = opened(configuration(tmp_path, TWO))
    Path(kept.part("0" * 64)).write_bytes(b"x")
    Path(kept.part(TWO.files[0].sha256)).write_bytes(b"x")  # of a model that is there
    gone = kept.prune()
    assert len(gone) == 4 and f"{tmp_path}/models/one" in gone
    assert shown(kept.config, "two") == {"same": WEIGHTS} and leftovers(kept.config) == []
    assert kept.prune() == []


@pytest.mark.parametrize("place", [".store", ".staging", ".trash"])
def test_links_that_somebody_put_there_lead_nowhere(tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    config = configuration(tmp_path, ONE)
    complete(opened(config), ONE)
    shutil.rmtree(tmp_path / "models" / place)
    (tmp_path / "models" / place).symlink_to(outside)
    store = opened(config)
    complete(store, ONE)
    store.prune()
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert shown(config, "one") == {"model.gguf": WEIGHTS, "sub/settings": SETTINGS}


@pytest.mark.parametrize("what", ["link", "folder", "short", "gone", "extra"])
def test_a_model_that_somebody_changed_is_found_out_and_mended(tmp_path: Path, what: str) -> None:
    config = configuration(tmp_path, ONE)
    store = opened(config)
    complete(store, ONE)
    file = Path(store.folder(ONE)) / "sub/settings"
    if what == "extra":
        (file.parent / "more.py").write_text("x")
    else:
        file.unlink()
    if what == "link":
        file.symlink_to("/etc/passwd")
    elif what == "folder":
        file.mkdir()
    elif what == "short":
        file.write_bytes(b"x")
    again = opened(config)
    (found,) = again.scan()
    if what == "extra":
        verdict = verify(ONE, again.folder(ONE), lambda count: None)
        assert found.stored and verdict.extra == ("sub/more.py",) and not verdict.descriptors
        again.hide(ONE, verdict.extra)
    else:
        assert found.whole == {ONE.files[0].sha256}
        give(again, ONE.files[1].sha256)
    assert again.publish(ONE) == ()
    again.show(ONE)
    assert shown(config, "one") == {"model.gguf": WEIGHTS, "sub/settings": SETTINGS}


def test_something_else_under_a_models_name_is_moved_away(tmp_path: Path) -> None:
    config = configuration(tmp_path, ONE)
    store = opened(config)
    (tmp_path / "models/one/deep").mkdir(parents=True)
    complete(store, ONE)
    assert shown(config, "one") == {"model.gguf": WEIGHTS, "sub/settings": SETTINGS}


def test_verify_reads_every_byte(tmp_path: Path) -> None:
    store = opened(configuration(tmp_path, ONE))
    complete(store, ONE)
    counts: list[int] = []
    verdict = verify(ONE, store.folder(ONE), counts.append)
    assert verdict.wrong == () and counts[-1] == ONE.size
    verdict.close()
    path = Path(store.folder(ONE)) / "model.gguf"
    for at in (0, len(WEIGHTS) // 2, len(WEIGHTS) - 1):
        changed = bytearray(WEIGHTS)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert verify(ONE, store.folder(ONE), lambda count: None).wrong == ("model.gguf",)


def test_a_full_disk_is_told_from_a_broken_one(tmp_path: Path) -> None:
    class Failing(Disk):
        error = 0

        def symlink(self, text: str, path: str) -> None:
            raise OSError(self.error, os.strerror(self.error), path)

    disk = Failing()
    store = opened(configuration(tmp_path, TWO), disk)
    give(store, TWO.files[0].sha256)
    done: queue.SimpleQueue[JobDone] = queue.SimpleQueue()
    jobs = Jobs(store, Markers(f"{tmp_path}/markers"), done.put)
    jobs.do(Do(Job.PUBLISH, "two"))
    assert done.get(timeout=10) == JobDone(Job.PUBLISH, "two")
    for error, full in ((errno.ENOSPC, True), (errno.EIO, False)):
        disk.error = error
        jobs.do(Do(Job.SHOW, "two"))
        event = done.get(timeout=10)
        assert event.full is full and event.words.endswith(os.strerror(error))
    jobs.stop()
