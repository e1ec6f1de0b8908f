"""Talking TLS to an appliance: its certificate is self-signed; what counts is its key, which evidence names.

The document is asked for over the very connection whose key it must name. Later connections are made with a
context that ends every handshake with another key than the attested one, before a byte of a request is sent.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hal.attest.amd import load_der
from hal.attest.checks import UnverifiableError, short
from hal.errors import HalError, UsageError

DEFAULT_PORT = 7001
MOST_BYTES = 4 << 20
"""An event log has some 50 kB, certificates less; a document this large is none."""

SHOWN = 200


@dataclass(frozen=True)
class Place:
    """Where an appliance listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Its address, as in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


def parse_place(url: str) -> Place:
    """`https://HOST[:PORT]`, or `HOST[:PORT]`; the port is 7001 where none is given.

    Raises:
        UsageError: another scheme, a path, or no host.
    """
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme != "https":
        raise UsageError(f"{url}: only https has a key that evidence can vouch for", "give https://HOST:PORT")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url}: {error}", "give https://HOST:PORT") from None
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise UsageError(f"{url} is no address of an appliance", "give https://HOST:PORT, nothing behind it")
    return Place(host, DEFAULT_PORT if port is None else port)


def fetch_document(place: Place, nonce: bytes, timeout: float) -> tuple[bytes, bytes]:
    """The answer to `GET /attestation`, and the SHA-256 of the key of the connection that it came over.

    `timeout` in seconds, for each step.

    Raises:
        HalError: it cannot be reached, or answers something else.
    """
    connection = http.client.HTTPSConnection(place.host, place.port, timeout=timeout, context=_context())
    try:
        connection.connect()
        key = key_digest(connection.sock)
        connection.request("GET", f"/attestation?nonce={nonce.hex()}", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise HalError(
            f"{place.url} gave no evidence: {reason}", "is the appliance up, and does it speak HTTPS there?"
        ) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise HalError(f"{place.url}/attestation answered {answer.status}: {_said(body)}")
    if len(body) > MOST_BYTES:
        raise HalError(f"{place.url}/attestation answered more than {MOST_BYTES >> 20} MiB")
    return body, key


def attested_context(key_sha256: bytes) -> ssl.SSLContext:
    """A TLS context for which only a server with this key exists: the SHA-256 of its SubjectPublicKeyInfo.

    It works wherever a context can be given: for sockets, and for clients that do TLS in memory (asyncio).
    """

    def check(connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        found = key_digest(connection)
        if found != key_sha256:
            raise ssl.SSLCertVerificationError(
                f"the server's key {short(found)} is not the attested one {short(key_sha256)}"
            )

    class AttestedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self)

    class AttestedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self)

    context = _context()
    context.sslsocket_class = AttestedSocket
    context.sslobject_class = AttestedObject
    return context


def key_digest(connection: ssl.SSLSocket | ssl.SSLObject | socket.socket | None) -> bytes:
    """The SHA-256 of the server's key on a connection.

    Raises:
        ssl.SSLError: it has none.
    """
    certificate = None
    if isinstance(connection, ssl.SSLSocket | ssl.SSLObject):
        certificate = connection.getpeercert(binary_form=True)
    if not certificate:
        raise ssl.SSLError("the server showed no certificate")
    try:
        key = load_der(certificate).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (UnverifiableError, ValueError, TypeError) as error:
        raise ssl.SSLError(f"the server's certificate cannot be read: {error}") from None
    return hashlib.sha256(spki).digest()


def _context() -> ssl.SSLContext:
    """No authority vouches for the certificate, and its name says nothing: evidence does, by the key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # else TLS 1.2 could change the key later
    return context


def _said(body: bytes) -> str:
    """What an error's body says, in a line."""
    try:
        error = json.loads(body)["error"]
        words = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        words = body.decode("utf-8", "replace")
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return line[:SHOWN] or "nothing"
