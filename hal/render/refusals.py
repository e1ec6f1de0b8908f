"""Every answer that the gateway gives in an engine's place: JSON in the shape of the API that was asked.

The OpenAI API's errors are `{"error": {"message", "type", "param", "code"}}`, Ollama's own `{"error": "…"}`
(with a `code` beside it, which its clients leave alone).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

CLIENT_ERROR = "invalid_request_error"
SERVER_ERROR = "server_error"
PERMISSION = "permission_error"
RATE = "rate_limit_error"

OPENAI, OLLAMA = "openai", "ollama"
"""Shapes of errors."""

WHY = "X-HAL-Reason"
"""Header that tells the selector, and nobody else, why an endpoint elsewhere cannot be reached."""


@dataclass(frozen=True)
class Refusal:
    """One answer; `code` is for programs, `message` for people. `headers` come besides the usual ones."""

    status: int
    kind: str
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, shape: str = OPENAI) -> str:
        """Its JSON, one line."""
        if shape == OLLAMA:
            return json.dumps({"error": self.message, "code": self.code})
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return json.dumps({"error": error})

    def answer(self, shape: str = OPENAI) -> str:
        """The whole HTTP answer, the form that an `errorfile` has."""
        body = self.body(shape) + "\n"
        lines = [
            f"HTTP/1.1 {self.status} {REASONS[self.status]}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            *(f"{header}: {value}" for header, value in self.headers.items()),
        ]
        return "".join(f"{line}\r\n" for line in [*lines, ""]) + body


def _soon(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}


CLOSE = {"Connection": "close"}
"""Where the end of a request is in doubt, what follows on its connection is not taken for another one."""

REFUSALS: dict[str, Refusal] = {
    # By the name of the file. Those named by a status alone are HAProxy's own words, too.
    "400": Refusal(400, CLIENT_ERROR, "bad_request", "The request is not valid HTTP.", CLOSE),
    "401": Refusal(
        401,
        "authentication_error",
        "invalid_api_key",
        "A valid bearer token is needed.",
        {"WWW-Authenticate": 'Bearer realm="hal"'},
    ),
    "403": Refusal(403, PERMISSION, "forbidden", "The request is not allowed."),
    "403-domain": Refusal(
        403, PERMISSION, "forbidden", "This token opens other domains: its paths begin with /DOMAIN/v1/."
    ),
    "403-guardrails": Refusal(
        403,
        PERMISSION,
        "guardrails_required",
        "This endpoint passes the guardrails by; chats at /v1/chat/completions go through them.",
    ),
    "404": Refusal(404, CLIENT_ERROR, "not_found", "There is nothing at this path; the API is below /v1/."),
    "404-ollama": Refusal(
        404,
        CLIENT_ERROR,
        "ollama_not_active",
        "Ollama's own API answers only while Ollama is the active engine; the OpenAI API is below /v1/.",
    ),
    "405": Refusal(
        405,
        CLIENT_ERROR,
        "method_not_allowed",
        "The method is not allowed here.",
        {"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    ),
    "408": Refusal(408, CLIENT_ERROR, "request_timeout", "The request did not arrive in time.", CLOSE),
    "411": Refusal(411, CLIENT_ERROR, "length_required", "A body needs a Content-Length.", CLOSE),
    "413": Refusal(413, CLIENT_ERROR, "body_too_large", "The body is too large.", CLOSE),
    "429": Refusal(429, RATE, "too_many_requests", "Too many requests.", _soon(1)),
    "429-concurrency": Refusal(
        429,
        RATE,
        "concurrency_limit_exceeded",
        "Too many requests at the same time: wait until one of yours has ended.",
        _soon(1),
    ),
    "429-attestation": Refusal(
        429, RATE, "too_many_questions", "Too many questions for evidence in a minute.", _soon(10)
    ),
    "500": Refusal(500, SERVER_ERROR, "internal_error", "The gateway failed."),
    "501": Refusal(501, CLIENT_ERROR, "not_implemented", "The gateway does not do this."),
    "502": Refusal(502, SERVER_ERROR, "engine_failed", "The engine broke off or did not answer in HTTP."),
    "503": Refusal(503, SERVER_ERROR, "no_engine_ready", "No engine is ready.", _soon(2)),
    "503-hopeless": Refusal(
        503,
        SERVER_ERROR,
        "no_engine_expected",
        "No engine serves, and none is about to: each was stopped, waits for its model, or has to be mended. "
        "GET /api/v1/inference/status says more.",
        _soon(30),
    ),
    "503-queue": Refusal(
        503, SERVER_ERROR, "queue_full", "Too many requests are waiting for an engine.", _soon(5)
    ),
    "503-status": Refusal(503, SERVER_ERROR, "no_status", "The selector does not answer.", _soon(2)),
    "503-attestation": Refusal(503, SERVER_ERROR, "no_evidence", "The attestor does not answer.", _soon(2)),
    "503-credential": Refusal(
        503, SERVER_ERROR, "credential_missing", "The API key for the remote endpoint is not there."
    ),
    "503-guardrails": Refusal(
        503,
        SERVER_ERROR,
        "guardrails_unavailable",
        "The guardrails do not answer, and without them no chat is let through.",
        _soon(2),
    ),
    "504": Refusal(504, SERVER_ERROR, "engine_timeout", "The engine did not answer in time."),
    "remote-502": Refusal(
        502, SERVER_ERROR, "remote_failed", "The remote endpoint broke off, or spoke no HTTP."
    ),
    "remote-503": Refusal(
        503, SERVER_ERROR, "remote_unreachable", "The remote endpoint cannot be reached.", _soon(5)
    ),
    "remote-504": Refusal(504, SERVER_ERROR, "remote_timeout", "The remote endpoint did not answer in time."),
}

RATE_LIMITED = Refusal(429, RATE, "rate_limit_exceeded", "Too many requests in a minute.")
"""Its Retry-After depends on the limit: HAProxy's rules compute it."""

BY_HAPROXY = (400, 401, 403, 404, 405, 408, 413, 429, 500, 501, 502, 503, 504)
"""Statuses that HAProxy takes from an `errorfile` (configuration manual, "errorfile"); it knows no 411."""


def too_large(limit: int) -> Refusal:
    """The answer to a body of more than `limit` bytes."""
    shown = f"{limit >> 20} MiB" if limit % (1 << 20) == 0 else f"{limit} bytes"
    found = REFUSALS["413"]
    return Refusal(413, found.kind, found.code, f"The body is larger than {shown}.", found.headers)


def not_ready(name: str) -> Refusal:
    """The answer to a request that a route sends to an engine or an endpoint that does not serve."""
    message = f"{name}, where a route sends this request, is not ready."
    return Refusal(503, SERVER_ERROR, "engine_not_ready", message, _soon(2))
