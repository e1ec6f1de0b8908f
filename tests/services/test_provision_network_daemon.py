"""The table of misdeeds again, through the whole daemon: from the configuration to the published model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.provisioner.config import Config, Mirrors, Policy
from services.provisioner.daemon import Daemon
from services.provisioner.pins import HttpsSource, HuggingfaceSource, OllamaSource, PinnedFile
from tests.misbehaving.hub import add_repository
from tests.misbehaving.registry import add_tag
from tests.misbehaving.server import Fault, MisbehavingServer
from tests.services import provision_cases
from tests.services.provision_cases import CASES, CONTENT, PROTOCOLS, REVISION, SHA256, SIZE, STALL, Case, at
from tests.services.provision_pins import as_json, configuration, pinned_model

ROOT = Path(__file__).resolve().parents[2]
HASTY = Policy(first=0.01, factor=1.5, jitter=0.0, cap=0.05, stall=STALL)


def run(config: Config) -> dict[str, object]:
    """Let a daemon do what it can; the model's entry in status.json."""
    daemon = Daemon(config, sealing=False)
    try:
        daemon.run(once=True)
    finally:
        daemon.close()
    (entry,) = json.loads(Path(config.status_file).read_text())["models"]
    return dict(entry)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "case", [case for case in CASES if "Retry-After" not in case.name], ids=lambda case: case.name
)
def test_the_daemon_ends_each_misdeed_as_the_table_says(
    case: Case, protocol: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    world = provision_cases.world(server, protocol)
    if case.before:
        case.before(world)
    path = world.front if case.front else world.back
    server.faults[path] = [*case.faults, *([case.always] * 50 if case.always else [])]
    told = world.config
    config = configuration(
        tmp_path,
        pinned_model("tiny", world.file),
        policy=HASTY._replace(stall=provision_cases.stall(case)),
        mirrors=told.mirrors,
        mirrors_only=told.mirrors_only,
    )
    entry = run(config)
    assert entry["attempts"] == case.attempts, entry
    published = Path(config.directory) / "tiny" / world.file.name
    if case.error:
        assert entry["state"] == "failed" and case.error in str(entry["reason"]), entry
        assert not published.exists()
    else:
        assert entry["state"] == "ready" and published.read_bytes() == CONTENT, entry
        assert SIZE <= int(str(entry["fetched"])) <= SIZE * (1 + case.again) + 1, entry


STORM = (
    *(Fault("status"), Fault("reset", at(0.1)), Fault("truncate", at(0.2)), Fault("stall", at(0.1))),
    *(Fault("garbage"), Fault("wrong-range"), Fault("status", status=429), Fault("unsized")),
)


def test_a_repository_comes_whole_through_a_storm(server: MisbehavingServer, tmp_path: Path) -> None:
    files = {"model.gguf": CONTENT, "config.json": b"{}", "sub/tokenizer.json": CONTENT[:50_000]}
    repository = add_repository(server, "org/tiny", REVISION, files)
    server.faults[repository.stored(CONTENT)] = list(STORM)
    server.faults[repository.resolve("config.json")] = list(STORM[:3])
    pins = [
        PinnedFile(name, len(data), _sha256(data), HuggingfaceSource("org/tiny", REVISION, name))
        for name, data in files.items()
    ]
    mirrors = Mirrors(huggingface=(server.url,))
    config = configuration(
        tmp_path, pinned_model("tiny", *pins), policy=HASTY, mirrors=mirrors, mirrors_only=True
    )
    entry = run(config)
    assert entry["state"] == "ready", entry
    for name, data in files.items():
        assert (Path(config.directory) / "tiny" / name).read_bytes() == data
    total = sum(len(data) for data in files.values())
    assert total <= int(str(entry["fetched"])) < total * 1.01


def test_a_tag_comes_whole_through_a_storm(server: MisbehavingServer, tmp_path: Path) -> None:
    config, tag = _tag(server, tmp_path)
    server.faults[tag.stored(SHA256)] = list(STORM)
    server.faults[tag.manifest_path] = [Fault("status"), Fault("truncate", 20)]
    entry = run(config)
    assert entry["state"] == "ready", entry
    folder = Path(config.directory) / "tiny"
    assert (folder / "manifest.json").read_bytes() == tag.manifest
    assert (folder / f"blobs/sha256-{SHA256}").read_bytes() == CONTENT
    # Restarted, it has nothing to ask for.
    asked = len(server.requests)
    assert run(config)["state"] == "ready" and len(server.requests) == asked


def test_a_tag_that_moved_fails_at_once(server: MisbehavingServer, tmp_path: Path) -> None:
    config, tag = _tag(server, tmp_path)
    moved = tag.manifest.replace(b"layers", b"layers ", 1).replace(b'"layers "', b'"layers" ')
    server.files[tag.manifest_path] = moved
    entry = run(config)
    assert entry["state"] == "failed" and "has moved" in str(entry["reason"]), entry
    assert _sha256(tag.manifest) in str(entry["reason"]) and _sha256(moved) in str(entry["reason"])


def test_what_a_killed_daemon_had_is_not_fetched_again(server: MisbehavingServer, tmp_path: Path) -> None:
    content = CONTENT * 8
    server.files["/model"] = content
    server.faults["/model"] = [Fault("drip", pace=4e6)] * 9
    file = PinnedFile("model", len(content), _sha256(content), HttpsSource(f"{server.url}/model"))
    config = configuration(tmp_path, pinned_model("tiny", file), policy=HASTY)
    (tmp_path / "provision.json").write_text(json.dumps(as_json(config)))
    program = "import sys; from services.provisioner.cli import main; sys.exit(main())"
    options = ["--config", str(tmp_path / "provision.json"), "run", "--once"]
    part = Path(config.state_directory) / "parts" / file.sha256

    def held() -> int:
        return part.stat().st_size if part.exists() else 0

    for share in (0.2, 0.5, 0.8):
        process = subprocess.Popen([sys.executable, "-c", program, *options], cwd=ROOT)
        until = time.monotonic() + 30
        while held() < share * len(content) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert subprocess.run([sys.executable, "-c", program, *options], cwd=ROOT, timeout=60).returncode == 0
    assert (Path(config.directory) / "tiny/model").read_bytes() == content
    assert len(server.asked("/model")) == 4
    # A piece of the drip may have been under way, each time.
    assert server.sent["/model"] < len(content) + 3 * 2 * 4e6 * 0.05


def _tag(server: MisbehavingServer, folder: Path):  # type: ignore[no-untyped-def]
    tag = add_tag(server, "library/tiny", "135m", {"model": CONTENT, "template": b"{{ .Prompt }}"})
    source = OllamaSource("library/tiny", "135m")
    pins = [PinnedFile("manifest.json", len(tag.manifest), _sha256(tag.manifest), source)]
    pins += [PinnedFile(f"blobs/sha256-{name}", len(data), name, source) for name, data in tag.blobs.items()]
    mirrors = Mirrors(ollama=(server.url,))
    model = pinned_model("tiny", *pins)
    return configuration(folder, model, policy=HASTY, mirrors=mirrors, mirrors_only=True), tag


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
