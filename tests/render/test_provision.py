"""What the provisioner is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hal.packs.reference import PackRef, pack_label
from hal.render import render
from hal.spec.loading import LoadedSpec, load_spec, parse_spec
from services.provisioner.config import parse

SPEC = """\
appliance: {name: a, version: 1.0.0}
init: INIT
variant: debug
engines: [vllm, llamacpp]
machine: {memory: 16G}
models:
  - {name: smollm2-135m-safetensors, delivery: network}
  - {name: smollm2-135m, delivery: disk}
disk: {state: 512M}
provision:
  attempts: 7
  first_backoff: 1
  bandwidth: 10M
  quota: 400M
  proxy: http://proxy.example:3128
  no_proxy: [inside.example]
  mirrors: {https: [http://mirror.example/models/], huggingface: [https://hub.example]}
  huggingface_credential: hub-token
"""
ROOT_HASH = "e" * 64
PACKS = [
    PackRef("engine", "smollm2-135m", "e-x", 1, "00", "f" * 64, "/opt/x"),
    PackRef(
        "model",
        "smollm2-135m",
        pack_label("model", "smollm2-135m", ROOT_HASH),
        7,
        "00",
        ROOT_HASH,
        "/srv/models/smollm2-135m",
    ),
]


def appliance(init: str = "systemd", text: str = SPEC) -> LoadedSpec:
    return parse_spec(text.replace("INIT", init), Path("spec.yaml"))


def told(loaded: LoadedSpec, built: int = 5) -> dict[str, Any]:
    text = render(loaded, PACKS, built)["/etc/hal/provision.json"].content
    data: dict[str, Any] = json.loads(text)
    understood = parse(text)  # by the provisioner itself
    assert [model.id for model in understood.models] == [model["id"] for model in data["models"]]
    return data


def test_the_provisioners_block() -> None:
    data = told(appliance())
    assert data["built"] == 5
    assert data["policy"] == {
        "attempts": 7,
        "first": 1,
        "factor": 2.0,
        "jitter": 0.2,
        "cap": 300.0,
        "stall": 60.0,
        "deadline": None,
        "rest": 3600.0,
    }
    assert (data["bandwidth"], data["quota"], data["reserve"]) == (10 << 20, 400 << 20, 64 << 20)
    assert (data["proxy"], data["no_proxy"], data["ca"]) == (
        "http://proxy.example:3128",
        ["inside.example"],
        None,
    )
    assert data["mirrors"] == {
        "https": ["http://mirror.example/models"],
        "huggingface": ["https://hub.example"],
        "ollama": [],
    }
    assert data["mirrors_only"] is False


@pytest.mark.parametrize("init", ["systemd", "sysv"])
def test_where_the_credential_is_depends_on_the_init_system(init: str) -> None:
    path = told(appliance(init))["huggingface_credential"]
    assert path.endswith("/hub-token")
    assert path.startswith("/run/")


def test_a_fetched_model_has_its_sources_and_a_pack_its_root_hash() -> None:
    fetched, packed = told(appliance())["models"]
    assert (fetched["delivery"], fetched["pack"], len(fetched["files"])) == ("network", None, 6)
    assert {file["source"]["kind"] for file in fetched["files"]} == {"https"}
    assert fetched["size"] == sum(file["size"] for file in fetched["files"])
    assert packed["pack"] == {
        "label": PACKS[1].label,
        "root_hash": ROOT_HASH,
        "mountpoint": "/srv/models/smollm2-135m",
    }
    # What is not to be fetched has no place to be fetched from.
    assert [file["source"] for file in packed["files"]] == [None]
    assert packed["id"] != fetched["id"]


def test_certificates_go_into_the_image(tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "own.pem").write_text(pem)
    text = SPEC.replace("INIT", "systemd") + "  ca: own.pem\n"
    files = render(parse_spec(text, tmp_path / "spec.yaml"), [])
    path = json.loads(files["/etc/hal/provision.json"].content)["ca"]
    assert files[path].content == pem


def test_an_image_whose_models_are_packs_is_told_of_them_and_one_without_models_of_nothing() -> None:
    (model,) = told(load_spec("starter"))["models"]
    assert (model["delivery"], model["name"]) == ("image", "smollm2-135m")
    engines = "engines: [{openai: {settings: {base_url: http://127.0.0.1:1/v1, model: m}}}]\n"
    loaded = parse_spec("appliance: {name: a, version: 1.0.0}\n" + engines, Path("spec.yaml"))
    assert "/etc/hal/provision.json" not in render(loaded, [])
