"""Packs of models by themselves: from a directory, a hub, a registry; carried to another cache; on a disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from hal.build import MANIFEST
from hal.cache import Cache
from hal.errors import HalError
from hal.packs.exported import EXPORT, import_pack, read_exported
from hal.sandbox import Sandbox
from tests.build.builder import HAL, PROJECT, Builder
from tests.misbehaving.hub import add_repository
from tests.misbehaving.registry import add_tag
from tests.misbehaving.server import MisbehavingServer, misbehaving_server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 300

SPEC = """\
appliance: {name: robust, version: 1.0.0}
variant: debug
engines: [llamacpp]
models:
  - smollm2-135m
  - name: large
    format: gguf
    delivery: disk
    files:
      - {name: large.gguf, size: SIZE, sha256: SHA256, source: {kind: file, path: large.gguf}}
"""


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with misbehaving_server() as running:
        yield running


def hal(*words: str, expected: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*HAL, *words],
        cwd=PROJECT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_directory_gives_the_same_pack_twice(filled: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        (weights / "tiny.gguf").write_bytes(WEIGHTS)
        (weights / "README").write_text("about it")
        os.utime(weights / "tiny.gguf", (1, 1) if name == "one" else None)
        place = tmp_path / name
        hal("pack", "model", str(weights), "--name", "tiny", "--out", str(place / "pack"), "--offline")
        hal("pack", "model", str(weights), "--name", "tiny", "--disk", str(place / "d.img"), "--offline")
        # Nothing of the first may be found by the second.
        inputs = json.loads((place / "pack" / EXPORT).read_text())["inputs"]
        shutil.rmtree(Cache().tree("pack", inputs))
    assert contents(tmp_path / "one/pack") == contents(tmp_path / "two/pack")
    disk = (tmp_path / "one/d.img").read_bytes()
    assert disk == (tmp_path / "two/d.img").read_bytes()
    image = (tmp_path / "one/pack/pack.erofs").read_bytes()
    assert disk[1 << 20 : (1 << 20) + len(image)] == image
    label = json.loads((tmp_path / "one/pack/pack.json").read_text())["label"]
    assert label.encode("utf-16-le") in disk[1024:17408], "the table of partitions names it"
    assert "every block fits" in hal("pack", "verify", str(tmp_path / "one/pack"), "--offline").stdout
    shown = json.loads(hal("pack", "inspect", str(tmp_path / "one/pack"), "--json").stdout)
    assert [file["name"] for file in shown["files"]] == ["tiny.gguf", "README"]


def test_hub_and_registry_give_packs(server: MisbehavingServer, filled: Path, tmp_path: Path) -> None:
    add_repository(server, "org/tiny", COMMIT, {"config.json": b"{}", "model.safetensors": WEIGHTS})
    made = add_tag(server, "library/tiny", "1b", {"model": WEIGHTS, "license": b"MIT License"})
    for reference, name in (("huggingface:org/tiny", "tiny"), ("ollama:tiny:1b", "tiny-1b")):
        where = tmp_path / name
        hal("pack", "model", reference, "--endpoint", server.url, "--out", str(where))
        found = read_exported(where)
        assert (found.ref.name, found.ref.mountpoint) == (name, f"/srv/models/{name}")
        assert WEIGHTS[:65536] in found.image.read_bytes()
    assert found.files[0][1] == "manifest.json"
    assert made.manifest in found.image.read_bytes()


def test_a_carried_pack_stands_for_the_files(
    server: MisbehavingServer, filled: Path, tools: Sandbox, tmp_path: Path
) -> None:
    """On a machine that has the pack and none of the files, and no network."""
    add_repository(server, "org/carried", COMMIT, {"config.json": b"{}", "model.safetensors": WEIGHTS})
    hal("pack", "model", "huggingface:org/carried", "--endpoint", server.url, "--out", str(tmp_path / "p"))
    entry = tmp_path / "carried.yaml"
    hal("models", "pin", "huggingface:org/carried", "--endpoint", server.url, "--out", str(entry))
    other = {"HAL_CACHE": str(tmp_path / "other")}
    there = Cache(tmp_path / "other")
    there.root.mkdir()
    for name in ("blobs", "trees"):
        (there.root / name).mkdir()
    for tree in Cache().root.glob("trees/tools*"):
        (there.root / "trees" / tree.name).symlink_to(tree)
    shutil.rmtree(there.root / "blobs")
    (there.root / "blobs").symlink_to(_without_weights(filled, tmp_path))
    missing = hal("pack", "model", str(entry), "--out", str(tmp_path / "q"), "--offline", expected=1, **other)
    assert "model.safetensors" in missing.stderr
    hal("pack", "import", str(tmp_path / "p"), "--offline", **other)
    hal("pack", "model", str(entry), "--out", str(tmp_path / "q"), "--offline", **other)
    assert contents(tmp_path / "p") == contents(tmp_path / "q")


def _without_weights(filled: Path, home: Path) -> Path:
    """All downloads of a cache but those of this test's model."""
    left_out = {sha256(content).hexdigest() for content in (WEIGHTS, b"{}")}
    target = home / "blobs"
    for blob in (filled / "blobs").rglob("*"):
        if blob.is_file() and blob.name not in left_out:
            link = target / blob.relative_to(filled / "blobs")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(blob)
    return target


