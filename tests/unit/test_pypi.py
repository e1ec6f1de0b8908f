"""Wheels: the one that fits best, from whatever index the host is configured with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from hal.cache import Cache
from hal.errors import HalError
from hal.fetch.fetcher import Fetcher, GoneError
from hal.fetch.pypi import index_url, manylinux, resolve_wheel
from hal.fetch.sources import Mirrors
from hal.lock.file import Wheel
from tests.misbehaving.server import MisbehavingServer, misbehaving_server, unused_url

NAMES = [
    "thing-1.0-py3-none-any.whl",
    "thing-1.0-cp310-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "thing-1.0-cp310-abi3-manylinux2014_aarch64.whl",
    "thing-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
    "thing-1.0-cp313-cp313-win_amd64.whl",
    "thing-1.0.tar.gz",
    "thing-1.1-cp310-abi3-manylinux_2_99_x86_64.whl",
    "thing-2.0rc1-py3-none-any.whl",
    "thing-3.0-py3-none-any.whl",
    "other-1-py3-none-any.whl",
]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    with misbehaving_server() as server:
        for project in ("thing", "other"):
            links = []
            for name in NAMES:
                if name.startswith(project):
                    digest = hashlib.sha256(name.encode()).hexdigest()
                    yanked = ' data-yanked="broken"' if "-3.0-" in name else ""
                    links.append(f'<a href="/files/{name}#sha256={digest}"{yanked}>{name}</a>')
                    server.files[f"/files/{name}"] = name.encode()
            page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
            server.files[f"/simple/{project}/"] = page.encode()
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        yield server


def test_the_best_fitting_wheel(index: MisbehavingServer) -> None:
    wheel = resolve_wheel("thing")
    assert wheel.name == NAMES[1]
    assert wheel.source == "pypi:thing==1.0"
    assert wheel.size == len(NAMES[1])
    assert resolve_wheel("thing", "1.0", platforms=manylinux("aarch64")).name == NAMES[2]
    assert resolve_wheel("thing", "2.0rc1").name == NAMES[7]
    assert resolve_wheel("thing", "3.0").name == NAMES[8]


def test_no_wheel(index: MisbehavingServer) -> None:
    for project, version in [("thing", "1.1"), ("thing", "9"), ("absent", None)]:
        with pytest.raises(HalError, match=f"no wheel of {project}"):
            resolve_wheel(project, version)


def test_a_pinned_wheel_is_fetched_by_its_name(index: MisbehavingServer, tmp_path: Path) -> None:
    wheel = resolve_wheel("other")
    cache = Cache(tmp_path)
    Fetcher(cache, Mirrors()).fetch([wheel])
    assert cache.path(wheel.sha256).read_bytes() == wheel.name.encode()
    gone = Wheel("other-0-py3-none-any.whl", "0" * 64, 1, "pypi:other==0")
    with pytest.raises(GoneError):
        Fetcher(cache, Mirrors()).fetch([gone])


def test_an_index_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", unused_url().replace("//", "//user:secret@"))
    with pytest.raises(HalError, match=r"the package index .* cannot be used") as caught:
        resolve_wheel("thing")
    assert "secret" not in str(caught.value)
    wheel = Wheel("other-1-py3-none-any.whl", "0" * 64, 1, "pypi:other==1")
    with pytest.raises(HalError, match=r"the package index .* cannot be used"):
        Fetcher(Cache(tmp_path), Mirrors()).fetch([wheel])


def test_which_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    config = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    config.write_text("[global]\nindex-url = https://index.example/simple\n")
    assert index_url() == "https://index.example/simple"
    config.write_text("no configuration at all")
    monkeypatch.setattr("hal.fetch.pypi.SYSTEM_FILES", ())
    assert index_url() == PYPI_SIMPLE_ENDPOINT
    monkeypatch.setenv("PIP_INDEX_URL", "https://chosen.example/simple")
    assert index_url() == "https://chosen.example/simple"
