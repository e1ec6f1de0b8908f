"""A local HTTP(S) server that behaves as badly as told: for tests of everything that downloads.

`server.files[path]` is what a path holds; `server.faults[path]` is a list of misdeeds, one used up by
each request, after which the server is good. `server.requests` records what was asked, `server.sent` how many
bytes of bodies went out. Other protocols than plain files are tables too: see hub.py and registry.py.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote


@dataclass(frozen=True)
class Fault:
    """One misdeed. `after` is how many bytes of the body come before it.

    kind: stall (nothing more comes), trickle (a byte now and then), drip (`pace` bytes per second), truncate
    (the connection closes), reset (RST), short (says that the body ends there), long (promises more than it
    has), more (no Content-Length, and bytes beyond the end), wrong (other bytes), status (of that number),
    no-range (ignores Range), wrong-range (sends another range), little (a range of `after` bytes at most),
    garbage (not HTTP), unsized (no Content-Length, then closes), silent (no answer at all), changed (from now
    on the file has another ETag), gzip (compresses, asked or not), redirect (to `target`).
    """

    kind: str
    after: int = 0
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    pace: float = 100_000.0
    target: str = ""


@dataclass(frozen=True)
class Request:
    """What the server was asked; `path` is without its query."""

    path: str
    range: str | None
    if_range: str | None
    method: str = "GET"
    host: str = ""
    authorization: str | None = None
    accept: str | None = None


@dataclass
class MisbehavingServer:
    """The server's address and its state, which tests change at will.

    `headers[path]` go along with a file. `refusals[prefix]` are a status and headers for all paths below it;
    `tokens[prefix]` a token without which they are refused so (or with 401), and with which they are there.
    `missing[prefix]` is the answer for paths below it that hold nothing; the longest prefix counts.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: Fault | None = None
    requests: list[Request] = field(default_factory=list, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    missing: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else self.always

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def clear(self) -> None:
        """Forget all files, misdeeds and requests."""
        for table in (self.files, self.redirects, self.faults, self.requests, self.headers, self.etags):
            table.clear()
        for table in (self.refusals, self.tokens, self.missing, self.sent):
            table.clear()
        self.always = None

    def refusal(self, path: str, authorization: str | None) -> tuple[int, dict[str, str]] | None:
        """The status and headers with which a request is turned away."""
        for prefix, token in self.tokens.items():
            if path.startswith(prefix):
                if authorization == f"Bearer {token}":
                    return None
                return self.refusals.get(prefix, (401, {}))
        return next((answer for prefix, answer in self.refusals.items() if path.startswith(prefix)), None)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: MisbehavingServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        state, asked = self.state, self.headers
        path = unquote(self.path.partition("?")[0])
        state.requests.append(
            Request(
                path,
                asked["Range"],
                asked["If-Range"],
                self.command,
                asked["Host"] or "",
                asked["Authorization"],
                asked["Accept"],
            )
        )
        fault = state.fault(path)
        kind = fault.kind if fault else ""
        refused = state.refusal(path, asked["Authorization"])
        if fault and kind == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
        elif fault and kind == "silent":
            state.closing.wait(30)
            self.close_connection = True
        elif fault and kind == "status":
            self._answer(fault.status, b"sorry", dict(fault.headers))
        elif fault and kind == "redirect":
            self._answer(302, b"", {"Location": fault.target})
        elif refused:
            self._answer(refused[0], b"refused", refused[1])
        elif path in state.redirects:
            self._answer(302, b"", {"Location": state.redirects[path], **state.headers.get(path, {})})
        elif path not in state.files:
            below = max((prefix for prefix in state.missing if path.startswith(prefix)), key=len, default="")
            status, headers = state.missing.get(below, (404, {}))
            self._answer(status, b"no such file", headers)
        else:
            self._serve(path, state.files[path], fault)

    def _serve(self, path: str, content: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        after = fault.after if fault else 0
        etags = self.state.etags
        if kind == "changed":
            etags[path] = f'"{etags.get(path, "one").strip(chr(34))}-changed"'
        etag = etags.get(path, '"one"')
        start, end, status = 0, len(content), 200
        headers = {"ETag": etag} | self.state.headers.get(path, {})
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked and kind != "no-range" and self.headers["If-Range"] in (None, etag):
            start = int(asked[1])
            if kind == "wrong-range":
                start = max(0, start - 1)
            if start >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            if kind == "little":
                end = min(end, start + after)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end]
        if kind == "wrong":
            body = bytes(byte ^ 0xFF for byte in body)
        elif kind == "gzip":
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        length = {"short": min(after, len(body)), "long": len(body) + 100}.get(kind, len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if kind in ("unsized", "more"):
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = ("stall", "trickle", "drip", "truncate", "reset", "short")
        self._send(path, body[:after] if kind in broken else body)
        if kind == "stall":
            self.state.closing.wait(30)
        elif kind == "trickle":
            self._slowly(path, body[after:], 1, 0.02)
        elif fault and kind == "drip":
            self._slowly(path, body[after:], max(1, int(fault.pace * 0.05)), 0.05)
        elif kind == "more":
            self._send(path, bytes(100_000))
        elif kind == "reset":
            linger = struct.pack("ii", 1, 0)  # close with RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if kind and kind not in ("no-range", "wrong-range", "wrong", "little", "changed", "gzip"):
            self.close_connection = True

    def _slowly(self, path: str, body: bytes, piece: int, pause: float) -> None:
        for at in range(0, len(body), piece):
            if self.state.closing.wait(pause):
                break
            self._send(path, body[at : at + piece])

    def _send(self, path: str, body: bytes) -> None:
        self.wfile.write(body)
        self.wfile.flush()
        with self.state.lock:
            self.state.sent[path] += len(body)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # also of TLS that the other side does not want
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.tls:  # the handshake comes with the first read, on the connection's own thread
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        # `shutdown` first would send FIN, and a reset is meant to be one.
        assert isinstance(request, socket.socket)
        linger = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        if struct.unpack("ii", linger)[0]:
            request.close()
        else:
            super().shutdown_request(request)


@contextlib.contextmanager
def misbehaving_server(
    address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[MisbehavingServer]:
    """Run a server on a free port; guests in QEMU reach the host's loopback interface as 10.0.2.2."""
    state = MisbehavingServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server((address, 0), handler)
    server.tls = tls
    state.url = f"{'https' if tls else 'http'}://{address}:{server.server_address[1]}"
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
