"""The proxies beside hal's gateway: how each is told to pass requests on, and nothing else.

Each is set up as its documentation does it, with connections to the upstream kept and answers not buffered.
None of them checks tokens, has routes or logs: what hal's gateway does besides is in its disfavour.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hal.sandbox import Sandbox

from .programs import Programs

FIRST_STREAMS = 800
"""Where the search for the number of streams begins."""


@dataclass(frozen=True)
class Peer:
    """A proxy, ready to be started."""

    key: str
    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    start_seconds: float = 20.0
    first_streams: int = FIRST_STREAMS
    metrics: str = ""
    """Path that is asked for once while requests are counted, as whoever collects metrics does."""


BARE_HAPROXY = """\
global
    maxconn 8000
defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 60s
    timeout server 1h
frontend proxy
    bind 127.0.0.1:{port}
    default_backend upstream
backend upstream
    server upstream 127.0.0.1:{upstream}
"""

NGINX = """\
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {work}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    upstream engine {{
        server 127.0.0.1:{upstream};
        keepalive 4096;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

CADDY = """\
{{
    admin off
    auto_https off
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{upstream} {{
        flush_interval -1
    }}
}}
"""

LITELLM = """\
model_list:
  - model_name: tiny
    litellm_params:
      model: openai/tiny
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


def peers(programs: Programs, port: Callable[[], int], upstream: int, work: Path) -> dict[int, Peer]:
    """All that can be had, by the port that each listens on; their configurations are written to `work`."""
    found: dict[int, Peer] = {}

    def write(name: str, text: str, place: int) -> Path:
        path = work / name
        path.write_text(text.format(port=place, upstream=upstream, work=work))
        return path

    def inside(tree: Sandbox, argv: list[str]) -> list[str]:
        return tree.command(argv, writable=[work], network=True)

    place = port()
    bare = write("bare.cfg", BARE_HAPROXY, place)
    found[place] = Peer(
        "haproxy", "HAProxy, bare", inside(programs.tools, ["haproxy", "-Ws", "-f", str(bare)])
    )
    if programs.debian:
        place = port()
        nginx = write("nginx.conf", NGINX, place)
        argv = ["nginx", "-p", str(work), "-e", "stderr", "-c", str(nginx)]
        found[place] = Peer("nginx", "nginx", inside(programs.debian, argv))
        place = port()
        caddy = write("Caddyfile", CADDY, place)
        argv = ["caddy", "run", "--adapter", "caddyfile", "--config", str(caddy)]
        found[place] = Peer("caddy", "Caddy", inside(programs.debian, argv))
    if programs.go_proxy:
        go = [str(programs.go_proxy)]
        place = port()
        found[place] = Peer("go", "Go ReverseProxy", [*go, str(place), f"http://127.0.0.1:{upstream}"])
        place = port()
        found[place] = Peer(
            "go-256",
            "the same, 256 idle connections",
            [*go, str(place), f"http://127.0.0.1:{upstream}", "256"],
        )
    for name, words in _python_commands(upstream, write).items():
        if name in programs.python:
            place = port()
            env = {"PYTHONPATH": str(programs.python[name]), "PATH": os.environ["PATH"], "HOME": str(work)}
            # No list of prices is fetched, nothing is told to anybody.
            env |= {
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY": "False",
                "LITELLM_LOG": "ERROR",
            }
            argv = [sys._base_executable, "-s", *words(place)]  # type: ignore[attr-defined]
            found[place] = Peer(name, name, argv, env, start_seconds=120, first_streams=_FIRST[name])
    return found


_FIRST = {"vllm-router": 400, "litellm": 10}


def _python_commands(
    upstream: int, write: Callable[[str, str, int], Path]
) -> dict[str, Callable[[int], list[str]]]:
    def router(port: int) -> list[str]:
        words = ["-m", "vllm_router.launch_router", "--worker-urls", f"http://127.0.0.1:{upstream}"]
        words += [
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--policy",
            "round_robin",
            "--log-level",
            "error",
        ]
        return [*words, "--prometheus-port", str(port + 1), "--max-concurrent-requests", "20000"]

    def litellm(port: int) -> list[str]:
        config = write("litellm.yaml", LITELLM, port)
        program = "import sys; from litellm import run_server; sys.exit(run_server())"
        return ["-c", program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]

    return {"vllm-router": router, "litellm": litellm}
