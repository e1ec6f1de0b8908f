"""Collateral that the client brings: read from files, and fetched from vendors where a user asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hal import verify as verifying
from hal.attest import amd, snp, tdx, vendors
from hal.attest.checks import Check, UnverifiableError
from hal.attest.collateral import Collateral
from hal.attest.collateral_file import parse_collateral, read_collateral
from hal.attest.document import EvidenceDocument, read_evidence_document
from hal.attest.policy import Policy
from hal.attest.snp_report import parse_snp_report
from hal.attest.vendors import KeyServer, fetch_collateral, vcek_path
from hal.attest.verdict import Asked, Verdict, judge
from hal.cli.main import main
from hal.errors import HalError, UsageError
from tests.attest.appliance import serving as appliance
from tests.attest.appliance import tls_key
from tests.attest.machines import NOW, SAMPLES, Situation, document, measurements
from tests.attest.snp_machine import TCB, SnpMachine, authority
from tests.attest.vendor_servers import NOTHING, Amd, Intel, serving

TURIN = replace(TCB, fmc=3)
MACHINES = {
    "Milan": SnpMachine(),
    "Milan, version 3": SnpMachine(version=3),
    "Genoa": SnpMachine(line="Genoa", chip="genoa", version=5),
    "Turin": SnpMachine(line="Turin", chip="turin", chip_id=bytes(range(1, 9)), tcb=TURIN, version=3),
}
MODELS = {"Milan": (0x19, 0x01), "Genoa": (0x19, 0xA0), "Turin": (0x1A, 0x02)}

QUOTED_AT = datetime.fromisoformat("2025-06-19T11:16:03Z")
QUOTE = (SAMPLES / "tdx-quote-v4.bin").read_bytes()
TDX = json.loads((SAMPLES / "tdx-quote-v4-collateral.json").read_text())


def bare(machine: SnpMachine) -> Callable[[Situation], bytes]:
    """What an honest machine says whose host has no certificate table."""

    def answer(situation: Situation) -> bytes:
        return document(situation, "sev-snp", {"report": machine.report(situation.report_data)})

    return answer


def with_model(machine: SnpMachine) -> bytes:
    """A report that names its processor, as those from version 3 on do (unsigned here: only asked with)."""
    report = bytearray(machine.report(bytes(64)))
    if machine.version >= 3:
        report[0x188], report[0x189] = MODELS[machine.line]
    return bytes(report)


def judged(text: bytes, machine: SnpMachine, collateral: Collateral) -> Verdict:
    situation = Situation()
    expected = measurements(machine.platforms)
    policy = Policy(minimum_tcb=machine.tcb, collateral=collateral)
    return judge(text, Asked(situation.nonce, situation.tls_key_sha256), expected, policy, NOW)


@pytest.fixture(autouse=True)
def _amd_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roots that verification goes by are those of the tests' own AMD."""
    roots = tuple(one for line in ("Milan", "Genoa", "Turin") for one in authority(line).roots)
    monkeypatch.setattr(snp, "amd_roots", lambda: roots)


# --- files ---------------------------------------------------------------------------------------


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_a_machine_without_a_table_is_verified_with_a_file(tmp_path: Path) -> None:
    machine = SnpMachine()
    text = bare(machine)(Situation())
    refused = judged(text, machine, Collateral())
    assert [(check.name, "give --collateral FILE" in check.words) for check in refused.failures] == [
        ("certificate chain", True)
    ]
    forms = {
        "vcek.der": machine.certificate,
        "vcek.pem": pem(machine.certificate),
        "chain.pem": pem(machine.certificate) + authority().ask.public_bytes(Encoding.PEM),
        "own.json": Collateral({"VCEK": machine.certificate}).text().encode(),
    }
    for name, data in forms.items():
        file = tmp_path / name
        file.write_bytes(data)
        verdict = judged(text, machine, read_collateral([file]))
        assert verdict.verified, (name, verdict.failures)


def test_a_list_in_a_file_is_heeded(tmp_path: Path) -> None:
    machine = SnpMachine(kind="VLEK", chip="cloud")
    text = bare(machine)(Situation())
    files = [tmp_path / name for name in ("vlek.der", "asvk.pem", "list.crl")]
    issuer = authority()
    files[0].write_bytes(machine.certificate)
    files[1].write_bytes(issuer.asvk.public_bytes(Encoding.PEM) + issuer.ark.public_bytes(Encoding.PEM))
    for serials, good in (((), True), ((102,), False)):
        files[2].write_bytes(issuer.crl(*serials))
        verdict = judged(text, machine, read_collateral(files))
        assert verdict.verified is good
    assert "AMD revoked" in verdict.failures[0].words


