"""SEV-SNP guests made by tests, with an AMD of their own: roots, chips, reports and certificate tables."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from hal.attest.amd import Roots
from hal.attest.policy import Tcb
from tests.attest.machines import NOW, Situation, document

PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
AMD = "1.3.6.1.4.1.3704.1"
TCB = Tcb(bootloader=4, tee=0, snp=22, microcode=213)
CHIP = bytes(range(64))


def name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
        ]
    )


def certificate(
    subject: str,
    issuer: str,
    key: Any,
    issuer_key: rsa.RSAPrivateKey,
    *,
    ca: bool = False,
    serial: int = 1,
    valid: tuple[datetime, datetime] = (NOW - timedelta(days=30), NOW + timedelta(days=30)),
    extensions: Mapping[str, bytes] | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA384(), rsa_padding=PSS)


def small_number(value: int) -> bytes:
    return b"\x02\x01" + bytes([value]) if value < 0x80 else b"\x02\x02\x00" + bytes([value])


@dataclass(frozen=True)
class Authority:
    """AMD's place in tests: a root (ARK) of a product line, and what it signed (ASK, ASVK)."""

    line: str
    ark_key: rsa.RSAPrivateKey
    ask_key: rsa.RSAPrivateKey
    ark: x509.Certificate
    ask: x509.Certificate
    asvk: x509.Certificate

    @property
    def roots(self) -> tuple[Roots, ...]:
        return (Roots(self.line, self.ark, self.ask),)

    def crl(self, *serials: int, key: Any = None, days: int = 30) -> bytes:
        """A revocation list with these serial numbers."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(f"ARK-{self.line}"))
            .last_update(NOW - timedelta(days=40))
            .next_update(NOW + timedelta(days=days))
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            )
        signed = builder.sign(key or self.ark_key, hashes.SHA384(), rsa_padding=PSS)
        return signed.public_bytes(Encoding.DER)


def authority(line: str = "Milan") -> Authority:
    """The one authority of a product line."""
    return _authority(line)


@cache
def _authority(line: str) -> Authority:
    ark_key, ask_key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    ark = certificate(f"ARK-{line}", f"ARK-{line}", ark_key, ark_key, ca=True, serial=100)
    ask = certificate(f"SEV-{line}", f"ARK-{line}", ask_key, ark_key, ca=True, serial=101)
    asvk = certificate(f"SEV-VLEK-{line}", f"ARK-{line}", ask_key, ark_key, ca=True, serial=102)
    return Authority(line, ark_key, ask_key, ark, ask, asvk)


@cache
def chip_key(chip: str) -> ec.EllipticCurvePrivateKey:
    """A chip's key, by the chip's name."""
    del chip
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class SnpMachine:
    """A SEV-SNP guest: the chip below it, its firmware's versions, what it was launched with."""

    line: str = "Milan"
    chip: str = "first"
    chip_id: bytes = CHIP
    reported_chip: bytes | None = None
    kind: str = "VCEK"
    tcb: Tcb = TCB
    certified_tcb: Tcb | None = None
    launch_tcb: Tcb | None = None
    committed_tcb: Tcb | None = None
    policy: int = 0x30000
    vmpl: int = 0
    version: int = 2
    signing_key: int | None = None
    measurement: bytes = b"\xaa" * 48
    valid: tuple[datetime, datetime] = (NOW - timedelta(days=30), NOW + timedelta(days=30))
    issuer: str | None = None

    @property
    def certificate(self) -> bytes:
        """The VCEK's (or VLEK's) certificate in DER."""
        tcb = self.certified_tcb or self.tcb
        parts = {"3.1": tcb.bootloader, "3.2": tcb.tee, "3.3": tcb.snp, "3.8": tcb.microcode}
        if self.line == "Turin":
            parts["3.9"] = tcb.fmc
        extensions = {f"{AMD}.{oid}": small_number(value) for oid, value in parts.items()}
        if self.kind == "VCEK":
            extensions[f"{AMD}.4"] = self.chip_id
        issuer = self.issuer or (f"SEV-{self.line}" if self.kind == "VCEK" else f"SEV-VLEK-{self.line}")
        return certificate(
            f"SEV-{self.kind}",
            issuer,
            chip_key(self.chip),
            authority(self.line).ask_key,
            valid=self.valid,
            extensions=extensions,
        ).public_bytes(Encoding.DER)

    def tcb_bytes(self, tcb: Tcb) -> bytes:
        if self.line == "Turin":
            return bytes([tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode])
        return bytes([tcb.bootloader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode])

    def report(self, data: bytes) -> bytes:
        """A signed report that carries `data`."""
        report = bytearray(1184)
        signing = self.signing_key if self.signing_key is not None else {"VCEK": 0, "VLEK": 1}[self.kind]
        struct.pack_into("<I", report, 0x00, self.version)
        struct.pack_into("<Q", report, 0x08, self.policy)
        struct.pack_into("<II", report, 0x30, self.vmpl, 1)
        report[0x38:0x40] = self.tcb_bytes(self.tcb)
        struct.pack_into("<I", report, 0x48, signing << 2)
        report[0x50:0x90] = data
        report[0x90:0xC0] = self.measurement
        report[0x180:0x188] = self.tcb_bytes(self.tcb)
        report[0x1A0:0x1E0] = (self.reported_chip or self.chip_id).ljust(64, b"\0")
        report[0x1E0:0x1E8] = self.tcb_bytes(self.committed_tcb or self.tcb)
        report[0x1F0:0x1F8] = self.tcb_bytes(self.launch_tcb or self.tcb)
        signature = chip_key(self.chip).sign(bytes(report[:0x2A0]), ec.ECDSA(hashes.SHA384()))
        r, s = decode_dss_signature(signature)
        report[0x2A0:0x2E8] = r.to_bytes(72, "little")
        report[0x2E8:0x330] = s.to_bytes(72, "little")
        return bytes(report)

    def table(self, **others: bytes) -> bytes:
        """The certificate table that its host gives."""
        return certificate_table({self.kind: self.certificate, **others})

    def document(self, situation: Situation, /, **changed: Any) -> bytes:
        given = {"ASK": authority(self.line).asvk.public_bytes(Encoding.DER)} if self.kind == "VLEK" else {}
        evidence = {"report": self.report(situation.report_data), "auxiliary": self.table(**given)}
        return document(situation, "sev-snp", evidence, **changed)

    @property
    def platforms(self) -> dict[str, Any]:
        shape = {"vcpus": 2, "vcpu_type": "EPYC-v4", "firmware_sha256": "ab" * 32}
        return {
            "sev-snp": [
                {**shape, "vcpus": 1, "launch_digest": "bb" * 48},
                {**shape, "launch_digest": self.measurement.hex()},
            ]
        }

    def but(self, **changed: Any) -> SnpMachine:
        """The same machine with something else."""
        return replace(self, **changed)


GUIDS = {
    "VCEK": "63da758d-e664-4564-adc5-f4b93be8accd",
    "VLEK": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ASK": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ARK": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "CRL": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
}


def certificate_table(entries: Mapping[str, bytes]) -> bytes:
    """A table as GHCB's extended guest request gives it."""
    offset = 24 * (len(entries) + 1)
    head, body = b"", b""
    for kind, value in entries.items():
        head += uuid.UUID(GUIDS[kind]).bytes_le + struct.pack("<II", offset + len(body), len(value))
        body += value
    return head + bytes(24) + body
