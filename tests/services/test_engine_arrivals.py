"""hal-engine and models that arrive after the machine has started: who waits, and who takes them in."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hal.engines import load_engine
from services.engine import launcher
from tests.conftest import Archive
from tests.services.launched import Launch, Launched, launching, unpack

STORE = "state/models"
MANIFEST = f"{STORE}/manifests/registry.ollama.ai/library/NAME/latest"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    with launching(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def program(ollama: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("opt-ollama")
    yield unpack(ollama, directory)
    shutil.rmtree(directory)


def model(name: str, path: Path | str, marker: Path | str = "", **more: Any) -> dict[str, Any]:
    listed = f"{name}:latest"
    return {
        "name": name,
        "listed": listed,
        "path": str(path),
        "sha256": "1" * 64,
        "marker": str(marker),
        **more,
    }


def ollama_model(directory: Path, weights: Path) -> Path:
    """Weights as Ollama's registry has them: a manifest, and blobs named by their digests."""
    (directory / "blobs").mkdir(parents=True)
    content = {"model": weights.read_bytes(), "config": b'{"model_format": "gguf"}'}
    layer = {}
    for kind, data in content.items():
        digest = hashlib.sha256(data).hexdigest()
        (directory / f"blobs/sha256-{digest}").write_bytes(data)
        media = "application/vnd.ollama.image.model" if kind == "model" else "application/vnd.docker.config"
        layer[kind] = {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}
    manifest = {"schemaVersion": 2, "config": layer["config"], "layers": [layer["model"]]}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def ollama(launch: Launch, program: Path, home: Path, *models: dict[str, Any]) -> Launched:
    registration = load_engine("ollama").registration
    assert registration is not None
    return launch(
        {"OLLAMA_MODELS": str(home / STORE), "HOME": str(home / "state")},
        command=["/usr/bin/env", "OLLAMA_HOST=127.0.0.1:${PORT}", str(program), "serve"],
        readiness={"path": "/", "status": 200, "models_path": "/v1/models"},
        binds_models="runtime",
        models=list(models),
        registration={
            "text": registration.text + "\n",
            "command": [
                *("/usr/bin/env", "OLLAMA_HOST=127.0.0.1:${PORT}", str(program)),
                *registration.command[1:],
            ],
            "store": registration.store,
        },
    )


def listed(launched: Launched) -> list[str]:
    names = httpx.get(f"http://127.0.0.1:{launched.port}/api/tags", timeout=30).json()["models"]
    return [entry["name"] for entry in names]


def test_an_engine_that_binds_at_start_does_not_start_without_it(launch: Launch) -> None:
    models = [model("tiny", "HOME/model", "HOME/absent")]
    launched = launch(models=models, binds_models="start")
    status, said = launched.end()
    words = "the model tiny has not arrived; `hal-provision status` says how far it is"
    assert (status, said) == (1, f"hal-engine: {words}\n")
    assert launched.state == f"failed {words}", "not for good"


def test_it_starts_where_the_marker_is(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "marker").write_text("an id")
    models = [{**model("tiny", "HOME/model", "HOME/marker"), "listed": "tiny"}]
    launched = launch(models=models, binds_models="start")
    assert "serving tiny" in launched.told("READY=1")


def test_a_model_that_is_gone_again_is_not_a_missing_pack(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "marker").write_text("an id")
    _, said = launch(models=[model("tiny", "/nowhere/tiny", "HOME/marker")]).end()
    assert "the model tiny is not at /nowhere/tiny: it was taken away again (`hal-provision status`" in said


def test_ollama_serves_without_it_and_takes_it_in_when_it_comes(
    launch: Launch, program: Path, tiny: Path, tmp_path: Path
) -> None:
    late = tmp_path / "arriving"
    launched = ollama(launch, program, tmp_path, model("now", tiny), model("tiny", late, tmp_path / "marker"))
    assert "STATUS=serving now; waiting for tiny (`hal-provision status`)" in launched.told("READY=1")
    assert listed(launched) == ["now:latest"]
    (child,) = launched.children()
    shutil.copyfile(tiny, late)
    (tmp_path / "marker").write_text("an id")
    launched.told("STATUS=serving now, tiny")
    assert listed(launched) == ["now:latest", "tiny:latest"]
    assert launched.children() == [child], "it was not restarted"
    assert launched.state == "ready serving now, tiny"


def test_one_that_cannot_be_taken_in_ends_nothing_and_is_tried_again(
    launch: Launch, program: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = tmp_path / "arriving"
    late.write_bytes(b"no weights at all")
    launched = ollama(launch, program, tmp_path, model("now", tiny), model("tiny", late, tmp_path / "marker"))
    launched.told("READY=1")
    (tmp_path / "marker").write_text("an id")
    launched.told("registering the model tiny")
    launched.told("STATUS=serving now; waiting for tiny")
    assert listed(launched) == ["now:latest"]
    launched.process.send_signal(signal.SIGTERM)
    status, said = launched.end()
    assert status == 0
    assert f"the engine does not take the model tiny from {late}" in said
    assert f"tried again in {launcher.RETRY:g} s" in said


def test_a_model_of_ollamas_registry_becomes_links_in_its_store(
    launch: Launch, program: Path, tiny: Path, tmp_path: Path
) -> None:
    place = tmp_path / "arriving"
    wanted = model("own", place, tmp_path / "marker", format="ollama")
    launched = ollama(launch, program, tmp_path, wanted)
    launched.told("READY=1")
    assert listed(launched) == []
    ollama_model(place, tiny)
    (tmp_path / "marker").write_text("an id")
    launched.told("STATUS=serving own")
    assert listed(launched) == ["own:latest"]
    blobs = sorted((tmp_path / STORE / "blobs").iterdir())
    assert [blob.readlink() for blob in blobs] == sorted((place / "blobs").iterdir()), "links, no copies"
    question = {"model": "own", "prompt": "Hi", "stream": False, "options": {"num_predict": 4}}
    answer = httpx.post(f"http://127.0.0.1:{launched.port}/api/generate", json=question, timeout=60).json()
    assert answer["response"]


def test_it_is_there_from_the_start_when_it_has_arrived_before(
    launch: Launch, program: Path, tiny: Path, tmp_path: Path
) -> None:
    place = ollama_model(tmp_path / "there", tiny)
    (tmp_path / "marker").write_text("an id")
    launched = ollama(launch, program, tmp_path, model("own", place, tmp_path / "marker", format="ollama"))
    assert launched.told("READY=1") == "STATUS=serving own\nREADY=1"
    assert listed(launched) == ["own:latest"]


@pytest.mark.parametrize("kind", ["ollama", "gguf"])
def test_old_weights_are_not_listed_while_new_ones_are_awaited(
    launch: Launch, program: Path, tiny: Path, tmp_path: Path, kind: str
) -> None:
    old = ollama_model(tmp_path / STORE, tiny)  # its blobs lie in the store
    place = tmp_path / MANIFEST.replace("NAME", "own")
    place.parent.mkdir(parents=True)
    shutil.move(old / "manifest.json", place)
    if kind == "gguf":
        (tmp_path / "state/hal-models.json").write_text(json.dumps({"own": "2" * 64}))
    launched = ollama(launch, program, tmp_path, model("own", "/x", tmp_path / "marker", format=kind))
    launched.told("READY=1")
    assert listed(launched) == []
