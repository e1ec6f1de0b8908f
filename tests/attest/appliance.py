"""A stand-in for an appliance's gateway: HTTPS on a free port, and evidence of a machine of tests."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.attest.machines import Situation, sha256, spki

Answer = Callable[[Situation], bytes]


@cache
def tls_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A key by its name."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Certificate and key, in PEM. Its name and its dates are nobody's: what counts is the key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hal")])
    past = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(past)
        .not_valid_after(past + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private


@dataclass
class Appliance:
    """A server that runs. `answer` makes the document, `key` is its TLS key, `requests` what reached it."""

    port: int
    answer: Answer
    key: ec.EllipticCurvePrivateKey
    context: ssl.SSLContext
    status: int = 200
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def take_key(self, key: ec.EllipticCurvePrivateKey) -> None:
        """From now on, connections are made with this key, as after a restart or behind a proxy."""
        self.key = key
        with TemporaryDirectory() as directory:
            file = Path(directory, "tls.pem")
            file.write_bytes(self_signed(key))
            self.context.load_cert_chain(file)


@contextmanager
def serving(answer: Answer, key: ec.EllipticCurvePrivateKey) -> Iterator[Appliance]:
    """An appliance that answers `GET /attestation` with `answer`, and speaks a little of OpenAI's API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            running.requests.append(self.path)
            parts = urlsplit(self.path)
            if parts.path == "/attestation":
                nonce = bytes.fromhex(parse_qs(parts.query)["nonce"][0])
                self.reply(running.answer(Situation(nonce, sha256(spki(running.key)))))
            elif parts.path == "/away":
                self.send_response(307)
                self.send_header("Location", parts.query)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.reply(b'{"object": "list", "data": []}')

        def do_POST(self) -> None:
            running.requests.append(self.path)
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": f"you said {asked['messages'][0]['content']}"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self.reply(
                json.dumps(
                    {
                        "id": "1",
                        "object": "chat.completion",
                        "created": 1,
                        "model": asked["model"],
                        "choices": [choice],
                    }
                ).encode()
            )

        def reply(self, body: bytes) -> None:
            self.send_response(running.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that turns away in the middle of a handshake is what these tests are about."""

        def finish_request(self, request: object, client_address: object) -> None:
            wrapped = running.context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
            try:
                super().finish_request(wrapped, client_address)
            finally:
                wrapped.close()

    server = Server(("127.0.0.1", 0), Handler)
    running = Appliance(server.server_address[1], answer, key, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    running.take_key(key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
