"""How models come in, as a spec says it: what is refused, in which words, and what is asked of the disk."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from hal.models import Model, OllamaSource
from hal.spec.check_provision import room, state_needed
from hal.spec.loading import json_schema, parse_spec
from tests.unit.spec_problems import HEAD, INLINE, SHA, STARTER, assert_told

MIB = 1 << 20
VLLM = HEAD + "engines: [vllm]\nmachine: {memory: 16G}\n"
FETCHED = "models: [{name: smollm2-135m-safetensors, delivery: network}]\n"
ROOM = "disk: {state: 512M}\n"
OTHER_SHA = "c" * 64
OLLAMA = (
    HEAD + "engines: [ollama]\ndisk: {state: 512M}\nmodels:\n  - name: tiny\n    format: ollama\n    files:\n"
)
MANIFEST = f"{{name: manifest.json, size: 3, sha256: {SHA}, source: {{kind: ollama, model: tiny, tag: 1b}}}}"
BLOB = MANIFEST.replace("manifest.json", f"blobs/sha256-{SHA}")


def hub(**changes: str) -> str:
    """A spec whose one file is on the Hugging Face hub."""
    source = {
        "kind": "huggingface",
        "repository": "org/tiny",
        "revision": "d" * 40,
        "path": "t.gguf",
    } | changes
    pairs = ", ".join(f"{key}: {value}" for key, value in source.items())
    return INLINE + f"{{name: t.gguf, size: 3, sha256: {SHA}, source: {{{pairs}}}}}\n"


TABLE: dict[str, tuple[str, list[str]]] = {
    "offline": (
        VLLM + FETCHED + ROOM + "offline: true\n",
        [
            (
                "4: models[0].delivery: smollm2-135m-safetensors would be fetched at run time, "
                "and the spec says "
                "`offline: true`"
            )
        ],
    ),
    "what lies in a wheel cannot be fetched": (
        STARTER.replace("[smollm2-135m]", "[{name: smollm2-135m, delivery: network}]") + ROOM,
        [
            (
                "3: models[0].delivery: cannot be network: SmolLM2-135M-Instruct.Q4_1.gguf lies in a wheel, "
                "where the appliance cannot fetch it"
            )
        ],
    ),
    "nor what lies here": (
        INLINE
        + f"{{name: t.gguf, size: 3, sha256: {SHA}, source: {{kind: file, path: t.gguf}}}}\n"
        + "    delivery: network\ndisk: {state: 512M}\n",
        [
            (
                "8: models[0].delivery: cannot be network: t.gguf lies on the machine that builds, where the "
                "appliance cannot fetch it"
            )
        ],
    ),
    "no room": (
        VLLM + FETCHED,
        [
            (
                "1: disk.state: 64M is too little: the models that come at run time "
                f"(smollm2-135m-safetensors) need {state_needed(271_170_520) // MIB}M, with a "
                f"reserve and what the file system takes for itself"
            )
        ],
    ),
    "no room for what an operator gives": (
        STARTER.replace("[smollm2-135m]", "[{name: smollm2-135m, delivery: import}]"),
        [
            (
                "1: disk.state: 64M is too little: the models that come at run time "
                f"(smollm2-135m) need {state_needed(98_362_432) // MIB}M, with a reserve and what "
                f"the file system takes for itself"
            )
        ],
    ),
    "quota": (
        VLLM + FETCHED + ROOM + "provision: {quota: 100M}\n",
        ["6: provision.quota: 100M is too little: the models that come at run time have 259M"],
    ),
    "no name server": (
        VLLM + FETCHED + ROOM + "network: {dhcp: false, address: 192.0.2.1/24}\n",
        [
            (
                "4: models[0].delivery: smollm2-135m-safetensors comes from hosts that have names, and the "
                "appliance has no name server (`network.dns`)"
            )
        ],
    ),
    "mirrors alone, and none": (
        VLLM + FETCHED + ROOM + "provision: {mirrors: {huggingface: [https://m.example], only: true}}\n",
        [
            (
                "6: provision.mirrors.only: the sources themselves are never asked, and there is "
                "no mirror for "
                "https"
            )
        ],
    ),
    "the block": (
        STARTER + "provision: {cap: 1, bandwidth: 0, no_proxy: [a.example], ca: nothing.pem}\n",
        [
            "4: provision.bandwidth: must be more than nothing; leave it out for no limit",
            "4: provision.ca: DIR/nothing.pem: No such file or directory",
            "4: provision.cap: is 1, and the first pause (`first_backoff`) is longer: 5",
            "4: provision.no_proxy: there is no `proxy`",
        ],
    ),
    "misspelt": (
        STARTER + "provision: {atempts: 1, mirrors: {hugginface: []}}\n",
        [
            "4: provision.atempts: unknown key (did you mean attempts?)",
            "4: provision.mirrors.hugginface: unknown key (did you mean huggingface?)",
        ],
    ),
    "misspelt delivery": (
        STARTER.replace("[smollm2-135m]", "[{name: smollm2-135m, delivery: netwrok}]"),
        [
            (
                "3: models[0].delivery: must be one of image, disk, network, import, not "
                "'netwrok' (did you mean "
                "network?)"
            )
        ],
    ),
    "misspelt key beside a name": (
        STARTER.replace("[smollm2-135m]", "[{name: smollm2-135m, delivry: disk}]"),
        ["3: models[0].delivry: unknown key (did you mean delivery?)"],
    ),
    "a proxy with a password": (
        STARTER + "provision: {proxy: 'http://me:secret@proxy.example:3128'}\n",
        [
            (
                "4: provision.proxy: must be a URL such as http://proxy:3128, without a user, a "
                "password, ? and "
                "#: what stands in a spec can be read in the image"
            )
        ],
    ),
    "no file of a model": (
        STARTER.replace("[smollm2-135m]", "[./mine.yaml]"),
        ["3: models[0]: there is no file DIR/mine.yaml"],
    ),
    "a branch": (
        hub(revision="main"),
        [
            (
                "7: models[0].files[0].source.revision: must be a commit: 40 hexadecimal digits, "
                "since branches "
                "and tags move"
            )
        ],
    ),
    "no organisation": (
        hub(repository="tiny"),
        ["7: models[0].files[0].source.repository: must be a repository: ORG/NAME"],
    ),
    "out of the repository": (
        hub(path="../x"),
        ["7: models[0].files[0].source.path: must be a file's path, without spaces and `..`"],
    ),
    "an Ollama model without its manifest": (
        OLLAMA + f"      - {BLOB}\n",
        ["5: models[0]: an Ollama model needs its manifest, a file named manifest.json"],
    ),
    "a blob under another name": (
        OLLAMA + f"      - {MANIFEST}\n      - {BLOB.replace('blobs/sha256-' + SHA, 'weights.gguf')}\n",
        [
            (
                "5: models[0]: weights.gguf: a file of an Ollama model is named manifest.json, or "
                "blobs/sha256-SHA256 with its own digest"
            )
        ],
    ),
    "an Ollama model for llama.cpp": (
        OLLAMA.replace("[ollama]", "[llamacpp]") + f"      - {MANIFEST}\n",
        [
            "2: engines[0]: llamacpp loads a model when it starts, and `models` has none in gguf",
            "5: models[0]: no chosen engine can serve ollama weights: llamacpp reads gguf",
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), TABLE.values(), ids=TABLE.keys())
def test_every_problem_is_told_with_its_line(text: str, expected: list[str], tmp_path: Path) -> None:
    assert_told(text, expected, tmp_path)


def test_a_known_model_keeps_all_but_its_delivery() -> None:
    (model,) = parse_spec(VLLM + FETCHED + ROOM, Path("spec.yaml")).models
    assert (model.delivery, model.license, model.packed) == ("network", "Apache-2.0", False)


def test_a_model_is_named_by_its_files_in_any_order() -> None:
    loaded = parse_spec(OLLAMA + f"      - {MANIFEST}\n      - {BLOB}\n", Path("spec.yaml"))
    (model,) = loaded.models
    other = Model.model_validate(
        {**model.model_dump(), "files": [file.model_dump() for file in reversed(model.files)]}
    )
    assert len(model.identity) == 32
    assert other.identity == model.identity
    renamed = {**model.files[1].model_dump(), "size": 4}
    third = Model.model_validate({**model.model_dump(), "files": [model.files[0].model_dump(), renamed]})
    assert third.identity != model.identity
    assert isinstance(model.files[0].source, OllamaSource)
    assert model.files[0].source.model == "library/tiny"


@pytest.mark.parametrize(
    "size", [0, 1, 100 * MIB, 447 * MIB, 448 * MIB, 1 << 30, 15 << 30, 140 << 30, 10**24]
)
def test_what_is_needed_has_room_and_hardly_more(size: int) -> None:
    needed = state_needed(size)
    wanted = int(size * (1 + 1 / 127)) + 64 * MIB
    assert needed % MIB == 0
    assert room(needed) >= wanted
    assert needed < 1.1 * wanted + 40 * MIB


def test_the_schema_takes_what_the_loader_takes() -> None:
    schema = json_schema()
    for text in (
        VLLM + FETCHED + ROOM + "provision: {attempts: 3, mirrors: {https: [https://m.example/x]}}\n",
        STARTER.replace("[smollm2-135m]", "[./mine.yaml, {name: ./b/mine.yaml, delivery: disk}]"),
        OLLAMA + f"      - {MANIFEST}\n",
        hub(),
    ):
        jsonschema.validate(yaml.safe_load(text), schema)
    wrong = VLLM + FETCHED.replace("network", "netwrok")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(wrong), schema)
    assert json.dumps(schema)
