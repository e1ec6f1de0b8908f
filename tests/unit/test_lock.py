"""The lock: what is written is what is read, and every wrong value is named with its file and key."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import HalError
from hal.lock.debian import load_sets
from hal.lock.file import (
    Artifact,
    DebianLock,
    DebianPackage,
    DebianSource,
    FileSource,
    Lock,
    PypiSource,
    UrlSource,
    Wheel,
    format_lock,
    load_lock,
    parse_source,
    write_lock,
)
from hal.lock.resolve import load_inputs

SHA = "0123456789abcdef" * 4


def package(name: str = "bash", version: str = "1:5.2-1+b1", archive: str = "main") -> DebianPackage:
    path = f"pool/main/b/{name}/{name}_{version.partition(':')[2] or version}_amd64.deb"
    return DebianPackage(path.rpartition("/")[2], SHA, 10, f"debian:{archive}/{path}", name, version, "amd64")


def a_lock() -> Lock:
    return Lock(
        DebianLock(
            "trixie",
            "amd64",
            datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC),
            {"base": (package("bash"), package("dash", "0.5-1", "security"))},
        ),
        {"some-wheel": Wheel("some_wheel-1-py3-none-any.whl", SHA, 5, "pypi:some-wheel==1")},
    )


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "hal.lock"
    write_lock(a_lock(), path)
    assert load_lock(path) == a_lock()
    assert [entry.name for entry in tmp_path.iterdir()] == ["hal.lock"]


names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,12}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
sets = st.dictionaries(
    names,
    st.lists(
        st.builds(
            lambda name, version, digest, size: DebianPackage(
                f"{name}.deb", digest, size, f"debian:main/pool/{name}.deb", name, version, "all"
            ),
            names,
            st.text(min_size=1, max_size=8),
            digests,
            st.integers(0, 2**40),
        ),
        unique_by=lambda one: one.package,
        max_size=4,
    ).map(lambda rows: tuple(sorted(rows, key=lambda row: row.package))),
    max_size=3,
)


@given(sets, st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_any_lock_comes_back(tmp_path_factory: pytest.TempPathFactory, found: Any, moment: datetime) -> None:
    lock = Lock(DebianLock("trixie", "amd64", moment.replace(microsecond=0, tzinfo=UTC), found), {})
    path = tmp_path_factory.getbasetemp() / "any.lock"
    write_lock(lock, path)
    assert load_lock(path) == lock


def test_one_line_per_artifact_and_sorted() -> None:
    lines = format_lock(a_lock()).splitlines()
    assert sum('"sha256"' in line for line in lines) == 3
    assert all(line.count('"sha256"') <= 1 for line in lines)
    names = [found[1] for line in lines if (found := re.search(r'"package": "(\w+)"', line))]
    assert names == ["bash", "dash"]


Damage = Callable[[dict[str, Any]], object]
DAMAGES: list[tuple[str, Damage, str]] = [
    ("unknown key", lambda d: d.update(more=1), "unknown key 'more'"),
    ("missing key", lambda d: d.pop("wheels"), "the key 'wheels' is missing"),
    ("newer schema", lambda d: d.update(schema=99), "schema: this hal reads schema 1, the file has 99"),
    ("schema as text", lambda d: d.update(schema="1"), "schema: expected int, found str"),
    ("sets as list", lambda d: d["debian"].update(sets=[]), "debian.sets: expected dict, found list"),
    ("set as text", lambda d: d["debian"]["sets"].update(base="x"), "debian.sets.base: expected a list"),
    ("time", lambda d: d["debian"].update(created="yesterday"), "debian.created: 'yesterday' is no UTC time"),
    ("row", lambda d: d["debian"]["sets"]["base"].append(3), "debian.sets.base[2]: expected an object"),
    ("row key", lambda d: d["debian"]["sets"]["base"][1].pop("size"), "debian.sets.base[1]: the key 'size'"),
    (
        "size as bool",
        lambda d: d["debian"]["sets"]["base"][0].update(size=True),
        "base[0].size: expected int",
    ),
    (
        "negative size",
        lambda d: d["debian"]["sets"]["base"][0].update(size=-1),
        "base[0].size: -1 is negative",
    ),
    (
        "short sha256",
        lambda d: d["debian"]["sets"]["base"][0].update(sha256="ab"),
        "base[0].sha256: 'ab' is not",
    ),
    (
        "upper-case sha256",
        lambda d: d["debian"]["sets"]["base"][0].update(sha256=SHA.upper()),
        "base[0].sha256:",
    ),
    (
        "climbing path",
        lambda d: d["debian"]["sets"]["base"][0].update(source="debian:main/pool/../../x.deb"),
        "base[0].source: 'pool/../../x.deb' is no path",
    ),
    (
        "odd archive",
        lambda d: d["debian"]["sets"]["base"][0].update(source="debian:ports/pool/x.deb"),
        "base[0].source: 'ports' is no Debian archive",
    ),
    (
        "package by URL",
        lambda d: d["debian"]["sets"]["base"][0].update(source="https://x/y.deb"),
        "base[0].source: 'https://x/y.deb' does not begin with debian:",
    ),
    (
        "twice",
        lambda d: d["debian"]["sets"]["base"].append(dict(d["debian"]["sets"]["base"][0])),
        "debian.sets.base: bash is listed twice",
    ),
    (
        "wheel of another project",
        lambda d: d["wheels"]["some-wheel"].update(source="pypi:other==1"),
        "wheels.some-wheel.source: 'pypi:other==1' does not begin with pypi:some-wheel==",
    ),
    ("wheel name", lambda d: d["wheels"]["some-wheel"].update(name="../x"), "wheels.some-wheel.name: '../x'"),
]


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_every_wrong_value_is_named(tmp_path: Path, damage: Damage, message: str) -> None:
    path = tmp_path / "hal.lock"
    document = json.loads(format_lock(a_lock()))
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(HalError) as caught:
        load_lock(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert "hal lock" in (caught.value.hint or "")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(HalError, match="there is no lock here"):
        load_lock(tmp_path / "absent")
    (tmp_path / "cut").write_text(format_lock(a_lock())[:200])
    with pytest.raises(HalError, match="cannot be read as a lock"):
        load_lock(tmp_path / "cut")


def test_failed_write_keeps_the_old_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hal.lock"
    write_lock(a_lock(), path)
    before = path.read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HalError, match="No space left"):
        write_lock(Lock(a_lock().debian, {}), path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["hal.lock"]


def test_sources() -> None:
    assert parse_source("debian:security/pool/x_1.deb") == DebianSource("security", "pool/x_1.deb")
    assert parse_source("pypi:a-b==1.0+cpu") == PypiSource("a-b", "1.0+cpu")
    assert parse_source("https://host/x") == UrlSource("https://host/x")
    assert parse_source("file:///a/b") == parse_source("file:/a/b") == FileSource(Path("/a/b"))
    for wrong in ("", "x", "ftp://x/y", "file:rel", "pypi:x", "pypi:a b==1", "debian:main/", "https:x"):
        with pytest.raises(ValueError, match=r"."):
            parse_source(wrong)
    with pytest.raises(ValueError, match="no file name"):
        Artifact("a/b", SHA, 1, "file:/x")


def test_lookups_name_what_there_is() -> None:
    lock = a_lock()
    assert lock.packages("base")[0].package == "bash"
    assert lock.wheel("some-wheel").version == "1"
    with pytest.raises(HalError, match=r"no set of Debian packages 'kernel' .it has: base"):
        lock.packages("kernel")
    with pytest.raises(HalError, match="pins no wheel of 'torch'"):
        lock.wheel("torch")


def test_the_shipped_lock_covers_what_is_asked_for_and_names_no_host() -> None:
    begin = time.monotonic()
    lock = load_lock()
    assert time.monotonic() - begin < 0.25
    wanted = load_sets()
    assert lock.debian.suite == wanted.suite
    assert set(lock.debian.sets) == set(wanted.sets)
    for name, rows in lock.debian.sets.items():
        below = wanted.sets[name].on_top_of
        there = {row.package for row in (*rows, *(lock.packages(below) if below else ()))}
        kept = {
            package for package in wanted.sets[name].packages if re.search(wanted.sets[name].keep, package)
        }
        assert kept <= there, name
        assert rows, name
    for wheel in load_inputs().wheels:
        assert wheel.version in (None, lock.wheel(wheel.project).version)
    assert "//" not in format_lock(lock)
