"""A small forward proxy: CONNECT for https, absolute requests for http, a password if wanted."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """The proxy's address and what it was asked for; `password` ("user:password") is wanted if there is one.

    `refuses`: hosts that it lets nobody reach. `hosts`: names that only the proxy can resolve.
    """

    address: str = ""
    password: str = ""
    requests: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    hosts: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        credentials = f"{self.password}@" if self.password else ""
        return f"http://{credentials}{self.address}"


class _Handler(socketserver.StreamRequestHandler):
    state: Proxy

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._handle()

    def _handle(self) -> None:
        line = self.rfile.readline().decode("ascii")
        method, target, _ = line.split(" ", 2)
        headers = []
        while (header := self.rfile.readline()) not in (b"\r\n", b""):
            headers.append(header)
        self.state.requests.append(f"{method} {target.partition('?')[0]}")
        wanted = base64.b64encode(self.state.password.encode()).decode()
        if self.state.password and f"Basic {wanted}".encode() not in b"".join(headers):
            self._refuse("407 Proxy Authentication Required")
            return
        parts = urlsplit(target if "://" in target else f"//{target}")
        name, port = parts.hostname or "", parts.port or 80
        if name in self.state.refuses:
            self._refuse("403 Forbidden")
            return
        with socket.create_connection((self.state.hosts.get(name, name), port), 10) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.partition(parts.netloc)[2] or "/"
                kept = [
                    header for header in headers if not header.lower().startswith((b"proxy-", b"connection"))
                ]
                head = f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode()
                upstream.sendall(head + b"".join(kept) + b"\r\n")
            self._pump(upstream)

    def _refuse(self, status: str) -> None:
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    def _pump(self, upstream: socket.socket) -> None:
        pair = {self.connection: upstream, upstream: self.connection}
        while True:
            for readable in select.select(list(pair), [], [], 30)[0]:
                data = readable.recv(65536)
                if not data:
                    return
                pair[readable].sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def forward_proxy(address: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy on a free port."""
    state = Proxy()
    server = _Server((address, 0), type("Handler", (_Handler,), {"state": state}))
    state.address = f"{address}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
