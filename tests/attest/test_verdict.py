"""A whole document judged: what must hold on every platform; nothing passes by not being looked at."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.attest import snp
from hal.attest.checks import Check
from hal.attest.policy import Policy
from hal.attest.report_data import DOMAIN, qualifying_data, report_data
from hal.attest.verdict import ALWAYS, EVIDENCE_CHECKS, Asked, Verdict, judge
from hal.measure.document import Measurements
from tests.attest.machines import (
    MANIFEST,
    NOW,
    Situation,
    b64,
    document,
    manifest_text,
    measurements,
    sha256,
    spki,
)
from tests.attest.snp_machine import TCB, SnpMachine, authority
from tests.attest.tpm_machine import tpm_machine

SITUATION = Situation()
ASKED = Asked(SITUATION.nonce, SITUATION.tls_key_sha256)


def verdict(text: bytes, expected: Measurements | None = None, policy: Policy | None = None) -> Verdict:
    """The verdict of a verifier that pinned the first machine's TPM."""
    return judge(
        text,
        ASKED,
        expected or measurements(tpm_machine().platforms),
        policy or Policy(tpm_key=spki(tpm_machine().key)),
        NOW,
    )


def reasons(found: Verdict) -> dict[str, str]:
    assert not found.verified
    return {check.name: check.words for check in found.failures}


def test_report_data_is_what_the_documents_say() -> None:
    import hashlib

    parts = [bytes([number]) * 32 for number in (1, 2, 3)]
    assert DOMAIN == b"hal-attestation-v1\0"
    assert report_data(*parts) == hashlib.sha512(DOMAIN + b"".join(parts)).digest()
    assert qualifying_data(report_data(*parts)) == hashlib.sha256(report_data(*parts)).digest()
    for wrong in ((b"\1" * 31, parts[1], parts[2]), (parts[0], b"", parts[2]), (*parts[:2], b"\1" * 33)):
        with pytest.raises(ValueError, match="32 bytes"):
            report_data(*wrong)


def test_an_honest_tpm_machine_is_verified() -> None:
    found = verdict(tpm_machine().document(SITUATION))
    assert found.verified, found.checks
    assert found.manifest == MANIFEST
    assert [check.name for check in found.checks] == [*ALWAYS, *EVIDENCE_CHECKS["tpm"]]


def test_an_honest_snp_guest_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SnpMachine()
    expected = measurements(machine.platforms)
    policy = Policy(minimum_tcb=TCB)
    assert (
        "is not signed by"
        in reasons(verdict(machine.document(SITUATION), expected, policy))["certificate chain"]
    )
    monkeypatch.setattr(snp, "amd_roots", lambda: authority().roots)
    found = verdict(machine.document(SITUATION), expected, policy)
    assert found.verified, found.checks


def test_an_answer_to_another_nonce_is_a_replay() -> None:
    found = reasons(verdict(tpm_machine().document(replace(SITUATION, nonce=b"\x01" * 32))))
    assert set(found) == {"nonce", "report data"}
    assert "replayed" in found["nonce"]


def test_a_replay_that_claims_the_new_nonce_is_told_by_what_was_signed() -> None:
    old = replace(SITUATION, nonce=b"\x01" * 32)
    found = reasons(verdict(tpm_machine().document(old, nonce=SITUATION.nonce.hex())))
    assert set(found) == {"report data"}


def test_another_tls_key_is_something_in_between() -> None:
    found = reasons(verdict(tpm_machine().document(replace(SITUATION, tls_key_sha256=b"\x01" * 32))))
    assert set(found) == {"TLS key", "report data"}
    assert "something stands in between" in found["TLS key"]


def test_a_proxy_that_writes_its_own_key_into_the_document_is_told_by_what_was_signed() -> None:
    real = replace(SITUATION, tls_key_sha256=b"\x01" * 32)
    text = tpm_machine().document(real, tls_key_sha256=SITUATION.tls_key_sha256.hex())
    assert set(reasons(verdict(text))) == {"report data"}


def with_pack(name: str, root_hash: str) -> dict[str, Any]:
    return {
        **MANIFEST,
        "packs": [*MANIFEST["packs"], {"kind": "model", "name": name, "root_hash": root_hash}],
    }  # type: ignore[misc]


