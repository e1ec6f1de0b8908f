"""Every way in which an appliance file can be wrong, and the lines that tell it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hal.engines import available_engines
from hal.errors import EXIT_USAGE
from hal.models import available_models
from hal.profiles import profile_names
from hal.spec import SpecError, load_spec, parse_spec

HEAD = "appliance: {name: a, version: 1.0.0}\n"
ENGINES = "engines: [llamacpp]\n"
MODELS = "models: [smollm2-135m]\n"
STARTER = HEAD + ENGINES + MODELS
SHA = "a" * 64
TINY = f"{{name: t.gguf, size: 3, sha256: {SHA}, source: {{kind: file, path: t.gguf}}}}"
INLINE = HEAD + ENGINES + "models:\n  - name: tiny\n    format: gguf\n    files:\n      - "
OTHER_TOKEN = "b" * 64
KNOWN = f"engines: {', '.join(available_engines())}"
KNOWN_MODELS = f"models: {', '.join(available_models())}"
KNOWN_PROFILES = f"profiles: {', '.join(profile_names())}"
NO_LAMACPP = "there is no engine 'lamacpp' (did you mean llamacpp?); engines: " + ", ".join(
    available_engines()
)
MODELS_THERE = "models: " + ", ".join(available_models())

JARGON = re.compile(r"pydantic|valid (dictionary|tuple|string)|instance of|Input should|Traceback|tuple|dict")
"""Words of the libraries underneath, which no user should have to know."""

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
                "7: models[0].files[0].source.kind: must be one of pypi, file, https, not 'fiel' "
                "(did you mean file?)"
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
    # names that stand for something
    "unknown engine": (
        HEAD + "engines: [lamacpp]\n" + MODELS,
        [f"2: engines[0]: {NO_LAMACPP}"],
    ),
    "unknown engine in a mapping": (
        HEAD + "engines:\n  lamacpp:\n" + MODELS,
        [f"3: engines.lamacpp: {NO_LAMACPP}"],
    ),
    "unknown engine in a mapping in a list": (
        HEAD + "engines:\n- lamacpp: {port: 2000}\n" + MODELS,
        [f"3: engines[0].lamacpp: {NO_LAMACPP}"],
    ),
    "unknown model": (
        HEAD + ENGINES + "models:\n  - smollm-135m\n",
        [f"4: models[0]: there is no model 'smollm-135m' (did you mean smollm2-135m?); {MODELS_THERE}"],
    ),
    "unknown setting": (
        HEAD + "engines:\n  llamacpp:\n    settings:\n      context_lenght: 1\n" + MODELS,
        ["5: engines.llamacpp.settings.context_lenght: unknown key (did you mean context_length?)"],
    ),
    "setting of wrong type": (
        HEAD + "engines: {llamacpp: {settings: {threads: many, parallel: true}}}\n" + MODELS,
        [
            "2: engines.llamacpp.settings.parallel: must be a whole number, not true",
            "2: engines.llamacpp.settings.threads: must be a whole number, not 'many'",
        ],
    ),
    "setting out of range": (
        HEAD + "engines: {llamacpp: {settings: {threads: -1, context_length: 10000000}}}\n" + MODELS,
        [
            "2: engines.llamacpp.settings.context_length: must be at most 1048576, not 10000000",
            "2: engines.llamacpp.settings.threads: must be at least 0, not -1",
        ],
    ),
    # what cannot work together
    "name and version too long": (
        f"appliance: {{name: {'a' * 25}, version: 1.0.0}}\n" + ENGINES + MODELS,
        [
            (
                "1: appliance.name: name and version together may have 28 characters (they label "
                "partitions), not 30"
            )
        ],
    ),
    "engine twice": (
        HEAD + "engines: [llamacpp, llamacpp]\n" + MODELS,
        [
            "2: engines[1]: the engine llamacpp is there twice",
            "2: engines[1].port: llamacpp and llamacpp cannot both listen on port 8080",
        ],
    ),
    "model twice": (
        HEAD + ENGINES + "models: [smollm2-135m, smollm2-135m]\n",
        ["3: models[1]: the model smollm2-135m is there twice"],
    ),
    "token twice": (
        STARTER
        + f"gateway:\n  tokens:\n  - {{name: a, sha256: {SHA}}}\n  - {{name: a, sha256: {OTHER_TOKEN}}}\n",
        ["7: gateway.tokens[1].name: the token a is there twice"],
    ),
    "token of two holders": (
        STARTER
        + f"gateway:\n  tokens:\n  - {{name: a, sha256: {SHA}}}\n  - {{name: b, sha256: {SHA.upper()}}}\n",
        ["7: gateway.tokens[1].sha256: is the token of a as well"],
    ),
    "token that is no digest": (
        STARTER + "gateway: {tokens: [{name: a, sha256: secret}]}\n",
        ["4: gateway.tokens[0].sha256: must be a SHA-256: 64 hexadecimal digits"],
    ),
    "production without tokens": (
        STARTER + "variant: production\n",
        [
            (
                "1: gateway.tokens: a production appliance needs at least one token: without, it refuses "
                "every request"
            )
        ],
    ),
    "tee of another architecture": (
        STARTER + "arch: aarch64\ntee: sev-snp\n",
        [
            "4: arch: aarch64 is not available in this version of hal",
            "5: tee: sev-snp exists on x86_64 only, and arch is aarch64",
        ],
    ),
    "tdx of another architecture": (
        STARTER + "tee: tdx\narch: aarch64\n",
        [
            "4: tee: tdx exists on x86_64 only, and arch is aarch64",
            "5: arch: aarch64 is not available in this version of hal",
        ],
    ),
    "engine on the gateway's port": (
        HEAD + "engines: {llamacpp: {port: 7001}}\n" + MODELS,
        ["2: engines.llamacpp.port: llamacpp and the gateway cannot both listen on port 7001"],
    ),
    "gateway on the engine's port": (
        STARTER + "gateway: {port: 8080}\n",
        ["2: engines[0].port: llamacpp and the gateway cannot both listen on port 8080"],
    ),
    "gateway on ssh's port": (
        STARTER + "gateway: {port: 22}\n",
        ["4: gateway.port: port 22 is ssh's in a debug image"],
    ),
    "no model for an engine that needs one": (
        HEAD + ENGINES,
        ["2: engines[0]: llamacpp loads a model when it starts, and `models` has none in gguf"],
    ),
    "model that no engine serves": (
        HEAD
        + ENGINES
        + "models:\n- smollm2-135m\n- name: b\n  format: safetensors\n  files:\n  - "
        + TINY.replace("kind: file, path: t.gguf", "kind: https, url: 'https://a.test/t'")
        + "\n",
        ["5: models[1]: no chosen engine can serve safetensors weights: llamacpp reads gguf"],
    ),
    "memory": (
        STARTER + "machine: {memory: 512M}\n",
        [
            (
                "4: machine.memory: 512M is too little: the system 256M, llamacpp 192M, model smollm2-135m "
                "256M make 704M"
            )
        ],
    ),
    "state": (
        STARTER + "disk: {state: 1M}\n",
        ["4: disk.state: 1M is too small for a file system: at least 32M"],
    ),
    "policy": (
        STARTER + "selector: {policy: llamacp}\n",
        [
            (
                "4: selector.policy: the engine llamacp is not in `engines` (did you mean llamacpp?); "
                "it can be auto, llamacpp"
            )
        ],
    ),
    "preference": (
        STARTER + "selector: {preference: [vllm, llamacpp, llamacpp]}\n",
        [
            "4: selector.preference[0]: the engine vllm is not in `engines`; it can be llamacpp",
            "4: selector.preference[2]: the engine llamacpp is there twice",
        ],
    ),
    "address with dhcp": (
        STARTER + "network: {address: 192.0.2.10/24, gateway: 192.0.2.1}\n",
        ["4: network.address: needs `dhcp: false`", "4: network.gateway: needs `dhcp: false`"],
    ),
    "no address without dhcp": (
        STARTER + "network: {dhcp: false}\n",
        ["4: network.address: is required where `dhcp` is false"],
    ),
    "address without its prefix": (
        STARTER + "network: {dhcp: false, address: 192.0.2.10}\n",
        ["4: network.address: '192.0.2.10' is no address such as 192.0.2.10/24"],
    ),
    "no addresses": (
        STARTER + "network: {dhcp: false, address: here/24, gateway: there, dns: [everywhere]}\n",
        [
            "4: network.address: 'here/24' is no address such as 192.0.2.10/24",
            "4: network.dns[0]: 'everywhere' is no IP address",
            "4: network.gateway: 'there' is no IP address",
        ],
    ),
    "router outside the network": (
        STARTER + "network: {dhcp: false, address: 192.0.2.10/24, gateway: 198.51.100.1}\n",
        ["4: network.gateway: 198.51.100.1 is not in the network 192.0.2.0/24"],
    ),
    "model file that is not there": (
        INLINE + TINY.replace("path: t.gguf", "path: missing.gguf") + "\n",
        ["7: models[0].files[0].source.path: there is no file DIR/missing.gguf"],
    ),
    "model file with an impossible name": (
        INLINE + TINY.replace("path: t.gguf", f"path: {'x' * 300}") + "\n",
        [f"7: models[0].files[0].source.path: DIR/{'x' * 300}: File name too long"],
    ),
    "model file of another size": (
        INLINE + TINY.replace("size: 3", "size: 4") + "\n",
        ["7: models[0].files[0].size: DIR/t.gguf has 3 bytes, not 4"],
    ),
    # what is not built yet
    "base": (STARTER + "base: buildroot\n", ["4: base: buildroot is not available in this version of hal"]),
    "arch": (STARTER + "arch: aarch64\n", ["4: arch: aarch64 is not available in this version of hal"]),
    "engines": (
        HEAD + "engines: [llamacpp, openai]\n" + MODELS,
        ["2: engines[1]: openai is not available in this version of hal"],
    ),
    "no room for what the engine keeps": (
        HEAD + "engines: [ollama]\n" + MODELS,
        [
            (
                "1: disk.state: 64M is too little: ollama keeps the models on the state partition, and needs "
                "219.6M to take them in"
            ),
        ],
    ),
    # all in one go, and no problem that only follows from another
    "many": (
        (
            "appliance: {name: a}\nbsae: debian\nengines:\n  llamacpp: {prot: 1, settings: {thread: 1}}\n"
            "  lamacpp: {}\n  vllm: 5\nmodels: [smollm-135m, 5]\nvariant: production\n"
            "machine: {memory: 1, cpus: two}\ndisk: {state: 1MB}\nselector: {policy: ollama}\n"
        ),
        [
            "1: appliance.version: is required",
            "2: bsae: unknown key (did you mean base?)",
            "4: engines.llamacpp.prot: unknown key (did you mean port?)",
            "4: engines.llamacpp.settings.thread: unknown key (did you mean threads?)",
            f"5: engines.lamacpp: {NO_LAMACPP}",
            "6: engines.vllm: must be a mapping (`key: value`), not 5",
            (f"7: models[0]: there is no model 'smollm-135m' (did you mean smollm2-135m?); {MODELS_THERE}"),
            "7: models[1]: must be a name or a mapping, not 5",
            (
                "1: gateway.tokens: a production appliance needs at least one token: without, it refuses "
                "every request"
            ),
            "9: machine.cpus: must be a whole number, not 'two'",
            "10: disk.state: must be a size, such as 512M, 2G or 4GiB",
        ],
    ),
    "a wrong port is not also a missing one": (
        HEAD + "engines: {llamacpp: {port: many}}\n" + MODELS + "gateway: {port: 8080}\n",
        ["2: engines.llamacpp.port: must be a whole number, not 'many'"],
    ),
    "wrong memory is not also too little": (
        STARTER + "machine: {memory: little, cpus: 0}\n",
        [
            "4: machine.cpus: must be at least 1, not 0",
            "4: machine.memory: must be a size, such as 512M, 2G or 4GiB",
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), TABLE.values(), ids=TABLE.keys())
def test_every_problem_is_told_with_its_line(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.gguf").write_bytes(b"abc")
    file = tmp_path / "appliance.yaml"
    with pytest.raises(SpecError) as caught:
        parse_spec(text, file)
    error = caught.value
    told = [line.removeprefix(f"{file}:").replace(str(tmp_path), "DIR") for line in error.details]
    assert told == sorted(expected, key=lambda line: int(line.partition(":")[0]))
    assert not JARGON.search(" ".join(told))
    assert error.exit_code == EXIT_USAGE
    assert error.message.startswith(f"{file} is not a valid spec: {len(expected)} problem")


def test_the_hint_says_how_to_make_a_token() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(STARTER + "variant: production\n", Path("a.yaml"))
    assert caught.value.hint is not None
    assert "sha256sum" in caught.value.hint
    assert "variant: debug" in caught.value.hint


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    assert caught.value.details == (f"{file}:2: is not UTF-8 text",)


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("startr", "there is no profile 'startr' (did you mean starter?)", ", ".join(profile_names())),
        (
            "profiles/startr",
            "there is no profile 'startr' (did you mean starter?)",
            ", ".join(profile_names()),
        ),
        ("zzz", "there is no profile 'zzz'", ", ".join(profile_names())),
        ("none.yaml", "the spec none.yaml does not exist", ", ".join(profile_names())),
        ("/nowhere/none", "the spec /nowhere/none does not exist", ", ".join(profile_names())),
        ("/", "the spec / is a folder, not a file", ", ".join(profile_names())),
    ],
)
def test_a_missing_spec(source: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(source)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == EXIT_USAGE


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(STARTER)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match=r"cannot read the spec .*a\.yaml: Permission denied"):
        load_spec(file)
