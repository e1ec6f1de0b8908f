"""What is wrong with a spec's form: its YAML, its keys, the types of its values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.spec_problems import ENGINES, HEAD, INLINE, MODELS, SHA, STARTER, TINY, assert_told

TABLE: dict[str, tuple[str, list[str]]] = {
    # YAML
    "syntax": (
        "a: 1\nb: [1\nc: 2\n",
        ["3: not YAML: did not find expected ',' or ']', while parsing a flow sequence"],
    ),
    "tab": (
        "a:\n\tb: 2\n",
        ["2: not YAML: found character that cannot start any token, while scanning for the next token"],
    ),
    "control character": ("a: 1\nb: \x01\n", ["2: not YAML: the character U+0001 is not allowed"]),
    "two documents": (
        STARTER + "---\na: 1\n",
        ["4: not YAML: but found another document, expected a single document in the stream"],
    ),
    "alias": ("a: &x 1\nb: *x\n", ["2: the YAML alias *x is not accepted: write the value out"]),
    "deep": ("a: " + "[" * 40 + "]" * 40, ["1: is nested more than 32 levels deep"]),
    "deep enough to overflow a stack": ("- " * 200_000, ["1: is nested more than 32 levels deep"]),
    "tag": (
        STARTER + "tee: !!binary aGk=\n",
        ["4: tee: the YAML tag tag:yaml.org,2002:binary is not accepted"],
    ),
    "own tag": (STARTER + "arch: !x y\n", ["4: arch: the YAML tag !x is not accepted"]),
    "not a number": (STARTER + "gateway: {port: !!int x}\n", ["4: gateway.port: is not a YAML int"]),
    "infinite": (
        HEAD + "engines: {llamacpp: {settings: {threads: .inf}}}\n" + MODELS,
        ["2: engines.llamacpp.settings.threads: must be a finite number"],
    ),
    "key twice": (STARTER + "engines: [llamacpp]\n", ["4: engines: is given twice, first on line 2"]),
    "key twice below": (
        STARTER + "machine:\n  cpus: 1\n  cpus: 2\n",
        ["6: machine.cpus: is given twice, first on line 5"],
    ),
    "key that is a list": (STARTER + "[a]: b\n", ["4: a key must be one word, not a list or a mapping"]),
    "empty": ("# nothing\n", ["1: is empty; docs/spec.md begins with the shortest file"]),
    "a list": ("- a\n", ["1: must be a mapping (`key: value`), not a list"]),
    "text": ("a\n", ["1: must be a mapping (`key: value`), not 'a'"]),
    # keys
    "required": ("models: []\n", ["1: appliance: is required", "1: engines: is required"]),
    "required below": (
        "arch: x86_64\nappliance: {name: a}\n" + ENGINES + MODELS,
        ["2: appliance.version: is required"],
    ),
    "unknown key": (STARTER + "bsae: debian\n", ["4: bsae: unknown key (did you mean base?)"]),
    "unknown key, nothing close": (
        STARTER + "machine: {qqq: 1}\n",
        ["4: machine.qqq: unknown key; the keys here are cpus, memory"],
    ),
    "key that is a number": (
        STARTER + "disk: {1: 1}\n",
        ["4: disk.1: unknown key; the keys here are compression, state"],
    ),
    "unknown key of an engine": (
        HEAD + "engines:\n  llamacpp:\n    prot: 8081\n" + MODELS,
        ["4: engines.llamacpp.prot: unknown key (did you mean port?)"],
    ),
    "unknown key of an engine in a list": (
        HEAD + "engines:\n  - llamacpp: {prot: 8081}\n" + MODELS,
        ["3: engines[0].llamacpp.prot: unknown key (did you mean port?)"],
    ),
    "unknown key of an engine in the long form": (
        HEAD + "engines:\n  - {name: llamacpp, prot: 8081}\n" + MODELS,
        ["3: engines[0].prot: unknown key (did you mean port?)"],
    ),
    "unknown key of a model": (
        INLINE + TINY + "\n    licence: MIT\n",
        ["8: models[0].licence: unknown key (did you mean license?)"],
    ),
    "unknown key of a source": (
        INLINE + TINY.replace("path:", "paht: b, path:") + "\n",
        ["7: models[0].files[0].source.paht: unknown key (did you mean path?)"],
    ),
    "name below a name": (
        HEAD + "engines: {llamacpp: {name: vllm}}\n" + MODELS,
        ["2: engines.llamacpp.name: the engine's name is the key above it, llamacpp"],
    ),
    # types and values
    "number for text": (
        "appliance: {name: a, version: 1.0}\n" + ENGINES + MODELS,
        ["1: appliance.version: must be text, not 1.0: put it in quotes"],
    ),
    "boolean for text": (
        "appliance: {name: no, version: a}\n" + ENGINES + MODELS,
        ["1: appliance.name: must be text, not false: put it in quotes"],
    ),
    "list for text": (
        "appliance: {name: [a], version: a}\n" + ENGINES + MODELS,
        ["1: appliance.name: must be text, not a list"],
    ),
    "bad name": (
        "appliance: {name: My App, version: a}\n" + ENGINES + MODELS,
        ["1: appliance.name: must be small letters, digits and hyphens"],
    ),
    "bad version": (
        "appliance: {name: a, version: 1_0}\n" + ENGINES + MODELS,
        ["1: appliance.version: must be text, not 10: put it in quotes"],
    ),
    "underscore in the version": (
        'appliance: {name: a, version: "1_0"}\n' + ENGINES + MODELS,
        ["1: appliance.version: must be digits, small letters, dots and hyphens, as 1.0.0"],
    ),
    "not one of": (
        STARTER + "tee: snp\n",
        ["4: tee: must be one of none, sev-snp, tdx, not 'snp' (did you mean sev-snp?)"],
    ),
    "not one of, nothing close": (
        STARTER + "variant: 5\n",
        ["4: variant: must be one of production, debug, not 5"],
    ),
    "empty value": (STARTER + "machine:\n", ["4: machine: must be a mapping (`key: value`), not empty"]),
    "text for a number": (
        STARTER + "machine: {cpus: two}\n",
        ["4: machine.cpus: must be a whole number, not 'two'"],
    ),
    "fraction": (STARTER + "machine: {cpus: 1.5}\n", ["4: machine.cpus: must be a whole number, not 1.5"]),
    "boolean for a number": (
        STARTER + "machine: {cpus: yes}\n",
        ["4: machine.cpus: must be a whole number, not true"],
    ),
    "too small": (STARTER + "machine: {cpus: 0}\n", ["4: machine.cpus: must be at least 1, not 0"]),
    "too large": (
        STARTER + "gateway: {port: 70000}\n",
        ["4: gateway.port: must be at most 65535, not 70000"],
    ),
    "far too large": (
        STARTER + f"gateway: {{port: {'9' * 4000}}}\n",
        ["4: gateway.port: must be at most 65535, not a very large number"],
    ),
    "larger than Python reads": (
        STARTER + f"gateway: {{port: {'9' * 5000}}}\n",
        ["4: gateway.port: is not a YAML int"],
    ),
    "text for a boolean": (
        STARTER + "network: {dhcp: maybe}\n",
        ["4: network.dhcp: must be true or false, not 'maybe'"],
    ),
    "text for a list": (
        STARTER + "network: {dns: 192.0.2.1}\n",
        ["4: network.dns: must be a list, not '192.0.2.1'"],
    ),
    "size without a known unit": (
        STARTER + "machine: {memory: 2GB}\n",
        ["4: machine.memory: must be a size, such as 512M, 2G or 4GiB"],
    ),
    "size below zero": (
        STARTER + "machine: {memory: -1}\n",
        ["4: machine.memory: must be a size, such as 512M, 2G or 4GiB, not below zero"],
    ),
    "size that is no whole number of bytes": (
        STARTER + "machine: {memory: 0.3K}\n",
        ["4: machine.memory: must be a whole number of bytes"],
    ),
    "engines as text": (
        HEAD + "engines: llamacpp\n" + MODELS,
        ["2: engines: must be a list, not 'llamacpp'"],
    ),
    "no engine": (HEAD + "engines: []\n" + MODELS, ["2: engines: must not be empty"]),
    "engine that is no name": (
        HEAD + "engines: [5]\n" + MODELS,
        ["2: engines[0]: must be a name or a mapping, not 5"],
    ),
    "engine name of wrong form": (
        HEAD + "engines: [Llama.cpp]\n" + MODELS,
        ["2: engines[0]: must be an engine's name: small letters, digits and hyphens"],
    ),
    "engine name of wrong form in a mapping": (
        HEAD + "engines:\n  Llama.cpp: {}\n" + MODELS,
        ["3: engines.Llama.cpp: must be an engine's name: small letters, digits and hyphens"],
    ),
    "engine that is no mapping": (
        HEAD + "engines:\n  llamacpp: fast\n" + MODELS,
        ["3: engines.llamacpp: must be a mapping (`key: value`), not 'fast'"],
    ),
    "engine port of the system": (
        HEAD + "engines: {llamacpp: {port: 80}}\n" + MODELS,
        ["2: engines.llamacpp.port: must be at least 1024, not 80"],
    ),
    "setting that is a list": (
        HEAD + "engines: {llamacpp: {settings: {threads: [1]}}}\n" + MODELS,
        ["2: engines.llamacpp.settings.threads: must be one value, not a list"],
    ),
    "setting of several lines": (
        HEAD + 'engines: {llamacpp: {settings: {threads: "a\\nb"}}}\n' + MODELS,
        ["2: engines.llamacpp.settings.threads: must be one line of text"],
    ),
    "model that is no name": (
        HEAD + ENGINES + "models: [5]\n",
        ["3: models[0]: must be a name or a mapping, not 5"],
    ),
    "model without files": (
        HEAD + ENGINES + "models: [{name: a, format: gguf}]\n",
        ["3: models[0].files: is required"],
    ),
    "model with no file": (
        HEAD + ENGINES + "models: [{name: a, format: gguf, files: []}]\n",
        ["3: models[0].files: must not be empty"],
    ),
    "model without a name": (
        HEAD + ENGINES + f"models: [{{format: gguf, files: [{TINY}]}}]\n",
        ["3: models[0].name: is required"],
    ),
    "model digest": (
        INLINE + TINY.replace(SHA, "abc") + "\n",
        ["7: models[0].files[0].sha256: must be a SHA-256: 64 hexadecimal digits"],
    ),
    "model file name": (
        INLINE + TINY.replace("t.gguf, size", "../t, size") + "\n",
        ["7: models[0].files[0].name: must be a file name, without spaces and `..`"],
    ),
    "model file twice": (
        INLINE + f"{TINY}\n      - {TINY}\n",
        ["6: models[0].files: two files are named t.gguf"],
    ),
    "source of unknown kind": (
        INLINE + TINY.replace("kind: file", "kind: fiel") + "\n",
        [
            (
                "7: models[0].files[0].source.kind: must be one of pypi, file, https, huggingface, ollama, "
                "not 'fiel' (did you mean file?)"
            )
        ],
    ),
    "source without a kind": (
        INLINE + TINY.replace("kind: file, ", "") + "\n",
        ["7: models[0].files[0].source.kind: is required"],
    ),
    "source without transport security": (
        INLINE + TINY.replace("kind: file, path: t.gguf", "kind: https, url: 'http://a.test/t'") + "\n",
        ["7: models[0].files[0].source.url: must be a URL that begins with https://"],
    ),
}


@pytest.mark.parametrize(("text", "expected"), TABLE.values(), ids=TABLE.keys())
def test_every_problem_is_told_with_its_line(text: str, expected: list[str], tmp_path: Path) -> None:
    assert_told(text, expected, tmp_path)
