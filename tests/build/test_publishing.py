"""Small parts of a build: publishing, knowing what is current, inputs, files, sandbox commands."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from hal import build as building
from hal import cache as caching
from hal.build import ARTEFACTS, MANIFEST, required_artefacts
from hal.cache import Cache, remove_tree
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.image.root import write_files
from hal.inputs import gather
from hal.lock.file import load_lock
from hal.progress import Silent
from hal.render import RenderedFile
from hal.run import FULL, run
from hal.sandbox import HOST_NAME, Sandbox
from hal.spec.loading import load_spec


def directory_with(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(text)
    return path


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_new_output_takes_the_place_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(building, "_exchange", lambda first, second: False)
    target, old = tmp_path / "target", tmp_path / "old"
    building._publish(directory_with(tmp_path / "one", "1"), target, old)
    assert (target / "file").read_text() == "1"
    building._publish(directory_with(tmp_path / "two", "2"), target, old)
    assert (target / "file").read_text() == "2"
    assert not old.exists()


def test_an_exchange_keeps_the_old_output_under_the_other_name(tmp_path: Path) -> None:
    first, second = directory_with(tmp_path / "a", "1"), directory_with(tmp_path / "b", "2")
    assert building._exchange(first, second)
    assert ((first / "file").read_text(), (second / "file").read_text()) == ("2", "1")
    assert not building._exchange(first, tmp_path / "absent")


@pytest.mark.parametrize("killed", ["before the new one came", "before the old one went"])
def test_a_build_killed_between_two_renames_is_mended(tmp_path: Path, killed: str) -> None:
    target, old = tmp_path / "target", directory_with(tmp_path / "old", "old")
    if killed == "before the old one went":
        directory_with(target, "new")
    building._recover(old, target)
    assert (target / "file").read_text() == ("new" if killed == "before the old one went" else "old")
    assert not old.exists()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A directory that looks like a finished build."""
    for name in ARTEFACTS:
        (tmp_path / name).write_text(name)
    sizes = {name: {"size": len(name)} for name in ARTEFACTS if name != MANIFEST}
    (tmp_path / MANIFEST).write_text(json.dumps({"fingerprint": "f", "artefacts": sizes}))
    return tmp_path


def test_an_output_is_current_when_all_of_it_is_there(output: Path) -> None:
    assert building._current(output, "f") is not None
    assert building._current(output, "g") is None
    assert building._current(output / "none", "f") is None


@pytest.mark.parametrize("name", [name for name in ARTEFACTS if name != MANIFEST])
def test_an_output_with_a_file_missing_or_cut_off_is_not_current(output: Path, name: str) -> None:
    (output / name).write_text("x")
    assert building._current(output, "f") is None
    (output / name).unlink()
    assert building._current(output, "f") is None
    with pytest.raises(HalError, match=f"{name} missing"):
        required_artefacts(output)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"artefacts": 3}', '{"artefacts": {"initrd": 1}}', "\xff"])
def test_an_output_with_a_manifest_that_is_none_is_not_current(output: Path, text: str) -> None:
    (output / MANIFEST).write_bytes(text.encode("latin-1"))
    assert building._current(output, "f") is None


def test_a_model_of_another_version_than_the_lock_pins(tmp_path: Path) -> None:
    lock = load_lock()
    (project,) = [name for name in lock.wheels if "smollm2" in name]
    source = lock.wheels[project].source.rpartition("==")[0] + "==99.0"
    other = {**lock.wheels, project: replace(lock.wheels[project], source=source)}
    without = {name: wheel for name, wheel in lock.wheels.items() if name != project}
    fetcher = Fetcher(Cache(tmp_path), Mirrors(), offline=True)
    for wheels, words in ((other, r"smollm2-135m: wants .* the lock pins 99\.0"), (without, "pins no wheel")):
        changed = replace(lock, wheels=MappingProxyType(wheels))
        with pytest.raises(HalError, match=words) as caught:
            gather([], load_spec("starter"), changed, fetcher, Silent(), locked=True)
        assert caught.value.hint is not None and "hal lock" in caught.value.hint


