"""TPM quotes: what a pinned key signed, over PCRs that a log explains and that were measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hal.attest import tpm
from hal.attest.checks import Check, MalformedError, UnverifiableError
from hal.attest.document import EvidenceDocument, read_evidence_document
from hal.attest.policy import Policy
from hal.attest.report_data import qualifying_data
from hal.attest.tpm_structures import parse_tpm_public, parse_tpm_quote, parse_tpm_signature
from hal.errors import HalError, UsageError
from hal.measure.document import read
from tests.attest.machines import Situation, flipped, measurements, spki
from tests.attest.tpm_machine import EVENTS, SELECTED, TpmMachine, event_log, tpm2b, tpm_machine

Change = Callable[[dict[str, bytes]], dict[str, bytes]]


def checks(
    machine: TpmMachine, evidence: dict[str, bytes] | None = None, policy: Policy | None = None
) -> dict[str, Check]:
    """The checks of a machine's evidence by a verifier that pinned the first machine's key."""
    situation = Situation()
    read = read_evidence_document(machine.document(situation))
    read = replace(read, evidence=evidence) if evidence is not None else read
    return made(read, situation, policy or Policy(tpm_key=spki(machine.key)))


def made(read: EvidenceDocument, situation: Situation, policy: Policy) -> dict[str, Check]:
    shapes = measurements(tpm_machine().platforms).platforms.tpm
    found = []
    try:
        for check in tpm.verify_tpm(read, situation.report_data, shapes, policy):
            found.append(check)
    except UnverifiableError as error:
        found.append(Check(error.name, False, error.words))
    return {check.name: check for check in found}


def failing(found: dict[str, Check]) -> list[str]:
    return [check.name for check in found.values() if not check.ok]


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_a_quote_verifies(kind: str) -> None:
    found = checks(tpm_machine("first", kind))
    assert list(found) == list(tpm.CHECKS)
    assert failing(found) == [], found


def test_a_key_that_nobody_pinned_is_nobodys() -> None:
    found = checks(tpm_machine(), policy=Policy())
    assert failing(found) == ["attestation key"]
    assert "give --tpm-key" in found["attestation key"].words


def test_another_machine_is_told_by_its_key() -> None:
    found = checks(tpm_machine("second"), policy=Policy(tpm_key=spki(tpm_machine().key)))
    assert failing(found) == ["attestation key"]
    assert "another machine" in found["attestation key"].words


def test_another_machines_quote_under_the_pinned_key_is_refused() -> None:
    situation = Situation()
    evidence = tpm_machine("second").evidence(situation) | {"key": tpm_machine().public}
    found = checks(tpm_machine(), evidence)
    assert failing(found) == ["signature"]


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
def test_a_key_that_may_sign_anything_is_refused(bit: int) -> None:
    machine = replace(tpm_machine(), attributes=0x00050072 ^ 1 << bit)
    found = checks(machine)
    assert failing(found) == ["attestation key"]
    assert "may sign what no TPM made" in found["attestation key"].words


def with_events(*events: tuple[int, bytes]) -> TpmMachine:
    return replace(tpm_machine(), events=events)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (((4, b"another"), *EVENTS[2:]), "PCR 4 is"),
        ((*EVENTS[:2], (11, b"another kernel"), *EVENTS[3:]), "PCR 11 is"),
        ((*EVENTS[:-1], (12, b"debug")), "PCR 12 is"),
        ((*EVENTS, (12, b"a credential")), "a command line, credentials or an extension came from outside"),
    ],
    ids=["loader", "kernel", "command line", "credential"],
)
def test_another_boot_is_told_by_its_register(events: tuple[tuple[int, bytes], ...], words: str) -> None:
    found = checks(with_events(*events))
    assert failing(found) == ["measurement"]
    assert words in found["measurement"].words


def test_firmware_is_covered_by_the_quote_but_no_measurement_asks_for_it() -> None:
    assert failing(checks(with_events((0, b"other firmware"), *EVENTS[1:]))) == []


LOGS: dict[str, Callable[[], bytes]] = {
    "an event less": lambda: event_log(EVENTS[:-1]),
    "an event more": lambda: event_log((*EVENTS, (12, b"more"))),
    "another order": lambda: event_log((EVENTS[0], EVENTS[1], EVENTS[3], EVENTS[2], EVENTS[4])),
    "the measured events of another boot": lambda: event_log((*EVENTS[:-1], (12, b"hidden"))),
    "nothing": lambda: b"",
    "its end missing": lambda: event_log()[:-3],
    "another bank": lambda: event_log(EVENTS, [(0x0C, "sha384")]),
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_a_changed_log_is_refused(log: Callable[[], bytes]) -> None:
    found = checks(tpm_machine(), tpm_machine().evidence(Situation()) | {"event_log": log()})
    assert failing(found) == ["event log"]


def test_a_boot_that_differs_cannot_hide_behind_the_good_log() -> None:
    bad = with_events(*EVENTS[:-1], (12, b"hidden"))
    found = checks(bad, bad.evidence(Situation()) | {"event_log": event_log(EVENTS)})
    assert failing(found) == ["event log"]


def test_a_quote_without_a_measured_register_is_refused() -> None:
    machine = tpm_machine()
    for left_out in (4, 11, 12):
        selected = [number for number in SELECTED if number != left_out]
        found = checks(machine, machine.evidence(Situation(), selected=selected))
        assert failing(found) == ["measurement"]
        assert f"does not cover PCR {left_out}" in found["measurement"].words


@pytest.mark.parametrize("how", [{"kind": 0x8017}, {"magic": 0x12345678}], ids=["a certification", "no TPM"])
def test_something_else_that_was_signed_is_no_quote(how: dict[str, int]) -> None:
    assert failing(checks(tpm_machine(), tpm_machine().evidence(Situation(), **how))) == ["evidence"]


@pytest.mark.parametrize(
    "changed",
    [{"nonce": b"\x09" * 32}, {"tls_key_sha256": b"\x09" * 32}, {"manifest": b"{}"}],
    ids=["nonce", "TLS key", "manifest"],
)
def test_each_part_of_report_data_is_bound(changed: dict[str, bytes]) -> None:
    other = replace(Situation(), **changed)  # type: ignore[arg-type]
    assert failing(checks(tpm_machine(), tpm_machine().evidence(other))) == ["report data"]


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
@pytest.mark.parametrize("part", ["quote", "signature"])
def test_every_changed_bit_is_refused(part: str, kind: str) -> None:
    machine = tpm_machine("first", kind)
    evidence = machine.evidence(Situation())
    accepted = [
        bit
        for bit in range(8 * len(evidence[part]))
        if not failing(checks(machine, evidence | {part: flipped(evidence[part], bit)}))
    ]
    assert accepted == []


@given(
    st.sampled_from(["quote", "signature", "key", "event_log"]), st.binary(max_size=200), st.integers(0, 200)
)
def test_no_evidence_makes_the_verifier_stumble(part: str, data: bytes, kept: int) -> None:
    evidence = tpm_machine().evidence(Situation())
    changed = evidence[part][:kept] + data
    found = checks(tpm_machine(), evidence | {part: changed})
    assert failing(found) or changed == evidence[part] or part == "key"


def test_the_pinned_key_is_read_in_every_form(tmp_path: Path) -> None:
    for kind in ("ecc", "rsa"):
        machine = tpm_machine("first", kind)
        public = machine.key.public_key()
        forms = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            machine.public,
            tpm2b(machine.public),
        ]
        for form in forms:
            (tmp_path / "key").write_bytes(form)
            assert tpm.read_tpm_key(tmp_path / "key") == spki(machine.key)
    (tmp_path / "key").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="holds no public key"):
        tpm.read_tpm_key(tmp_path / "key")
    with pytest.raises(UsageError, match="cannot read"):
        tpm.read_tpm_key(tmp_path / "none")


def test_weak_signatures_are_refused() -> None:
    with pytest.raises(MalformedError, match="SHA-1"):
        parse_tpm_signature(b"\x00\x14\x00\x04" + tpm2b(b"x"))
    with pytest.raises(MalformedError, match="scheme is 0x0005"):
        parse_tpm_signature(b"\x00\x05\x00\x0b" + tpm2b(b"x"))
    weak = rsa.generate_private_key(65537, 1024)
    modulus = weak.public_key().public_numbers().n.to_bytes(128, "big")
    public = tpm_machine("first", "rsa").public
    short = public[:14].replace(b"", b"") + b"\x00\x0b\x04\x00" + bytes(4) + tpm2b(modulus)
    with pytest.raises(MalformedError):
        parse_tpm_public(short)


def test_a_signature_must_fit_the_key() -> None:
    machine = tpm_machine()
    evidence = machine.evidence(Situation())
    evidence["signature"] = tpm_machine("first", "rsa").sign(evidence["quote"])
    assert failing(checks(machine, evidence)) == ["signature"]


def test_a_quote_is_read_as_it_was_made() -> None:
    machine = TpmMachine(ec.generate_private_key(ec.SECP256R1()))
    data = qualifying_data(Situation().report_data)
    quote = parse_tpm_quote(machine.quote(data))
    assert quote.extra_data == data
    assert quote.selection == (("sha256", SELECTED),)


@pytest.mark.parametrize("missing", ["4", "11", "12", None])
def test_measurements_of_a_tpm_must_say_what_was_booted(missing: str | None, tmp_path: Path) -> None:
    text = json.loads(measurements(tpm_machine().platforms).text())
    pcrs = text["platforms"]["tpm"][0]["pcrs"]
    if missing is None:
        pcrs["24"] = "00" * 32
    else:
        del pcrs[missing]
    (tmp_path / "measurements.json").write_text(json.dumps(text))
    with pytest.raises(HalError, match=r"tpm\.0\.pcrs: name the PCRs .*, which say what was booted"):
        read(tmp_path)
