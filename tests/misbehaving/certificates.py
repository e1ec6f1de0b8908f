"""An authority of the tests' own, and certificates of any dates for the loopback interface."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
LOOPBACK = "127.0.0.1"


class Authority:
    """Signs certificates; `file` is its own, in PEM form, for those who are to trust it.

    It is valid from before 1970 on, so that only the dates of what it signs count.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.file = folder / "authority.pem"
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            self._builder(self._name, datetime(1960, 1, 1, tzinfo=UTC), datetime.now(UTC) + 9999 * DAY)
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(
        self, begin: timedelta = -DAY, end: timedelta = DAY, host: str = "127.0.0.1"
    ) -> ssl.SSLContext:
        """What a server of an address speaks TLS with; valid from and to, counted from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        address = x509.IPAddress(ipaddress.ip_address(host))
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(x509.Name([]), now + begin, now + end)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([address]), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{certificate.serial_number:x}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(self, subject: x509.Name, begin: datetime, end: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .subject_name(subject)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