def test_what_the_client_brings_counts_and_is_not_believed() -> None:
    machine = SnpMachine()
    served = machine.document(Situation())
    other = SnpMachine(chip="second", chip_id=bytes(64)[:-1] + b"\x01")
    wrong = judged(served, machine, Collateral({"VCEK": other.certificate}))
    assert [check.name for check in wrong.failures] == ["certificate chain"]
    evil = judged(served, machine, Collateral({"VCEK": machine.but(issuer="SEV-Genoa").certificate}))
    assert not evil.verified
    assert judged(served, machine, Collateral(tdx=TDX)).verified  # for another platform: nothing to do


def test_a_tdx_quote_is_verified_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(json.dumps(TDX))
    (tmp_path / "own.json").write_text(Collateral(tdx=TDX).text())
    for name in ("plain.json", "own.json"):
        given = read_collateral([tmp_path / name])
        assert tdx_checks(given)["quote"].ok
    assert "give --collateral FILE" in tdx_checks(Collateral())["quote"].words


def tdx_checks(collateral: Collateral) -> dict[str, Check]:
    read = read_evidence_document(document(Situation(), "tdx", {"quote": QUOTE}))
    read = replace(read, collateral=collateral.beside("tdx", None))
    made: dict[str, Check] = {}
    try:
        for check in tdx.verify_tdx(read, bytes(64), (), Policy(), QUOTED_AT):
            made[check.name] = check
    except UnverifiableError as error:
        made[error.name] = Check(error.name, False, error.words)
    return made


