"""All checks of one document, put together: the pure core of `hal verify`.

An appliance is verified only when every check of its platform was made and holds. A check that could not be
made counts as one that failed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hal.attest import snp, tdx, tpm
from hal.attest.checks import Check, UnverifiableError, equal, short
from hal.attest.document import NAME as DOCUMENT
from hal.attest.document import EvidenceDocument, read_evidence_document
from hal.attest.policy import Policy
from hal.attest.report_data import report_data
from hal.measure.document import Measurements

PLATFORM, NONCE, TLS_KEY, MANIFEST, VARIANT = "platform", "nonce", "TLS key", "manifest", "variant"

ALWAYS = (DOCUMENT, PLATFORM, NONCE, TLS_KEY, MANIFEST, VARIANT)
EVIDENCE_CHECKS = {"sev-snp": snp.CHECKS, "tdx": tdx.CHECKS, "tpm": tpm.CHECKS}

MOST_WORDS = 600


@dataclass(frozen=True)
class Asked:
    """What the client knows itself: the nonce that it drew, and the key of the connection it asked over."""

    nonce: bytes
    tls_key_sha256: bytes


@dataclass(frozen=True)
class Verdict:
    """What verification found. `manifest`: what the appliance says it holds, true only if `verified`."""

    platform: str | None
    checks: tuple[Check, ...]
    tls_key_sha256: bytes
    manifest: Mapping[str, Any] | None

    @property
    def verified(self) -> bool:
        """Whether every check was made and holds."""
        needed = {*ALWAYS, *EVIDENCE_CHECKS.get(self.platform or "", ("a platform that proves something",))}
        return all(check.ok is True for check in self.checks) and needed <= {
            check.name for check in self.checks
        }

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold, without those that could not be made because of them."""
        return tuple(check for check in self.checks if check.ok is False)


def judge(text: bytes, asked: Asked, expected: Measurements, policy: Policy, now: datetime) -> Verdict:
    """Verify the document in `text`, at the time `now`."""
    found: list[Check] = []
    document: EvidenceDocument | None = None
    try:
        document = read_evidence_document(text)
        beside = policy.collateral.beside(document.platform, document.collateral)
        document = replace(document, collateral=beside)
        found.append(Check(DOCUMENT, True, "version 1"))
        for check in _checks(document, asked, expected, policy, now):
            found.append(check)
    except UnverifiableError as reason:
        found.append(Check(reason.name, False, reason.words))
    platform = document.platform if document else None
    made = {check.name for check in found}
    for name in (*ALWAYS, *EVIDENCE_CHECKS.get(platform or "", ())):
        if name not in made:
            found.append(Check(name, None, "could not be looked at"))
    checks = tuple(replace(check, words=_plain(check.words)) for check in found)
    return Verdict(platform, checks, asked.tls_key_sha256, _manifest(document) if document else None)


def _plain(words: str) -> str:
    """Words that hold what a stranger sent, for a terminal: no control characters, and not too many."""
    cut = words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}…"
    return "".join(one if one.isprintable() else "?" for one in cut)


def _checks(
    document: EvidenceDocument, asked: Asked, expected: Measurements, policy: Policy, now: datetime
) -> Iterator[Check]:
    yield _platform(document, policy)
    yield equal(
        NONCE, document.nonce, asked.nonce, "the one that was asked with", "answers another one: replayed"
    )
    yield equal(
        TLS_KEY,
        document.tls_key_sha256,
        asked.tls_key_sha256,
        f"{short(asked.tls_key_sha256)}, that of this connection",
        "the connection has another key than the appliance says: something stands in between",
    )
    yield _manifest_check(document, expected)
    yield _variant(document, expected, policy)
    data = report_data(asked.nonce, asked.tls_key_sha256, hashlib.sha256(document.manifest).digest())
    yield from _evidence(document, data, expected, policy, now)


def _platform(document: EvidenceDocument, policy: Policy) -> Check:
    if document.platform == "none":
        raise UnverifiableError(
            PLATFORM, "none: the machine is no confidential VM and has no TPM, so it proves nothing"
        )
    if policy.platform is not None and document.platform != policy.platform:
        raise UnverifiableError(PLATFORM, f"{document.platform}, asked for {policy.platform}")
    return Check(PLATFORM, True, document.platform)


def _manifest_check(document: EvidenceDocument, expected: Measurements) -> Check:
    digest = hashlib.sha256(document.manifest).digest()
    if digest != document.manifest_sha256:
        return Check(
            MANIFEST,
            False,
            f"has digest {short(digest)}, the document says {short(document.manifest_sha256)}",
        )
    if digest == bytes.fromhex(expected.manifest_sha256):
        return Check(
            MANIFEST, True, f"{expected.image.name} {expected.image.version}, packs: {len(expected.packs)}"
        )
    words = _differences(_manifest(document), expected) or [f"digest {short(digest)} is not the one measured"]
    return Check(MANIFEST, False, "; ".join(words))


def _differences(manifest: Mapping[str, Any] | None, expected: Measurements) -> list[str]:
    """What an unknown manifest has that the measured one has not, as far as it can be told."""
    if manifest is None:
        return ["is no JSON object"]
    words = []
    packs = _packs(manifest)
    for name, root_hash in packs.items():
        if name not in expected.packs:
            words.append(f"pack {name!r} is unknown")
        elif expected.packs[name] != root_hash:
            words.append(f"pack {name!r} is another one: root hash {str(root_hash)[:24]}…")
    words += [f"pack {name!r} is missing" for name in expected.packs if packs and name not in packs]
    for key in ("name", "version", "variant"):
        if manifest.get(key) != (wanted := getattr(expected.image, key)):
            words.append(f"{key} {str(manifest.get(key))[:40]!r}, measured was {wanted!r}")
    return words


def _packs(manifest: Mapping[str, Any]) -> dict[str, object]:
    """Root hashes by pack, of a manifest that lists packs or maps them."""
    packs = manifest.get("packs")
    if isinstance(packs, dict):
        return {
            str(name): one.get("root_hash") if isinstance(one, dict) else one for name, one in packs.items()
        }
    if isinstance(packs, list):
        return {str(one.get("name")): one.get("root_hash") for one in packs if isinstance(one, dict)}
    return {}


def _manifest(document: EvidenceDocument) -> Mapping[str, Any] | None:
    try:
        found = json.loads(document.manifest)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _variant(document: EvidenceDocument, expected: Measurements, policy: Policy) -> Check:
    manifest = _manifest(document) or {}
    debug = document.debug or expected.image.debug or manifest.get("variant") == "debug"
    if debug and not policy.allow_debug:
        return Check(VARIANT, False, "debug: its operators have a shell; --allow-debug accepts that")
    if document.debug != expected.image.debug:
        said, measured = (
            "debug" if debug else "production" for debug in (document.debug, expected.image.debug)
        )
        return Check(VARIANT, False, f"the appliance says {said}, the measurements are of {measured}")
    return Check(VARIANT, True, "debug, ALLOWED BY YOU" if debug else "production")


def _evidence(
    document: EvidenceDocument, data: bytes, expected: Measurements, policy: Policy, now: datetime
) -> Iterator[Check]:
    platforms = expected.platforms
    if document.platform == "sev-snp":
        return snp.verify_snp(document, data, platforms.sev_snp, policy, now)
    if document.platform == "tdx":
        return tdx.verify_tdx(document, data, platforms.tdx, policy, now)
    return tpm.verify_tpm(document, data, platforms.tpm, policy)
