"""Machines that tests make: their keys, what they measured, and the documents that they serve.

Samples (tests/data/evidence) show that real evidence verifies; these show everything that no sample does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hal.attest.amd import Roots
from hal.attest.policy import Tcb
from hal.attest.report_data import qualifying_data, report_data
from hal.measure.document import Measurements

SAMPLES = Path(__file__).parents[1] / "data" / "evidence"

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
AMD = "1.3.6.1.4.1.3704.1"
TCB = Tcb(bootloader=4, tee=0, snp=22, microcode=213)
CHIP = bytes(range(64))

MANIFEST = {
    "schema": 1,
    "name": "service",
    "version": "1.0.0",
    "variant": "production",
    "packs": [{"kind": "model", "name": "smollm2-135m", "root_hash": "11" * 32}],
}


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- what is expected -------------------------------------------------------------------------


def manifest_text(manifest: Mapping[str, Any] = MANIFEST) -> bytes:
    return json.dumps(manifest, indent=1).encode() + b"\n"


def measurements(
    platforms: Mapping[str, Any], *, manifest: Mapping[str, Any] = MANIFEST, debug: bool = False
) -> Measurements:
    """Measurements of an image with this manifest; `platforms` as in measurements.json."""
    digest = "00" * 32
    return Measurements.model_validate_json(
        json.dumps(
            {
                "version": 1,
                "image": {
                    "name": manifest["name"],
                    "version": manifest["version"],
                    "variant": "debug" if debug else "production",
                    "debug": debug,
                },
                "root_hash": digest,
                "packs": {pack["name"]: pack["root_hash"] for pack in manifest["packs"]},
                "manifest_sha256": sha256(manifest_text(manifest)).hex(),
                "inputs": {
                    "kernel": digest,
                    "initrd": digest,
                    "command_line": "quiet",
                    "uki": digest,
                    "partition_table": digest,
                },
                "platforms": platforms,
            }
        )
    )


@dataclass(frozen=True)
class Situation:
    """What a request for evidence meets: a nonce, the key of the connection's far end, the manifest."""

    nonce: bytes = b"\x07" * 32
    tls_key_sha256: bytes = b"\x08" * 32
    manifest: bytes = field(default_factory=manifest_text)
    debug: bool = False

    @property
    def report_data(self) -> bytes:
        return report_data(self.nonce, self.tls_key_sha256, sha256(self.manifest))


def document(
    situation: Situation,
    platform: str,
    evidence: Mapping[str, bytes],
    collateral: Any = None,
    /,
    **changed: Any,
) -> bytes:
    """The document of an honest appliance; `changed` are keys of it that are not what they should be."""
    return json.dumps(
        {
            "version": 1,
            "platform": platform,
            "nonce": situation.nonce.hex(),
            "tls_key_sha256": situation.tls_key_sha256.hex(),
            "manifest_sha256": sha256(situation.manifest).hex(),
            "report_data": situation.report_data.hex(),
            "manifest": b64(situation.manifest),
            "debug": situation.debug,
            "boot": [{"name": "root", "state": "ready", "seconds": 1.5}],
            "evidence": {name: b64(value) for name, value in evidence.items()},
            "collateral": collateral,
            **changed,
        }
    ).encode()


# --- a TPM ------------------------------------------------------------------------------------

EVENTS = ((0, b"firmware"), (4, b"boot loader"), (11, b"kernel"), (11, b"initrd"), (12, b"command line"))
SELECTED = (0, 4, 11, 12)


def event_log(
    events: Sequence[tuple[int, bytes]] = EVENTS, algorithms: Sequence[tuple[int, str]] = ((0x0B, "sha256"),)
) -> bytes:
    """A log in the crypto-agile form, with an event of each register and data."""
    head = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms))
    head += b"".join(struct.pack("<HH", number, hashlib.new(name).digest_size) for number, name in algorithms)
    head += b"\0"
    log = struct.pack("<II20sI", 0, 3, b"", len(head)) + head
    for register, data in events:
        log += struct.pack("<III", register, 0xD, len(algorithms))
        for number, name in algorithms:
            log += struct.pack("<H", number) + hashlib.new(name, data).digest()
        log += struct.pack("<I", len(data)) + data
    return log


