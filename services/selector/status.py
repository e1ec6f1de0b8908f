"""What the selector answers over HTTP on its unix socket: its status, and its metrics."""

from __future__ import annotations

import json

from .config import Config
from .core import State, serving, target

STATUS_PATH = "/api/v1/inference/status"
METRICS_PATHS = ("/metrics", "/metrics/selector")
LARGEST_REQUEST = 16384
"""Bytes of a request's head; the gateway's own buffer is no larger."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def status(state: State, config: Config) -> dict[str, object]:
    """The public status: which engine serves, or is waited for, and whether a request would be served.

    While none would be, `reason` says why: in the words of the engine's launcher, or of the last probe.
    """
    engine = next(engine for engine in config.engines if engine.name == target(state))
    found: dict[str, object] = {
        "backend": engine.name,
        "base_url": engine.base_url,
        "model": engine.model,
        "orchestrator_model": engine.orchestrator_model,
        "healthy": serving(state),
    }
    if not found["healthy"]:
        found["reason"] = next(seen.reason for seen in state.engines if seen.name == engine.name)
    return found


def metrics(state: State) -> str:
    """The selector's series in Prometheus' text format (version 0.0.4)."""
    lines = ["# HELP hal_selector_engine_healthy Whether the engine is healthy and lists its model."]
    lines.append("# TYPE hal_selector_engine_healthy gauge")
    lines += [f'hal_selector_engine_healthy{{engine="{e.name}"}} {int(e.healthy)}' for e in state.engines]
    lines.append("# HELP hal_selector_engine_active Whether requests go to the engine.")
    lines.append("# TYPE hal_selector_engine_active gauge")
    lines += [
        f'hal_selector_engine_active{{engine="{e.name}"}} {int(e.name == state.active)}'
        for e in state.engines
    ]
    lines.append("# HELP hal_selector_gateway_connected Whether the gateway's runtime API is connected.")
    lines.append("# TYPE hal_selector_gateway_connected gauge")
    lines.append(f"hal_selector_gateway_connected {int(state.gateway)}")
    return "\n".join(lines) + "\n"


def answer(head: bytes, state: State, config: Config) -> bytes:
    """The whole HTTP/1.1 answer to a request whose head is given; the connection closes after it."""
    fields = head.split(b"\r\n", 1)[0].split(b" ")
    if len(fields) != 3 or not fields[2].startswith(b"HTTP/1."):
        return _answer(400, "application/json", _error("not an HTTP/1 request"))
    path = fields[1].split(b"?", 1)[0].decode("ascii", "replace")
    if path != STATUS_PATH and path not in METRICS_PATHS:
        return _answer(404, "application/json", _error("no such path"))
    if fields[0] not in (b"GET", b"HEAD"):
        return _answer(405, "application/json", _error("only GET is answered here"), "Allow: GET, HEAD\r\n")
    if path == STATUS_PATH:
        reply = _answer(200, "application/json", json.dumps(status(state, config)) + "\n")
    else:
        reply = _answer(200, "text/plain; version=0.0.4", metrics(state))
    return reply if fields[0] == b"GET" else reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _error(message: str) -> str:
    kind = "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}) + "\n"


def _answer(code: int, kind: str, body: str, more: str = "") -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"Cache-Control: no-store\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + content
