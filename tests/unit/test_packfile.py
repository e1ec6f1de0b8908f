"""Packs that are carried from one cache to another, and what an altered one comes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.engines import Engine, load_engine
from hal.errors import HalError
from hal.packs.build import Pack, compile_modules, engine_pack, engine_pack_is_cached
from hal.packs.exported import export_pack, import_pack, read_exported, verify
from hal.sandbox import Sandbox

ENGINE = """\
name: small
summary: a program and nothing else
dialects: [openai]
user: small
group: small
uid: 940
port: 30000
command: [/opt/small/bin/serve]
readiness: {path: /}
resources: {gpu: none, memory: 16M}
binds_models: runtime
files: [{source: SOURCE, path: bin/serve, mode: "0755"}]
"""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    (tmp_path / "serve").write_text("#!/bin/sh\n" + "# padding\n" * 2000)
    (tmp_path / "small.yaml").write_text(ENGINE.replace("SOURCE", str(tmp_path / "serve")))
    return load_engine("small", tmp_path)


@pytest.fixture
def pack(engine: Engine, tools: Sandbox, tmp_path: Path) -> Pack:
    return engine_pack(engine, (), tools, Cache(tmp_path / "cache"))


def test_an_exported_pack_is_verified_and_found_by_another_cache(
    engine: Engine, pack: Pack, tools: Sandbox, tmp_path: Path
) -> None:
    export_pack(pack, tmp_path / "carried")
    found = read_exported(tmp_path / "carried")
    assert found.ref == pack.ref
    assert found.size == pack.path.stat().st_size
    verify(found, tools, pack.ref.root_hash)
    other = Cache(tmp_path / "other")
    assert not engine_pack_is_cached(engine, (), tools.epoch, other)
    image = import_pack(found, tools, other, pack.ref.root_hash)
    assert image.read_bytes() == pack.path.read_bytes()
    assert engine_pack_is_cached(engine, (), tools.epoch, other)
    assert engine_pack(engine, (), tools, other).ref == pack.ref


@pytest.mark.parametrize("part", ["data", "hash tree"])
def test_an_altered_pack_is_refused(pack: Pack, tools: Sandbox, tmp_path: Path, part: str) -> None:
    export_pack(pack, tmp_path / "carried")
    image = tmp_path / "carried/pack.erofs"
    content = bytearray(image.read_bytes())
    content[1100 if part == "data" else pack.ref.data_blocks * 4096 + 5] ^= 1
    image.write_bytes(content)
    with pytest.raises(HalError, match="altered: it does not fit its root hash"):
        import_pack(read_exported(tmp_path / "carried"), tools, Cache(tmp_path / "other"))
    assert not (tmp_path / "other/trees").exists()


def test_another_root_hash_than_was_told_is_refused(pack: Pack, tools: Sandbox, tmp_path: Path) -> None:
    export_pack(pack, tmp_path / "carried")
    with pytest.raises(HalError, match="its root hash is"):
        verify(read_exported(tmp_path / "carried"), tools, "0" * 64)


def test_what_is_no_exported_pack(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(HalError, match="no exported pack"):
        read_exported(tmp_path)
    export_pack(pack, tmp_path / "carried")
    with pytest.raises(HalError, match="is not empty"):
        export_pack(pack, tmp_path / "carried")
    reference = tmp_path / "carried/pack.json"
    good = json.loads(reference.read_text())
    for changes in ({"more": 1}, {"mountpoint": "/etc"}, {"name": "other"}, {"kind": "root"}):
        reference.write_text(json.dumps({**good, **changes}))
        with pytest.raises(HalError, match="no exported pack"):
            read_exported(tmp_path / "carried")


def test_a_pack_under_anothers_digest_is_not_used(
    engine: Engine, pack: Pack, tools: Sandbox, tmp_path: Path
) -> None:
    other = engine.model_copy(update={"name": "other", "command": ("/opt/other/bin/serve",)})
    cache = Cache(tmp_path / "cache")
    theirs = engine_pack(other, (), tools, cache)
    export_pack(pack, tmp_path / "carried")
    about = tmp_path / "carried/export.json"
    lie = {**json.loads(about.read_text()), "inputs": theirs.path.parent.name.partition("-")[2]}
    about.write_text(json.dumps(lie))
    deceived = Cache(tmp_path / "deceived")
    import_pack(read_exported(tmp_path / "carried"), tools, deceived)
    with pytest.raises(HalError, match="the pack of small, not of other"):
        engine_pack(other, (), tools, deceived)


def test_modules_are_compiled_to_the_same_bytes_each_time(tools: Sandbox, tmp_path: Path) -> None:
    """Python's own .pyc files differ by what their process has loaded before; a pack's must not."""
    found = []
    for number in range(2):
        tree = tmp_path / f"tree{number}"
        for name in range(12):
            package = tree / "lib" / f"package{name}"
            package.mkdir(parents=True)
            for module in range(5):
                text = (
                    f"import argparse\nNAMES = {{'alpha', 'w{name}'}}\ndef f(alpha={module}): return alpha\n"
                )
                (package / f"m{module}.py").write_text(text)
        compile_modules(tree, "sample", tools)
        found.append({str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*.pyc")})
    assert len(found[0]) == 60
    assert found[0] == found[1]
    assert b"/opt/sample/lib/package0/m0.py" in found[0]["lib/package0/__pycache__/m0.cpython-313.pyc"]