def pcr_values(events: Sequence[tuple[int, bytes]] = EVENTS) -> dict[int, bytes]:
    """The selected PCRs after the events."""
    found = {number: bytes(32) for number in SELECTED}
    for register, data in events:
        found[register] = sha256(found[register] + sha256(data))
    return found


def tpm2b(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


@dataclass(frozen=True)
class TpmMachine:
    """A machine with a TPM: its attestation key, and what firmware measured."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    events: tuple[tuple[int, bytes], ...] = EVENTS
    attributes: int = 0x00050072

    @property
    def public(self) -> bytes:
        """The key as TPMT_PUBLIC."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            modulus = self.key.public_key().public_numbers().n.to_bytes(256, "big")
            return (
                struct.pack(">HHIH", 0x0001, 0x0B, self.attributes, 0)
                + struct.pack(">HHHHI", 0x10, 0x14, 0x0B, 2048, 0)
                + tpm2b(modulus)
            )
        numbers = self.key.public_key().public_numbers()
        return (
            struct.pack(">HHIH", 0x0023, 0x0B, self.attributes, 0)
            + struct.pack(">HHHHH", 0x10, 0x18, 0x0B, 0x0003, 0x10)
            + tpm2b(numbers.x.to_bytes(32, "big"))
            + tpm2b(numbers.y.to_bytes(32, "big"))
        )

    def sign(self, data: bytes) -> bytes:
        """A TPMT_SIGNATURE."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return struct.pack(">HH", 0x14, 0x0B) + tpm2b(
                self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            )
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return struct.pack(">HH", 0x18, 0x0B) + tpm2b(r.to_bytes(32, "big")) + tpm2b(s.to_bytes(32, "big"))

    def quote(
        self,
        extra_data: bytes,
        selected: Sequence[int] = SELECTED,
        kind: int = 0x8018,
        magic: int = 0xFF544347,
    ) -> bytes:
        """A TPMS_ATTEST over the selected PCRs."""
        values = pcr_values(self.events)
        bits = sum(1 << number for number in selected).to_bytes(3, "little")
        return (
            struct.pack(">IH", magic, kind)
            + tpm2b(b"\0\x0b" + b"\x55" * 32)
            + tpm2b(extra_data)
            + struct.pack(">QIIBQ", 1234, 1, 0, 1, 0x20240125)
            + struct.pack(">IHB", 1, 0x0B, 3)
            + bits
            + tpm2b(sha256(b"".join(values[number] for number in selected)))
        )

    def evidence(self, situation: Situation, **how: Any) -> dict[str, bytes]:
        """What it answers with."""
        quote = self.quote(qualifying_data(situation.report_data), **how)
        return {
            "quote": quote,
            "signature": self.sign(quote),
            "key": self.public,
            "event_log": event_log(self.events),
        }

    def document(self, situation: Situation, /, **changed: Any) -> bytes:
        return document(situation, "tpm", self.evidence(situation), **changed)

    @property
    def platforms(self) -> dict[str, Any]:
        """What was measured of such a machine beforehand."""
        return {"tpm": [{"pcrs": {str(n): v.hex() for n, v in pcr_values(self.events).items() if n}}]}


def tpm_machine(name: str = "first", kind: str = "ecc") -> TpmMachine:
    """A machine by its name; equal names are the same machine."""
    return _tpm_machine(name, kind)


@cache
def _tpm_machine(name: str, kind: str) -> TpmMachine:
    del name
    if kind == "rsa":
        return TpmMachine(rsa.generate_private_key(65537, 2048))
    return TpmMachine(ec.generate_private_key(ec.SECP256R1()))


# --- a SEV-SNP guest --------------------------------------------------------------------------


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
