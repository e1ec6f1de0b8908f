"""A machine with a TPM, made by tests: its attestation key, what firmware measured, and its documents."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hal.attest.report_data import qualifying_data
from tests.attest.machines import Situation, document, sha256

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
