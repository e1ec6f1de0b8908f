"""hal's gateway as an appliance has it, with tokens, routes, request ids, metrics and the selector.

Only paths and the address differ from the appliance's files.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hal.image.root import write_files
from hal.render import render
from hal.sandbox import Sandbox
from hal.spec.loading import parse_spec

from .peers import Peer

ROOT = Path(__file__).resolve().parents[3]
TOKENS = 100
TOKEN = "bench-token-17"

SPEC = """\
appliance: {{name: bench, version: '1'}}
variant: debug
engines:
  - ollama: {{port: {upstream}}}
  - llamacpp: {{port: {other}}}
models:
  - name: tiny
    format: gguf
    files: [{{name: tiny.gguf, size: 4, sha256: "{digest}", source: {{kind: file, path: tiny.gguf}}}}]
selector: {{preference: [ollama, llamacpp]}}
gateway:
  port: {port}
  tls: false
  limits: {{rate: none, concurrency: none}}
  tokens:
{tokens}
  routes:
    - {{name: by-header, header: {{X-Engine: llamacpp}}, priority: 10, to: llamacpp}}
    - {{name: by-two, header: {{X-Team: research, X-Tier: gold}}, priority: 9, to: llamacpp}}
    - {{name: embeddings, path_prefix: /v1/embeddings, method: POST, to: llamacpp}}
    - {{name: legal, domain: legal, to: llamacpp}}
    - {{name: by-pattern, path_pattern: '/v1/*/special', to: llamacpp}}
"""
"""Debug, so that no TLS is measured where no peer has it. No route takes what is measured, so that
each is looked at. The engine is one that keeps connections, as vLLM does too."""


def gateway(tools: Sandbox, port: int, upstream: int, other: int, home: Path) -> tuple[Peer, list[str]]:
    """HAProxy with the rendered configuration, and the selector's command; the files go to `home`."""
    names = [f"bench-token-{number}" for number in range(TOKENS)]
    tokens = "\n".join(
        f"    - {{name: t{number}, sha256: {hashlib.sha256(name.encode()).hexdigest()}}}"
        for number, name in enumerate(names)
    )
    model = b"GGUF"  # in the spec's eyes a model; nothing reads it here
    (home / "tiny.gguf").write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    text = SPEC.format(upstream=upstream, other=other, port=port, tokens=tokens, digest=digest)
    loaded = parse_spec(text, home / "spec.yaml")
    write_files(render(loaded, []), home)
    for directory in ("run/hal/gateway", "run/hal/selector", "run/hal/control", "var/lib/hal/selector"):
        (home / directory).mkdir(parents=True, exist_ok=True)
    move(home, port)
    config = home / "etc/hal/gateway/haproxy.cfg"
    argv = tools.command(["haproxy", "-Ws", "-f", str(config)], writable=[home], network=True)
    program = "import sys; from services.selector.daemon import main; sys.exit(main(sys.argv[1]))"
    selector = [sys.executable, "-c", program, str(home / "etc/hal/selector.json")]
    return Peer("hal", "hal's gateway", argv, metrics="/metrics"), selector


def move(home: Path, port: int) -> None:
    """Let everything that names a path of the appliance name the one below `home` instead."""
    for path in [*(home / "etc/hal").rglob("*")]:
        if path.is_file():
            text = path.read_text()
            for top in ("/etc/hal", "/run/hal", "/var/lib/hal", "/run/credentials"):
                text = text.replace(top, f"{home}{top}")
            path.write_text(text.replace(f':::{port}}}" v4v6', f'127.0.0.1:{port}}}"'))


def start_selector(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """The selector, which makes the gateway's server ready once the upstream has answered."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with log.open("ab") as sink:
        return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
