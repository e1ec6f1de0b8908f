"""A local HTTP server that behaves as badly as told: for tests of everything that downloads.

`server.files[path]` is what a path holds; `server.faults[path]` is a list of misdeeds, one used up by
each request, after which the server is good. `server.requests` records what was asked.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote


@dataclass(frozen=True)
class Fault:
    """One misdeed. `after` is how many bytes of the body come before it.

    kind: stall (nothing more comes), trickle (a byte now and then), truncate (the connection closes),
    reset (RST), short (says that the body ends there), long (promises more than it has), wrong (other
    bytes), status (of that number), no-range (ignores Range), wrong-range (sends another range),
    garbage (not HTTP), unsized (no Content-Length, then closes).
    """

    kind: str
    after: int = 0
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    path: str
    range: str | None
    if_range: str | None


@dataclass
class MisbehavingServer:
    """The server's address and its state, which tests change at will."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: Fault | None = None
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else self.always

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: MisbehavingServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        state = self.state
        path = unquote(self.path)
        state.requests.append(Request(path, self.headers["Range"], self.headers["If-Range"]))
        fault = state.fault(path)
        kind = fault.kind if fault else ""
        if fault and kind == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
        elif fault and kind == "status":
            self._answer(fault.status, b"sorry", dict(fault.headers))
        elif path in state.redirects:
            self._answer(302, b"", {"Location": state.redirects[path]})
        elif path not in state.files:
            self._answer(404, b"no such file")
        else:
            self._serve(state.files[path], fault)

    def _serve(self, content: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        after = fault.after if fault else 0
        start, status, headers = 0, 200, {"ETag": '"one"'}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked and kind != "no-range":
            start = int(asked[1])
            if kind == "wrong-range":
                start = max(0, start - 1)
            if start >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if kind == "wrong":
            body = bytes(byte ^ 0xFF for byte in body)
        length = {"short": min(after, len(body)), "long": len(body) + 100}.get(kind, len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if kind == "unsized":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = ("stall", "trickle", "truncate", "reset", "short")
        self.wfile.write(body[:after] if kind in broken else body)
        self.wfile.flush()
        if kind == "stall":
            self.state.closing.wait(30)
        elif kind == "trickle":
            for byte in body[after:]:
                if self.state.closing.wait(0.02):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif kind == "reset":
            linger = struct.pack("ii", 1, 0)  # close with RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if kind and kind not in ("no-range", "wrong-range", "wrong"):
            self.close_connection = True

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            super().finish()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        # `shutdown` first would send FIN, and a reset is meant to be one.
        assert isinstance(request, socket.socket)
        linger = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        if struct.unpack("ii", linger)[0]:
            request.close()
        else:
            super().shutdown_request(request)


@contextlib.contextmanager
def misbehaving_server() -> Iterator[MisbehavingServer]:
    """Run a server on a free port of the loopback interface."""
    state = MisbehavingServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()


def unused_url() -> str:
    """The URL of a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
