"""The document that a caller gets: evidence, what it signs, and what helps to verify it. Pure.

Its form is version 1 of docs/verify.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .report_data import report_data

VERSION = 1


class Evidence(NamedTuple):
    """What a platform says: its name, the parts (None: the platform gave none of that), collateral."""

    platform: str
    parts: Mapping[str, bytes | None]
    collateral: Mapping[str, Any] | None = None


NONE = Evidence("none", {})
"""A machine that can prove nothing."""


class Machine(NamedTuple):
    """What is the same in every answer: the manifest's bytes, whether it is a debug image, boot's stages."""

    manifest: bytes
    debug: bool
    boot: Sequence[Mapping[str, Any]]

    @property
    def manifest_sha256(self) -> bytes:
        """The digest that evidence signs."""
        return hashlib.sha256(self.manifest).digest()


def signed(nonce: bytes, tls_key_sha256: bytes | None, machine: Machine) -> bytes | None:
    """What the evidence is to sign; None without TLS, where there is no key that evidence could bind."""
    return None if tls_key_sha256 is None else report_data(nonce, tls_key_sha256, machine.manifest_sha256)


def document(nonce: bytes, tls_key_sha256: bytes | None, machine: Machine, evidence: Evidence) -> str:
    """The whole answer, in JSON."""
    data = signed(nonce, tls_key_sha256, machine)
    found = {
        "version": VERSION,
        "platform": evidence.platform,
        "nonce": nonce.hex(),
        "tls_key_sha256": None if tls_key_sha256 is None else tls_key_sha256.hex(),
        "manifest_sha256": machine.manifest_sha256.hex(),
        "report_data": None if data is None else data.hex(),
        "debug": machine.debug,
        "boot": list(machine.boot),
        "evidence": {name: _base64(value) for name, value in evidence.parts.items()},
        "collateral": evidence.collateral,
        "manifest": _base64(machine.manifest),
    }
    return json.dumps(found) + "\n"


def machine(manifest: bytes, boot_report: bytes) -> Machine:
    """Out of /usr/lib/hal/manifest.json, and of what the initrd wrote of this boot.

    Raises:
        ValueError: the manifest is none.
    """
    data = json.loads(manifest)
    if not isinstance(data, dict) or not isinstance(data.get("variant"), str):
        raise ValueError("it names no variant")
    return Machine(manifest, data["variant"] != "production", stages(boot_report))


def stages(boot_report: bytes) -> list[dict[str, Any]]:
    """Boot's stages; none where the report cannot be read: they are for people, and prove nothing."""
    try:
        return [
            {
                "name": str(stage["name"]),
                "state": str(stage["outcome"]),
                "seconds": round(float(stage["ms"]) / 1000, 3),
            }
            for stage in json.loads(boot_report)["stages"]
        ]
    except (ValueError, KeyError, TypeError):
        return []


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