BAD = {
    "nothing": b"",
    "text": b"hello",
    "another document": b'{"version": 2}',
    "a list": b"[]",
    "parts that are no objects": b'{"version": 1, "sev-snp": []}',
    "parts that nobody knows": b'{"version": 1, "sev-snp": {"vcek ": ""}}',
    "no base64": b'{"version": 1, "sev-snp": {"vcek": "?"}}',
    "a broken certificate": b"-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n",
    "somebody else's": (SAMPLES / "intel-sgx-root-ca.der").read_bytes(),
    "much nesting": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_other_files_are_wrong_usage(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UsageError, match="holds no collateral"):
        read_collateral([tmp_path / "file"])


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    arguments = [
        "verify",
        "https://127.0.0.1:1",
        "--measurements",
        "x",
        "--collateral",
        str(tmp_path / "none"),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "cannot read" in done.output


def test_the_written_form_is_read_back() -> None:
    one = Collateral({"VCEK": SnpMachine().certificate, "CRL": authority().crl()}, TDX)
    assert parse_collateral(one.text().encode()) == one


def test_amds_real_certificates_are_read() -> None:
    chain = (SAMPLES / "snp-ask-ark-milan.pem").read_bytes()
    assert parse_collateral(chain) == Collateral()  # hal goes by its own copies of these
    vcek = (SAMPLES / "snp-vcek-milan.der").read_bytes()
    assert parse_collateral(vcek).snp == {"VCEK": vcek}


# --- AMD's service -------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_amd_is_asked_for_the_chip_at_its_tcb(machine: SnpMachine) -> None:
    with serving(Amd(machine=machine)) as service:
        report = parse_snp_report(with_model(machine))
        found = KeyServer(service.url, 10).collateral(report)
    assert set(found.snp) == {"VCEK", "CRL"}
    tries = [path for path in service.asked if "/crl" not in path]
    assert len(tries) == 1  # version 2 names no processor, and Milan is asked first
    assert judged(bare(machine)(Situation()), machine, found).verified


def test_a_report_that_names_no_processor_is_asked_for_line_by_line() -> None:
    machine = MACHINES["Genoa"].but(version=2)
    with serving(Amd(machine=machine)) as service:
        found = KeyServer(service.url, 10).collateral(parse_snp_report(with_model(machine)))
    assert set(found.snp) == {"VCEK", "CRL"}
    assert [path.split("/")[3] for path in service.asked] == ["Milan", "Genoa", "Genoa"]


def test_the_question_about_the_real_report_is_as_amd_specifies() -> None:
    report = parse_snp_report((SAMPLES / "snp-report-milan.bin").read_bytes())
    path, _, levels = vcek_path(report, "Milan").partition("?")
    assert levels == "blSPL=02&teeSPL=00&snpSPL=05&ucodeSPL=68"
    certificate = amd.load_der((SAMPLES / "snp-vcek-milan.der").read_bytes())
    chip = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.4")).value
    assert path == f"/vcek/v1/Milan/{chip.value.hex()}"  # type: ignore[attr-defined]


def test_for_a_vlek_its_issuer_is_fetched() -> None:
    machine = SnpMachine(kind="VLEK", chip="cloud", version=3)
    with serving(Amd(machine=machine)) as service:
        found = KeyServer(service.url, 10).collateral(parse_snp_report(with_model(machine)))
    assert set(found.snp) == {"ASK", "CRL"}
    served = document(
        Situation(),
        "sev-snp",
        {"report": machine.report(Situation().report_data), "auxiliary": machine.table()},
    )
    assert judged(served, machine, found).verified


def test_a_busy_service_is_asked_again() -> None:
    slept: list[float] = []
    busy = (429, {"Retry-After": "10"}, b"slow down")
    with serving(Amd(before=[busy, (503, {}, b"")])) as service:
        server = KeyServer(service.url, 10, slept.append)
        assert server.collateral(parse_snp_report(with_model(SnpMachine()))).snp["VCEK"]
        assert slept == [10.0, 4.0]
        service.before = [busy] * 4
        with pytest.raises(HalError, match="answered 429, 4 times"):
            server.collateral(parse_snp_report(with_model(SnpMachine())))


MISDEEDS = {
    "nothing of this chip": ([NOTHING] * 3, "has no certificate of this chip"),
    "an error": ([(500, {}, b"")], "answered 500"),
    "no certificate": ([(200, {}, b"<html>")], "what is no certificate"),
    "somebody else's certificate": (
        [(200, {}, (SAMPLES / "intel-sgx-root-ca.der").read_bytes())],
        "what is no certificate",
    ),
    "far too much": ([(200, {}, bytes(vendors.MOST_BYTES + 1))], "more than 1 MiB"),
}


@pytest.mark.parametrize(("answers", "words"), MISDEEDS.values(), ids=MISDEEDS)
def test_what_a_service_does_wrong_is_said(answers: list[Any], words: str) -> None:
    with serving(Amd(before=list(answers))) as service, pytest.raises(HalError, match=words):
        KeyServer(service.url, 10).collateral(parse_snp_report(with_model(SnpMachine())))


def test_nobody_there_is_said() -> None:
    with pytest.raises(HalError, match=r"127\.0\.0\.1:1/vcek"):
        KeyServer("http://127.0.0.1:1", 2).collateral(parse_snp_report(with_model(SnpMachine())))


def test_a_hidden_chip_is_not_asked_for() -> None:
    hidden = parse_snp_report(with_model(SnpMachine(chip_id=bytes(64))))
    with pytest.raises(HalError, match="MASK_CHIP_ID"):
        KeyServer("http://127.0.0.1:1", 2).collateral(hidden)


# --- Intel's service -----------------------------------------------------------------------------


def tdx_document() -> EvidenceDocument:
    return read_evidence_document(document(Situation(), "tdx", {"quote": QUOTE}))


def test_intel_is_asked_through_dcap_qvl() -> None:
    with serving(Intel(collateral=TDX)) as service:
        found = fetch_collateral(tdx_document(), intel=service.url)
    assert found.tdx is not None
    assert {name: found.tdx[name] for name in TDX} == TDX
    assert tdx_checks(found)["quote"].ok
    assert any(path.startswith("/tdx/certification/v4/tcb?fmspc=") for path in service.asked)


def test_what_intels_service_does_wrong_is_said() -> None:
    with serving(Intel(before=[(500, {}, b"")] * 9)) as service, pytest.raises(HalError, match="gave no"):
        fetch_collateral(tdx_document(), intel=service.url)
    with pytest.raises(HalError, match="gave no collateral"):
        fetch_collateral(tdx_document(), intel="http://127.0.0.1:1")


def test_a_tpm_needs_none() -> None:
    plain = EvidenceDocument("tpm", b"", b"", b"", b"", b"", False, {}, None)
    with pytest.raises(HalError, match="needs no collateral"):
        fetch_collateral(plain)


# --- the commands --------------------------------------------------------------------------------


class _Then(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return NOW


def test_fetched_once_and_verified_without_the_vendor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "datetime", _Then)
    machine = SnpMachine()
    file, known = tmp_path / "collateral.json", tmp_path / "measurements.json"
    known.write_text(measurements(machine.platforms).text())
    tcb = str(TCB)
    with appliance(bare(machine), tls_key("gateway")) as running:
        arguments = ["verify", running.url, "--measurements", str(known), "--minimum-tcb", tcb]
        assert CliRunner().invoke(main, arguments).exit_code == 1
        with serving(Amd(machine=machine)) as service:
            fetched = ["collateral", running.url, "--amd", service.url, "--write", str(file)]
            done = CliRunner().invoke(main, fetched)
            assert done.exit_code == 0, done.output
            asked = len(service.asked)
            told = json.loads(CliRunner().invoke(main, fetched[:4]).output)
            assert set(told["sev-snp"]) == set(json.loads(file.read_text())["sev-snp"]) == {"vcek", "crl"}
        assert asked == 2
        done = CliRunner().invoke(main, [*arguments, "--collateral", str(file)])
        assert done.exit_code == 0, done.output


def test_nothing_is_fetched_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a vendor was asked")

    monkeypatch.setattr(vendors, "fetch_collateral", asked)
    monkeypatch.setattr(KeyServer, "collateral", asked)
    machine = SnpMachine()
    known = tmp_path / "measurements.json"
    known.write_text(measurements(machine.platforms).text())
    with appliance(bare(machine), tls_key("gateway")) as running:
        verdict = verifying.verify(running.url, known, Policy(minimum_tcb=TCB))
    assert [check.name for check in verdict.failures] == ["certificate chain"]
