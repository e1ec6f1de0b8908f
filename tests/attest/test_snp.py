"""SEV-SNP reports: a real one, every bit of it changed, and all the ways in which one may not be accepted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from hal.attest import snp
from hal.attest.amd import Roots, amd_roots, load_der, verify_chain
from hal.attest.certificate_table import parse_certificate_table
from hal.attest.checks import Check, MalformedError, UnverifiableError
from hal.attest.document import read_evidence_document
from hal.attest.policy import Policy, Tcb, parse_tcb
from hal.attest.snp_report import SIZE, parse_snp_report, tcb_of
from hal.errors import UsageError
from tests.attest.machines import NOW, SAMPLES, Situation, b64, document, flipped, measurements
from tests.attest.snp_machine import TCB, SnpMachine, authority, certificate, certificate_table, chip_key

REPORT = (SAMPLES / "snp-report-milan.bin").read_bytes()
VCEK = (SAMPLES / "snp-vcek-milan.der").read_bytes()
SAMPLE_TCB = Tcb(bootloader=2, tee=0, snp=5, microcode=68)
LENIENT = Policy(allow_debug=True, minimum_tcb=SAMPLE_TCB)


def sample_checks(report: bytes = REPORT, policy: Policy = LENIENT, now: datetime = NOW) -> list[Check]:
    """The checks of a report with the real VCEK; the launch digest of the real one is known."""
    parsed = parse_snp_report(REPORT)
    shapes = measurements(SnpMachine(measurement=parsed.measurement).platforms).platforms.sev_snp
    read = read_evidence_document(document(Situation(), "sev-snp", {"report": report, "auxiliary": b""}))
    read = replace(read, evidence={"report": report, "auxiliary": certificate_table({"VCEK": VCEK})})
    try:
        return list(snp.verify_snp(read, parsed.report_data, shapes, policy, now))
    except UnverifiableError as error:
        return [Check(error.name, False, error.words)]


def checks(
    machine: SnpMachine,
    policy: Policy | None = None,
    evidence: bytes | None = None,
    roots: tuple[Roots, ...] = (),
) -> dict[str, Check]:
    """The checks of a machine that tests made; `evidence` in place of its document."""
    situation = Situation()
    read = read_evidence_document(evidence or machine.document(situation))
    shapes = measurements(SnpMachine().platforms).platforms.sev_snp
    made = []
    try:
        for check in snp.verify_snp(
            read,
            situation.report_data,
            shapes,
            policy or Policy(minimum_tcb=TCB),
            NOW,
            roots or authority(machine.line).roots,
        ):
            made.append(check)
    except UnverifiableError as error:
        made.append(Check(error.name, False, error.words))
    return {check.name: check for check in made}


def test_the_real_report_says_what_it_says() -> None:
    report = parse_snp_report(REPORT)
    assert (report.version, report.vmpl, report.signing_key) == (2, 0, 0)
    assert report.debug and not report.migration_agent
    assert report.report_data == bytes([1, 2, 3, 4, 5]).ljust(64, b"\0")
    assert report.measurement.hex().startswith("b07af9620f3b839b")
    assert tcb_of(report.reported_tcb, "Milan") == SAMPLE_TCB


def test_the_real_report_verifies_up_to_amds_root() -> None:
    found = sample_checks()
    assert [check.name for check in found] == list(snp.CHECKS)
    assert all(check.ok for check in found), found
    assert "VCEK of AMD's Milan" in found[1].words


def test_the_real_guest_may_be_debugged_which_is_refused_unless_allowed() -> None:
    found = {check.name: check for check in sample_checks(policy=Policy(minimum_tcb=SAMPLE_TCB))}
    assert found["guest policy"].ok is False
    assert "read its memory" in found["guest policy"].words
    assert [name for name, check in found.items() if not check.ok] == ["guest policy"]


def test_the_real_certificate_ends_some_day() -> None:
    late = sample_checks(now=datetime(2029, 9, 25, tzinfo=UTC))
    assert late[-1] == Check("certificate chain", False, "the certificate of SEV-VCEK expired on 2029-09-24")


def test_the_real_certificate_holds_for_its_own_line_only() -> None:
    milan, genoa, turin = amd_roots()
    for roots in ((genoa, turin), (replace(genoa, line="Milan"),), (replace(milan, ask=genoa.ask),)):
        with pytest.raises(UnverifiableError):
            verify_chain(VCEK, (), None, NOW, roots)


def test_the_roots_of_the_package_are_the_samples_and_sign_themselves() -> None:
    for roots in amd_roots():
        sample = (SAMPLES / f"snp-ask-ark-{roots.line.lower()}.pem").read_bytes()
        assert x509.load_pem_x509_certificates(sample) == [roots.ask, roots.ark]
        roots.ark.verify_directly_issued_by(roots.ark)
        roots.ask.verify_directly_issued_by(roots.ark)


@given(st.integers(0, 8 * SIZE - 1))
def test_a_changed_bit_of_the_real_report_is_refused(bit: int) -> None:
    assert refused(flipped(REPORT, bit)), bit


@pytest.mark.slow
def test_every_changed_bit_of_the_real_report_is_refused() -> None:
    assert [bit for bit in range(8 * SIZE) if not refused(flipped(REPORT, bit))] == []


def refused(report: bytes) -> bool:
    try:
        return not all(check.ok for check in sample_checks(report))
    except MalformedError:
        return True


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 4000])
def test_a_report_of_another_size_is_none(size: int) -> None:
    with pytest.raises(MalformedError, match=f"has {SIZE} bytes, not {size}"):
        parse_snp_report(REPORT.ljust(size, b"\0")[:size])


def test_a_machine_of_tests_verifies() -> None:
    found = checks(SnpMachine())
    assert list(found) == list(snp.CHECKS)
    assert all(check.ok for check in found.values()), found


@pytest.mark.parametrize(
    "machine",
    [
        SnpMachine(kind="VLEK"),
        SnpMachine(line="Genoa", version=3),
        SnpMachine(line="Turin", version=5, tcb=replace(TCB, fmc=1), chip_id=bytes(range(1, 9))),
    ],
    ids=["VLEK", "Genoa", "Turin"],
)
def test_other_lines_and_keys_verify(machine: SnpMachine) -> None:
    assert all(check.ok for check in checks(machine).values()), checks(machine)


OLD = Tcb(bootloader=4, tee=0, snp=21, microcode=213)

RED = {
    "another chip's report": (
        SnpMachine(reported_chip=b"\x01" * 64),
        "certificate chain",
        "is of chip 01010101",
    ),
    "certificate of an older TCB": (
        SnpMachine(certified_tcb=OLD),
        "TCB",
        "the certificate is for bootloader=4,tee=0,snp=21",
    ),
    "an old TCB": (SnpMachine(tcb=OLD), "TCB", "the reported TCB is too old: snp 21, at least 22"),
    "launched under an old TCB": (SnpMachine(launch_tcb=OLD), "TCB", "the launch TCB is too old: snp 21"),
    "a TCB above what it runs": (
        SnpMachine(committed_tcb=replace(TCB, snp=23)),
        "TCB",
        "the current TCB is below the committed one",
    ),
    "debugging": (SnpMachine(policy=0xB0000), "guest policy", "the host may debug the guest"),
    "migration": (SnpMachine(policy=0x70000), "guest policy", "a migration agent"),
    "a lower privilege level": (SnpMachine(vmpl=1), "guest policy", "asked for at VMPL 1"),
    "another launch": (SnpMachine(measurement=b"\xcc" * 48), "measurement", "is none of 2 known"),
    "nobody's signature": (SnpMachine(signing_key=7), "certificate chain", "no known key signed it"),
    "another version": (SnpMachine(version=9), "evidence", "has version 9"),
    "an expired certificate": (
        SnpMachine(valid=(NOW - timedelta(days=9), NOW - timedelta(days=1))),
        "certificate chain",
        "expired on 2026-11-21",
    ),
    "a certificate of tomorrow": (
        SnpMachine(valid=(NOW + timedelta(days=1), NOW + timedelta(days=9))),
        "certificate chain",
        "valid only from 2026-11-23",
    ),
    "an unknown issuer": (
        SnpMachine(issuer="SEV-Naples"),
        "certificate chain",
        "issuer is SEV-Naples; hal holds roots for Milan",
    ),
}


@pytest.mark.parametrize(("machine", "name", "words"), RED.values(), ids=RED)
def test_what_is_not_accepted_has_its_own_reason(machine: SnpMachine, name: str, words: str) -> None:
    found = checks(machine)
    assert [check.name for check in found.values() if not check.ok] == [name], found
    assert words in found[name].words


def test_without_a_minimum_nothing_says_that_the_tcb_is_enough() -> None:
    found = checks(SnpMachine(), Policy())
    assert found["TCB"].ok is False
    assert "bootloader=4,tee=0,snp=22,microcode=213" in found["TCB"].words
    assert "--minimum-tcb" in found["TCB"].words


def test_an_authority_that_only_has_amds_names_is_refused() -> None:
    evil = rsa.generate_private_key(65537, 2048)
    machine = SnpMachine()
    real = authority()
    forged = replace(real, ask_key=evil)
    assert forged.roots == real.roots  # same names, same certificates, but not the keys
    leaf = certificate("SEV-VCEK", "SEV-Milan", chip_key("first"), evil, extensions={}).public_bytes(
        Encoding.DER
    )
    situation = Situation()
    evidence = {
        "report": machine.report(situation.report_data),
        "auxiliary": certificate_table({"VCEK": leaf}),
    }
    found = checks(machine, evidence=document(situation, "sev-snp", evidence))
    assert "is not signed by SEV-Milan" in found["certificate chain"].words


def test_a_vlek_needs_its_issuer_and_the_issuer_amds_root() -> None:
    machine, situation = SnpMachine(kind="VLEK"), Situation()
    report = machine.report(situation.report_data)
    for issuer in (None, VCEK, authority().ask.public_bytes(Encoding.DER)):
        table = machine.table(**({"ASK": issuer} if issuer else {}))
        found = checks(
            machine, evidence=document(situation, "sev-snp", {"report": report, "auxiliary": table})
        )
        assert "is not signed by SEV-VLEK-Milan" in found["certificate chain"].words


def test_a_report_says_which_key_signed_it() -> None:
    machine, situation = SnpMachine(), Situation()
    evidence = {
        "report": machine.report(situation.report_data),
        "auxiliary": certificate_table({"VCEK": machine.but(kind="VLEK").certificate}),
    }
    found = checks(machine, evidence=document(situation, "sev-snp", evidence))
    assert found["certificate chain"].ok is False


@pytest.mark.parametrize("place", ["collateral", "nowhere"])
def test_the_certificate_comes_from_the_host_or_as_collateral(place: str) -> None:
    machine, situation = SnpMachine(), Situation()
    collateral = {"vcek": b64(machine.certificate)} if place == "collateral" else None
    evidence = {"report": machine.report(situation.report_data)}
    found = checks(machine, evidence=document(situation, "sev-snp", evidence, collateral))
    assert found["certificate chain"].ok is (place == "collateral")


def with_crl(crl: bytes) -> Check:
    machine, situation = SnpMachine(), Situation()
    evidence = {
        "report": machine.report(situation.report_data),
        "auxiliary": machine.table(CRL=crl),
    }
    return checks(machine, evidence=document(situation, "sev-snp", evidence))["certificate chain"]


REVOCATIONS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "nothing revoked": (lambda: authority().crl(), None),
    "another's serial number": (lambda: authority().crl(7), None),
    "the ASK revoked": (lambda: authority().crl(101), "AMD revoked the certificate of SEV-Milan"),
    "another's list": (lambda: authority("Genoa").crl(), "is not signed by ARK-Milan"),
    "a forged list": (lambda: authority().crl(key=authority().ask_key), "is not signed by ARK-Milan"),
    "an old list": (lambda: authority().crl(days=-1), "is not of these days"),
    "no list": (lambda: b"nothing", "cannot be read"),
}


@pytest.mark.parametrize(("crl", "words"), REVOCATIONS.values(), ids=REVOCATIONS)
def test_a_revocation_list_is_heeded(crl: Callable[[], bytes], words: str | None) -> None:
    found = with_crl(crl())
    assert found.ok is (words is None), found
    assert words is None or words in found.words


@given(st.binary(max_size=200))
def test_no_certificate_table_makes_the_reader_stumble(data: bytes) -> None:
    try:
        parse_certificate_table(data)
    except MalformedError as error:
        assert "certificate table" in str(error)


def test_a_certificate_table_points_only_into_itself() -> None:
    table = bytearray(certificate_table({"VCEK": b"x" * 10}))
    struct.pack_into("<I", table, 20, 11)
    with pytest.raises(MalformedError, match="points outside"):
        parse_certificate_table(bytes(table))
    assert parse_certificate_table(certificate_table({"VCEK": b"a", "ASK": b"bc"})) == {
        "VCEK": b"a",
        "ASK": b"bc",
    }


def test_a_minimum_is_read_from_the_command_line() -> None:
    assert parse_tcb("snp=8,microcode=115") == Tcb(snp=8, microcode=115)
    for text in ("", "snp", "snp=x", "snp=-1", "snp=256", "ucode=1", "snp=1,snp=2", "snp=²"):
        with pytest.raises(UsageError):
            parse_tcb(text)


def test_a_certificate_that_is_none_is_told() -> None:
    with pytest.raises(UnverifiableError, match="cannot be read"):
        load_der(b"nothing")
