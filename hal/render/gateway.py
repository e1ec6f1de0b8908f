"""The gateway's and the selector's files: HAProxy's configuration, tokens, error bodies, selector.json."""

from __future__ import annotations

import json

from hal.engines import Engine
from hal.render import engine as launching
from hal.render.files import RenderedFile, origin, text
from hal.spec import LoadedSpec

DIRECTORY = "/etc/hal/gateway"
ADMIN_SOCKET = "/run/hal/gateway/admin.sock"
STATUS_SOCKET = "/run/hal/selector/http.sock"
BACKEND = "engines"

LARGEST_BODY = 32 * 1024 * 1024
"""Bytes of a request's body: a long context, or a few images in base64; bodies are streamed, never held."""

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

CLIENT_ERROR = "invalid_request_error"
SERVER_ERROR = "server_error"
ERRORS: dict[str, tuple[int, str, str, str, dict[str, str]]] = {
    # file: status, type, code, message, further headers
    "400": (400, CLIENT_ERROR, "bad_request", "The request is not valid HTTP.", {}),
    "401": (
        401,
        "authentication_error",
        "invalid_api_key",
        "A valid bearer token is needed.",
        {"WWW-Authenticate": 'Bearer realm="hal"'},
    ),
    "403": (403, "permission_error", "forbidden", "The request is not allowed.", {}),
    "404": (404, CLIENT_ERROR, "not_found", "There is nothing at this path; the API is below /v1/.", {}),
    "404-ollama": (
        404,
        CLIENT_ERROR,
        "ollama_not_active",
        "Ollama's own API answers only while Ollama is the active engine; the OpenAI API is below /v1/.",
        {},
    ),
    "405": (405, CLIENT_ERROR, "method_not_allowed", "The method is not allowed here.", {}),
    "408": (408, CLIENT_ERROR, "request_timeout", "The request did not arrive in time.", {}),
    "411": (411, CLIENT_ERROR, "length_required", "A body needs a Content-Length.", {}),
    "413": (
        413,
        CLIENT_ERROR,
        "body_too_large",
        f"The body is larger than {LARGEST_BODY // 1024 // 1024} MiB.",
        {},
    ),
    "429": (429, "rate_limit_error", "too_many_requests", "Too many requests.", {"Retry-After": "1"}),
    "500": (500, SERVER_ERROR, "internal_error", "The gateway failed.", {}),
    "502": (502, SERVER_ERROR, "engine_failed", "The engine broke off or did not answer in HTTP.", {}),
    "503": (503, SERVER_ERROR, "no_engine_ready", "No engine is ready.", {"Retry-After": "2"}),
    "503-status": (503, SERVER_ERROR, "no_status", "The selector does not answer.", {"Retry-After": "2"}),
    "504": (504, SERVER_ERROR, "engine_timeout", "The engine did not answer in time.", {}),
}
"""Every answer that the gateway gives in an engine's place, in the shape of OpenAI's API errors."""

BY_HAPROXY = (400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504)
"""Statuses that HAProxy takes from an `errorfile` (configuration manual, "errorfile"); it knows no 411."""


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """HAProxy's configuration with all it reads, and the selector's configuration."""
    spec = loaded.spec
    found = {
        f"{DIRECTORY}/haproxy.cfg": text(
            "haproxy.cfg",
            loaded,
            directory=DIRECTORY,
            admin_socket=ADMIN_SOCKET,
            status_socket=STATUS_SOCKET,
            backend=BACKEND,
            servers=[(engine.name, f"127.0.0.1:{loaded.port(engine)}") for engine in loaded.engines],
            ollamas=[engine.name for engine in loaded.engines if "ollama" in engine.dialects],
            statuses=BY_HAPROXY,
            largest_body=LARGEST_BODY,
            guarded=bool(spec.gateway.tokens) or spec.variant == "production",
        ),
        f"{DIRECTORY}/tokens.map": text("tokens.map", loaded),
        "/etc/hal/selector.json": RenderedFile(selector_json(loaded)),
    }
    for name in ERRORS:
        found[f"{DIRECTORY}/errors/{name}.http"] = RenderedFile(error_answer(name))
    return found


def error_answer(name: str) -> str:
    """One of ERRORS as a complete HTTP answer, the form that an `errorfile` has."""
    status, kind, code, message, headers = ERRORS[name]
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}) + "\n"
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *(f"{header}: {value}" for header, value in headers.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]) + body


def selector_json(loaded: LoadedSpec) -> str:
    """The selector's configuration; its engines are in order of preference."""
    chosen = loaded.spec.selector
    order = {name: place for place, name in enumerate(chosen.preference)}
    engines = sorted(loaded.engines, key=lambda engine: order.get(engine.name, len(order)))
    data = {
        "generated": origin(loaded),
        "policy": chosen.policy,
        "gateway_socket": ADMIN_SOCKET,
        "status_socket": STATUS_SOCKET,
        "engines": [_selected(loaded, engine) for engine in engines],
    }
    return json.dumps(data, indent=2) + "\n"


def _selected(loaded: LoadedSpec, engine: Engine) -> dict[str, str | int]:
    port = loaded.port(engine)
    model = loaded.served(engine)
    name = model.name if model is not None else ""
    return {
        "name": engine.name,
        "host": "127.0.0.1",
        "port": port,
        "base_url": f"http://127.0.0.1:{port}/v1",
        "health_path": engine.readiness.path,
        "health_status": engine.readiness.status,
        # Without a model in the image there is none to be listed.
        "models_path": (engine.readiness.models_path or "") if model is not None else "",
        "model": name,
        "orchestrator_model": name,
        "server": f"{BACKEND}/{engine.name}",
        "listed_model": launching.listed_as(engine, model) if model is not None else "",
        "state_file": "" if engine.notifies else f"{launching.RUNTIME}/{engine.name}/state",
    }