def test_an_unknown_pack_is_named() -> None:
    situation = replace(SITUATION, manifest=manifest_text(with_pack("evil", "22" * 32)))
    assert reasons(verdict(tpm_machine().document(situation))) == {"manifest": "pack 'evil' is unknown"}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (
            {**MANIFEST, "packs": [{"name": "smollm2-135m", "root_hash": "33" * 32}]},
            "is another one: root hash 3333",
        ),
        (
            {**MANIFEST, "packs": [{"name": "other", "root_hash": "33" * 32}]},
            "pack 'smollm2-135m' is missing",
        ),
        ({**MANIFEST, "version": "1.0.1"}, "version '1.0.1', measured was '1.0.0'"),
        ({**MANIFEST, "engines": ["vllm"]}, "is not the one measured"),
    ],
    ids=["another pack", "a pack less", "another version", "something else"],
)
def test_another_manifest_is_explained(manifest: dict[str, Any], words: str) -> None:
    situation = replace(SITUATION, manifest=manifest_text(manifest))
    found = reasons(verdict(tpm_machine().document(situation)))
    assert words in found["manifest"]


def test_a_manifest_that_does_not_fit_its_digest_is_refused() -> None:
    text = tpm_machine().document(SITUATION, manifest=b64(manifest_text(with_pack("x", "22" * 32))))
    found = reasons(verdict(text))
    assert set(found) == {"manifest", "report data"}
    assert "the document says" in found["manifest"]


def test_a_manifest_that_is_no_object_is_refused() -> None:
    for manifest in (b"nothing", b"[1]", b"[" * 100_000):
        found = reasons(verdict(tpm_machine().document(replace(SITUATION, manifest=manifest))))
        assert found["manifest"] == "is no JSON object"


DEBUG = {**MANIFEST, "variant": "debug"}


@pytest.mark.parametrize("told", ["document", "manifest", "measurements"])
def test_debug_is_refused_wherever_it_shows(told: str) -> None:
    manifest = DEBUG if told == "manifest" else MANIFEST
    situation = replace(SITUATION, manifest=manifest_text(manifest), debug=told == "document")
    expected = measurements(tpm_machine().platforms, manifest=manifest, debug=told == "measurements")
    found = reasons(verdict(tpm_machine().document(situation), expected))
    assert "--allow-debug accepts that" in found["variant"]


def test_debug_is_accepted_when_asked_for() -> None:
    situation = replace(SITUATION, manifest=manifest_text(DEBUG), debug=True)
    expected = measurements(tpm_machine().platforms, manifest=DEBUG, debug=True)
    policy = Policy(tpm_key=spki(tpm_machine().key), allow_debug=True)
    found = verdict(tpm_machine().document(situation), expected, policy)
    assert found.verified, found.checks
    assert "ALLOWED BY YOU" in {check.name: check.words for check in found.checks}["variant"]


def test_an_image_cannot_pass_for_the_other_variant_even_where_debug_is_allowed() -> None:
    policy = Policy(tpm_key=spki(tpm_machine().key), allow_debug=True)
    found = reasons(verdict(tpm_machine().document(replace(SITUATION, debug=True)), policy=policy))
    assert found == {"variant": "the appliance says debug, the measurements are of production"}


def test_no_platform_proves_nothing_whatever_is_allowed() -> None:
    policy = Policy(allow_debug=True, tpm_key=spki(tpm_machine().key))
    found = verdict(document(SITUATION, "none", {}), policy=policy)
    assert "it proves nothing" in reasons(found)["platform"]


def test_another_platform_than_asked_for_is_refused() -> None:
    policy = Policy(platform="sev-snp", tpm_key=spki(tpm_machine().key))
    assert reasons(verdict(tpm_machine().document(SITUATION), policy=policy)) == {
        "platform": "tpm, asked for sev-snp"
    }


