"""Asking an engine over loopback: is it healthy, and which models does it list?"""

from __future__ import annotations

import json
import socket

from .config import Config

TIMEOUT = 5.0
LARGEST_ANSWER = 1_000_000
"""Bytes; the list of models of one engine is a few hundred."""


def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET.

    Raises:
        OSError: nobody listens, or no HTTP answer within TIMEOUT.
    """
    with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            if len(answer) > LARGEST_ANSWER:
                raise OSError(f"{path}: the answer is too long")
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(b" ", 2)
    if len(fields) < 2 or not fields[1][:3].isdigit():
        raise OSError(f"{path}: no HTTP answer")
    return int(fields[1][:3]), body


def unhealthy(config: Config) -> str:
    """Why the engine is not healthy yet; empty when it is."""
    try:
        status, _ = get(config.host, config.port, config.health_path)
    except ConnectionRefusedError:
        return f"nothing listens on {config.host} port {config.port} yet"
    except OSError as error:
        return f"{config.health_path}: {error}"
    return "" if status == config.health_status else f"{config.health_path} answers {status}"


def listed(config: Config) -> frozenset[str]:
    """The models that the engine lists; empty while it does not answer."""
    if not config.models_path:
        return frozenset(model.listed for model in config.models)
    try:
        status, body = get(config.host, config.port, config.models_path)
        entries = json.loads(body)["data"] if status == 200 else []
        return frozenset(entry["id"] for entry in entries)
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
