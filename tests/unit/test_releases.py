"""Release archives: which one a spec asks for, and whose word is taken for its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.engines import ArchiveArtifact, load_engine
from hal.errors import HalError, UsageError
from hal.releases import archives, parse_given
from hal.spec import LoadedSpec, parse_spec

CONTENT = b"an archive"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
(ARCHIVE,) = load_engine("ollama").artifacts["x86_64"]
assert isinstance(ARCHIVE, ArchiveArtifact)
PINNED = ARCHIVE.releases


def spec(version: str | None) -> LoadedSpec:
    choice = f"{{ollama: {{version: {version}}}}}" if version else "ollama"
    text = f"appliance: {{name: a, version: '1'}}\nengines: [{choice}]\n"
    return parse_spec(text, Path("a.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ollama.tgz"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("version", [None, "0.32.15", "0.12.3"])
def test_pinned_versions_have_their_digest_and_their_url(version: str | None, tmp_path: Path) -> None:
    found = archives(spec(version), {}, Cache(tmp_path), offline=True)["ollama"]
    release = PINNED[version or "0.32.15"]
    assert (found.sha256, found.source) == (release.sha256, release.url)


def test_a_given_file_stands_for_a_pinned_version_by_its_digest_only(file: Path, tmp_path: Path) -> None:
    found = archives(spec("0.12.3"), parse_given([f"ollama={file}"]), Cache(tmp_path), offline=True)["ollama"]
    assert (found.sha256, found.source) == (PINNED["0.12.3"].sha256, f"file:{file}")
    given = parse_given([f"ollama={file}#sha256={DIGEST}"])
    with pytest.raises(UsageError, match=r"0\.12\.3 has the digest 649ac33e"):
        archives(spec("0.12.3"), given, Cache(tmp_path), offline=True)


def test_another_version_needs_a_file_and_a_digest(file: Path, tmp_path: Path) -> None:
    with pytest.raises(HalError, match=r"ollama 9\.9\.9: hal knows the versions 0\.32\.15, 0\.12\.3"):
        archives(spec("9.9.9"), {}, Cache(tmp_path), offline=True)
    with pytest.raises(HalError, match="does not know this version's digest"):
        archives(spec("9.9.9"), parse_given([f"ollama={file}"]), Cache(tmp_path), offline=True)
    given = parse_given([f"ollama={file}#sha256={DIGEST.upper()}"])
    found = archives(spec("9.9.9"), given, Cache(tmp_path), offline=True)["ollama"]
    assert (found.sha256, found.size) == (DIGEST, len(CONTENT))


@pytest.mark.parametrize("value", ["ollama", "=x", "ollama=/no/such/file", "ollama=x#sha256=12"])
def test_a_value_that_names_no_file(value: str) -> None:
    with pytest.raises(UsageError, match="--artifact"):
        parse_given([value])


def test_a_file_for_an_engine_that_takes_none(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such engine"):
        archives(spec(None), parse_given([f"vllm={file}"]), Cache(tmp_path), offline=True)