def test_measurements_without_this_platform_know_nothing() -> None:
    found = reasons(verdict(tpm_machine().document(SITUATION), measurements({})))
    assert found == {"measurement": "the measurements hold none for tpm"}


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"version": 2}, "has version 2; this hal reads version 1"),
    "version true": ({"version": True}, "has version True"),
    "platform": ({"platform": "sgx"}, "names the platform 'sgx'"),
    "platform list": ({"platform": ["tpm"]}, "names the platform"),
    "nonce": ({"nonce": "00"}, "has no `nonce` of 64 hexadecimal digits"),
    "nonce spaces": ({"nonce": " " * 64}, "has no `nonce`"),
    "report data": ({"report_data": 7}, "has no `report_data` of 128"),
    "manifest": ({"manifest": "***"}, "has no `manifest` in base64"),
    "debug": ({"debug": "no"}, "does not say whether it is of a debug image"),
    "evidence": ({"evidence": None}, "has no `evidence`"),
    "evidence less": ({"evidence": {"quote": ""}}, "has no `signature`"),
    "evidence more": ({"evidence": {"report": ""}}, "holds evidence that tpm does not have: report"),
    "collateral": ({"collateral": []}, "holds `collateral` that is no object"),
}


@pytest.mark.parametrize(("changed", "words"), BROKEN.values(), ids=BROKEN)
def test_a_document_that_is_none_is_told(changed: dict[str, Any], words: str) -> None:
    found = reasons(verdict(tpm_machine().document(SITUATION, **changed)))
    assert set(found) == {"document"}
    assert words in found["document"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"version": 1}'])
def test_no_answer_makes_the_verifier_stumble(text: bytes) -> None:
    found = verdict(text)
    assert not found.verified
    assert found.platform is None
    assert [check.name for check in found.checks] == list(ALWAYS)


@pytest.mark.parametrize(
    "changed",
    [
        {"platform": "\x1b[2Jtpm"},
        {"version": "x" * 100_000},
        {"evidence": {"\x1b[31m": "", "y" * 100_000: ""}},
        {"platform": "\u202e"},
    ],
)
def test_what_a_stranger_sends_reaches_no_terminal_as_it_is(changed: dict[str, Any]) -> None:
    (words,) = reasons(verdict(tpm_machine().document(SITUATION, **changed))).values()
    assert words.isprintable()
    assert len(words) <= 601


@given(st.data())
def test_no_changed_character_is_believed_unless_it_means_nothing(data: st.DataObject) -> None:
    text = tpm_machine().document(SITUATION)
    index = data.draw(st.integers(0, len(text) - 1))
    changed = text[:index] + bytes([data.draw(st.integers(32, 126))]) + text[index + 1 :]
    found = verdict(changed)
    if found.verified:
        told, meant = (json.loads(one) for one in (changed, text))
        # `boot` is for people, `collateral` is not a TPM's, `report_data` is computed anew, and what a key
        # may do is said by the one who pinned it.
        for one in (told, meant):
            for key in ("boot", "collateral", "report_data"):
                one.pop(key, None)
            one["evidence"] = {
                name: base64.b64decode(value) for name, value in one["evidence"].items() if name != "key"
            }
        told["manifest"], meant["manifest"] = (base64.b64decode(one["manifest"]) for one in (told, meant))
        events = [one["evidence"].pop("event_log") for one in (told, meant)]
        assert {k: str(v).lower() for k, v in told.items() if k in meant} == {
            k: str(v).lower() for k, v in meant.items()
        }
        assert len(events[0]) == len(events[1])  # an event's words are not signed, its digest is


def test_a_verdict_without_checks_is_none() -> None:
    for platform in (None, "none", "tpm", "tdx"):
        assert not Verdict(platform, (), b"", None).verified
    everything = tuple(Check(name, True, "") for name in (*ALWAYS, *EVIDENCE_CHECKS["tpm"]))
    assert Verdict("tpm", everything, b"", None).verified
    assert not Verdict("none", everything, b"", None).verified
    assert not Verdict("sev-snp", everything, b"", None).verified
    for index in range(len(everything)):
        assert not Verdict("tpm", everything[:index] + everything[index + 1 :], b"", None).verified
        opened = replace(everything[index], ok=None)
        assert not Verdict("tpm", (*everything[:index], opened, *everything[index + 1 :]), b"", None).verified


def test_the_digest_of_the_manifest_is_of_its_bytes() -> None:
    assert measurements({}).manifest_sha256 == sha256(manifest_text()).hex()