def test_rendered_files_have_their_kinds_and_modes(tmp_path: Path) -> None:
    files = {
        "/etc/hal/file": RenderedFile("text\n", 0o640),
        "/usr/bin/tool": RenderedFile("#!/bin/sh\n", 0o755),
        "/etc/link": RenderedFile("hal/file", 0o777, "symlink"),
    }
    write_files(files, tmp_path / "new")
    root = tmp_path / "new"
    assert (root / "etc/hal/file").read_text() == "text\n"
    assert (root / "etc/hal/file").stat().st_mode & 0o777 == 0o640
    assert (root / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (root / "etc/link").readlink() == Path("hal/file")


def test_rendered_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HalError, match="cannot be written") as caught:
        write_files({"/a": RenderedFile("", 0o644)}, tmp_path / "file/new")
    assert caught.value.hint is not None and "--out" in caught.value.hint


SANDBOX = Sandbox(Path("/cache/tools"), 1700000000)


def test_a_sandbox_of_root_has_only_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    words = SANDBOX.command(
        ["prog", "-x"], readable=[Path("/in")], writable=[Path("/out")], cwd=Path("/out"), env={"MORE": "1"}
    )
    assert words[0] == "bwrap"
    line = " ".join(words)
    for part in (
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-net",
        f"--hostname {HOST_NAME}",
        "--clearenv",
        "--ro-bind /cache/tools/usr /usr",
        "--symlink usr/lib64 /lib64",
        "--dev /dev",
        "--ro-bind /in /in",
        "--bind /out /out",
        "--setenv SOURCE_DATE_EPOCH 1700000000",
        "--setenv TZ UTC",
        "--setenv MORE 1",
    ):
        assert part in line
    assert line.endswith("--chdir /out -- prog -x")
    assert "--dev-bind" not in line


def test_a_sandbox_of_another_user_has_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = SANDBOX.command(["prog"], devices=[Path("/dev/kvm")], host_devices=True, network=True)
    assert words[:6] == ["unshare", "--user", "--map-root-user", "--map-auto", "--", "bwrap"]
    line = " ".join(words)
    assert "--dev-bind /dev /dev" in line
    assert "--dev-bind /dev/kvm /dev/kvm" in line
    assert "--unshare-net" not in line


def test_a_sandbox_shows_programs_neither_host_name_nor_environment(
    tools: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    said = tools.run(["sh", "-c", "uname -n; env; ls /; id -u"]).stdout
    assert said.splitlines()[0] == HOST_NAME
    assert "SECRET" not in said
    assert "home" not in said.split()
    assert said.splitlines()[-1] == "0"


def test_a_program_that_hangs_on_a_full_disk_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """mkfs.erofs 1.8 does."""
    monkeypatch.setattr("hal.run.STUCK_SECONDS", 0.2)
    with pytest.raises(HalError) as caught:
        run(
            ["sh", "-c", "cat; echo 'No space left on device' >&2; exec sleep 60"], input=b"x", what="packing"
        )
    assert caught.value.message == "packing: no space is left on the device"
    assert caught.value.details == ()


@pytest.mark.parametrize("text", ["x: No space left on device", "plain_io: Disk full", "Disk quota exceeded"])
def test_ways_to_say_that_a_disk_is_full(text: str) -> None:
    assert FULL.search(text)


def test_a_tree_that_cannot_be_removed_keeps_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a later build tries again."""
    cache = Cache(tmp_path)
    with cache.temporary("thing"):
        pass
    (tmp_path / "tmp/thing.x").mkdir()
    (tmp_path / "tmp/thing.x.lock").write_text("")
    with monkeypatch.context() as patched:
        patched.setattr(caching, "remove_tree", lambda path: False)
        cache.sweep()
    assert (tmp_path / "tmp/thing.x.lock").exists()
    cache.sweep()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_removing_what_cannot_be_entered_and_what_is_a_link(tmp_path: Path) -> None:
    inner = tmp_path / "tree/closed/inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("")
    inner.chmod(0)
    inner.parent.chmod(0)
    assert remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert remove_tree(tmp_path / "tree")
    kept = directory_with(tmp_path / "kept", "1")
    (tmp_path / "link").symlink_to(kept)
    assert remove_tree(tmp_path / "link")
    assert (kept / "file").exists()
