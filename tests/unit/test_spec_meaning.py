"""What cannot work although every value of a spec is right by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.spec_problems import (
    ENGINES,
    HEAD,
    INLINE,
    MODELS,
    MODELS_THERE,
    NO_LAMACPP,
    OTHER_TOKEN,
    SHA,
    STARTER,
    TINY,
    assert_told,
)

TABLE: dict[str, tuple[str, list[str]]] = {
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
    "a Buildroot configuration for another base": (
        STARTER + "buildroot: {kernel: [CONFIG_NUMA=y]}\n",
        ["4: buildroot: is for `base: buildroot`, and base is debian"],
    ),
    "lines of a configuration": (
        STARTER
        + "base: buildroot\nbuildroot:\n  config: [CONFIG_NUMA=y, BR2_A=y, '# BR2_A is not set']\n"
        + "  kernel: [CONFIG_DRM=m, CONFIG_A=y]\n",
        [
            (
                "6: buildroot.config[0]: must be a line of a Buildroot configuration, as "
                "BR2_PACKAGE_STRACE=y or # BR2_PACKAGE_STRACE is not set"
            ),
            (
                "7: buildroot.kernel[0]: must be a line of a kernel configuration, as CONFIG_NUMA=y or "
                "# CONFIG_NUMA is not set (the kernel has no modules)"
            ),
        ],
    ),
    "sources that are not there": (
        STARTER + "base: buildroot\nbuildroot: {sources: none.yaml}\n",
        ["5: buildroot.sources: there is no file DIR/none.yaml"],
    ),
    "a symbol twice": (
        STARTER + "base: buildroot\nbuildroot: {config: [BR2_A=y, '# BR2_A is not set']}\n",
        ["5: buildroot.config[1]: BR2_A is there twice"],
    ),
    # what is not built yet
    "arch": (STARTER + "arch: aarch64\n", ["4: arch: aarch64 is not available in this version of hal"]),
    "endpoint elsewhere without its address": (
        HEAD + "engines: [llamacpp, openai]\n" + MODELS,
        [
            "2: engines[1].settings.base_url: is required: where openai is, as https://api.example.com/v1",
            "2: engines[1].settings.model: is required: the model that openai serves",
        ],
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
    assert_told(text, expected, tmp_path)
