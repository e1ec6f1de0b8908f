"""Whole HTTP answers; the connection closes after each. Pure."""

from __future__ import annotations

import json

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


def answer(status: int, body: str, more: str = "") -> bytes:
    """An answer with a JSON text; `more` are further fields of its head, a line each."""
    content = body.encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + content


def refusal(status: int, message: str, retry_after: int = 0) -> bytes:
    """An error, in the shape that the gateway's others have."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}) + "\n"
    allow = "Allow: GET, POST\r\n" if status == 405 else ""
    return answer(status, body, allow + (f"Retry-After: {retry_after}\r\n" if retry_after else ""))
