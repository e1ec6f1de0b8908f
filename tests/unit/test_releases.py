"""Release archives: which one a spec asks for, and whose word is taken for its digest."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.engines import ArchiveArtifact, load_engine
from hal.errors import HalError, UsageError
from hal.fetch.releases import archives, parse_given
from hal.packs.runtime import RuntimePart, fill_tree
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, parse_spec

CONTENT = b"an archive"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
(ARCHIVE, ROCM) = load_engine("ollama").artifacts["x86_64"]
assert isinstance(ARCHIVE, ArchiveArtifact)
PINNED = ARCHIVE.releases


def spec(version: str | None, gpu: str = "none") -> LoadedSpec:
    choice = f"{{ollama: {{version: {version}, settings: {{gpu: {gpu}}}}}}}" if version else "ollama"
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


@pytest.mark.parametrize("gpu", ["none", "nvidia", "intel"])
def test_amds_libraries_are_asked_for_with_an_amd_gpu_only(gpu: str, file: Path, tmp_path: Path) -> None:
    assert list(archives(spec("0.12.3", gpu), {}, Cache(tmp_path), offline=True)) == ["ollama"]
    given = parse_given([f"ollama-rocm={file}#sha256={DIGEST}"])
    with pytest.raises(UsageError, match="the spec takes no archive of this name"):
        archives(spec("0.12.3", gpu), given, Cache(tmp_path), offline=True)


def test_amds_libraries_come_from_a_file_with_its_digest(file: Path, tmp_path: Path) -> None:
    with pytest.raises(HalError, match=r"ollama-rocm 0\.12\.3: hal knows no version's digest") as caught:
        archives(spec("0.12.3", "amd"), {}, Cache(tmp_path), offline=True)
    assert "--artifact ollama-rocm=FILE[#sha256=DIGEST]" in str(caught.value.hint)
    given = parse_given([f"ollama-rocm={file}#sha256={DIGEST}"])
    found = archives(spec("0.12.3", "amd"), given, Cache(tmp_path), offline=True)
    assert found["ollama"].sha256 == PINNED["0.12.3"].sha256
    assert (found["ollama-rocm"].sha256, found["ollama-rocm"].source) == (DIGEST, f"file:{file}")


def test_a_file_for_an_engine_that_takes_none(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no archive of this name"):
        archives(spec(None), parse_given([f"vllm={file}"]), Cache(tmp_path), offline=True)


def test_amds_libraries_are_unpacked_over_the_first_archive(tools: Sandbox, tmp_path: Path) -> None:
    """Both have `bin/` and `lib/` at their top; nothing of either is left out."""
    layouts = {
        "ollama.tgz": {"./bin/ollama": "#!", "./lib/ollama/libggml-base.so": "one"},
        "rocm.tgz": {"./lib/ollama/rocm/libggml-hip.so": "two"},
    }
    parts = []
    for name, members in layouts.items():
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            for path, text in members.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        parts.append(RuntimePart("archive", tmp_path / name, name, ""))
    tree = tmp_path / "tree"
    tree.mkdir()
    fill_tree(tree, load_engine("ollama"), parts, tools)
    found = {f"./{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file()}
    assert found == {*layouts["ollama.tgz"], *layouts["rocm.tgz"]}