def test_a_pack_that_holds_other_files_than_it_says_is_not_taken_in(
    tools: Sandbox, filled: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "tiny.gguf").write_bytes(WEIGHTS)
    hal("pack", "model", str(weights), "--name", "tiny", "--out", str(tmp_path / "good"), "--offline")
    (weights / "tiny.gguf").write_bytes(WEIGHTS[::-1])
    hal("pack", "model", str(weights), "--name", "tiny", "--out", str(tmp_path / "evil"), "--offline")
    # The other weights, said to be the good ones: every block fits its root hash.
    shutil.copyfile(tmp_path / "good" / EXPORT, tmp_path / "evil" / EXPORT)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(HalError, match=r"tiny\.gguf is another file than it says"):
        import_pack(read_exported(tmp_path / "evil"), tools, cache)
    assert not list(cache.root.glob("trees/pack*"))
    about = json.loads((tmp_path / "good" / EXPORT).read_text())
    (tmp_path / "good" / EXPORT).write_text(json.dumps({**about, "inputs": "0" * 64}))
    with pytest.raises(HalError, match="made by another hal, or by another lock"):
        import_pack(read_exported(tmp_path / "good"), tools, cache)


def test_a_build_writes_a_disk_for_a_model_that_is_delivered_on_one(warm: Builder) -> None:
    spec = warm.home / "disk.yaml"
    (warm.home / "large.gguf").write_bytes(WEIGHTS)
    spec.write_text(SPEC.replace("SIZE", str(len(WEIGHTS))).replace("SHA256", sha256(WEIGHTS).hexdigest()))
    warm.build(spec)
    first = warm.digests()
    manifest = json.loads((warm.target / MANIFEST).read_text())
    disks = {pack["name"]: pack["disk"] for pack in manifest["packs"]}
    assert disks == {"llamacpp": "disk.img", "smollm2-135m": "disk.img", "large": "pack-large.img"}
    assert manifest["artefacts"]["pack-large.img"]["size"] == (warm.target / "pack-large.img").stat().st_size
    label = next(pack["label"] for pack in manifest["packs"] if pack["name"] == "large").encode("utf-16-le")
    assert label in (warm.target / "pack-large.img").read_bytes()[:17408]
    assert WEIGHTS[:65536] in (warm.target / "pack-large.img").read_bytes()
    assert label not in (warm.target / "disk.img").read_bytes()[:17408]
    shutil.rmtree(warm.target)
    warm.build(spec)
    assert warm.digests() == first
