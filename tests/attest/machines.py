"""Machines that tests make: their keys, what they measured, and the documents that they serve.

Samples (tests/data/evidence) show that real evidence verifies; these show everything that no sample does.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hal.attest.report_data import report_data
from hal.measure.document import Measurements

SAMPLES = Path(__file__).parents[1] / "data" / "evidence"

NOW = datetime(2026, 11, 22, tzinfo=UTC)

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
