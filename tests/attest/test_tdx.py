"""TDX quotes: a real one with its collateral, and the event log that explains another one's registers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.attest import tdx
from hal.attest.amd import amd_roots
from hal.attest.checks import Check, MalformedError, UnverifiableError
from hal.attest.document import read_evidence_document
from hal.attest.eventlog import Event, parse_event_log, pcrs, replay, rtmrs
from hal.attest.policy import Policy
from tests.attest.machines import SAMPLES, Situation, document, flipped, measurements
from tests.attest.tpm_machine import event_log

QUOTE = (SAMPLES / "tdx-quote-v4.bin").read_bytes()
COLLATERAL = json.loads((SAMPLES / "tdx-quote-v4-collateral.json").read_text())
QUOTED_AT = datetime(2025, 6, 19, 11, 16, 3, tzinfo=UTC)

CCEL = gzip.decompress((SAMPLES / "tdx-ccel-eventlog.bin.gz").read_bytes())
CCEL_QUOTE = (SAMPLES / "tdx-ccel-quote.bin").read_bytes()
CCEL_NONCE = (SAMPLES / "tdx-ccel-nonce.bin").read_bytes()


def shapes(**changed: str) -> dict[str, Any]:
    """Measurements of another guest and of the sample's, but for the registers `changed`."""
    registers = {name: value.hex() for name, value in tdx.registers(tdx.parse_tdx_quote(QUOTE)).items()}
    shape = {
        "boot": "direct",
        "vcpus": 4,
        "memory": 4 << 30,
        "behaviour": "edk2-stable202502",
        "firmware_sha256": "ab" * 32,
    }
    return {
        "tdx": [
            {**shape, **registers, "vcpus": 1, "mrtd": "11" * 48, "rtmr0": "11" * 48},
            {**shape, **registers, **changed},
        ]
    }


def checks(
    quote: bytes = QUOTE,
    *,
    collateral: Any = COLLATERAL,
    now: datetime = QUOTED_AT,
    policy: Policy | None = None,
    changed: dict[str, str] | None = None,
    log: bytes | None = None,
) -> dict[str, Check]:
    """The checks of the real quote, unless something is changed."""
    read = read_evidence_document(document(Situation(), "tdx", {"quote": quote}, collateral))
    if log is not None:
        read = replace(read, evidence={**read.evidence, "event_log": log})
    carried = tdx.parse_tdx_quote(QUOTE).report_data
    known = measurements(shapes(**(changed or {}))).platforms.tdx

    def made() -> Iterator[Check]:
        try:
            yield from tdx.verify_tdx(read, carried, known, policy or Policy(), now)
        except UnverifiableError as error:
            yield Check(error.name, False, error.words)

    return {check.name: check for check in made()}


def failing(found: dict[str, Check]) -> list[str]:
    return [check.name for check in found.values() if not check.ok]


def test_the_real_quote_verifies_up_to_intels_root() -> None:
    found = checks()
    assert set(found) == set(tdx.CHECKS)
    assert failing(found) == []
    assert found["TCB"].words == "UpToDate"


def test_the_root_that_vouches_is_intels() -> None:
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(COLLATERAL))
    root, now = (SAMPLES / "intel-sgx-root-ca.der").read_bytes(), int(QUOTED_AT.timestamp())
    assert (
        dcap_qvl.verify_with_root_ca(QUOTE, collateral, root, now).to_json()
        == dcap_qvl.verify(QUOTE, collateral, now).to_json()
    )
    with pytest.raises(ValueError, match="Verification failed"):
        dcap_qvl.verify_with_root_ca(QUOTE, collateral, amd_roots()[0].ark.public_bytes(Encoding.DER), now)


def test_todays_clock_refuses_the_samples_collateral() -> None:
    found = checks(now=datetime(2026, 11, 22, tzinfo=UTC))
    assert failing(found) == ["quote"]
    assert "Expired" in found["quote"].words


def test_without_collateral_nothing_is_believed() -> None:
    assert checks(collateral=None)["quote"].words.startswith("the appliance gave none of Intel's collateral")
    assert "cannot be read" in checks(collateral={"tcb_info": "{}"})["quote"].words


@pytest.mark.parametrize("key", ["tcb_info", "qe_identity", "tcb_info_signature", "root_ca_crl", "pck_crl"])
def test_changed_collateral_is_refused(key: str) -> None:
    value = COLLATERAL[key]
    middle = len(value) // 2
    digit = "1" if value[middle] == "0" else "0"
    found = checks(collateral={**COLLATERAL, key: value[:middle] + digit + value[middle + 1 :]})
    assert failing(found) == ["quote"]


def test_a_status_below_up_to_date_is_refused_unless_allowed() -> None:
    found = checks(policy=Policy(tcb_statuses=frozenset({"SWHardeningNeeded"})))
    assert failing(found) == ["TCB"]
    assert found["TCB"].words == "UpToDate; accepted: SWHardeningNeeded"


DEBUG_BIT = 8 * (48 + 120)
"""TD attributes lie 120 bytes into the report, which lies behind a header of 48."""


def test_a_debug_guest_is_refused_always() -> None:
    for policy in (Policy(), Policy(allow_debug=True)):
        found = checks(flipped(QUOTE, DEBUG_BIT), policy=policy)
        assert failing(found) == ["guest policy"]
        assert "read its memory" in found["guest policy"].words


@pytest.mark.parametrize("register", tdx.NAMES)
def test_another_register_is_named_with_its_meaning(register: str) -> None:
    found = checks(changed={register: "22" * 48})
    assert failing(found) == ["measurement"]
    assert f"nearest is direct boot, 4 vCPUs, 4096 MiB, firmware abababababab…, but {register.upper()} " in (
        found["measurement"].words
    )
    assert tdx.MEANING[register] in found["measurement"].words


def refused(quote: bytes) -> bool:
    return bool(failing(checks(quote)))


@given(st.integers(0, 8 * tdx.QUOTED - 1))
def test_a_changed_bit_of_what_is_quoted_is_refused(bit: int) -> None:
    assert refused(flipped(QUOTE, bit)), bit


@pytest.mark.slow
def test_every_changed_bit_of_what_is_quoted_is_refused() -> None:
    assert [bit for bit in range(8 * tdx.QUOTED) if not refused(flipped(QUOTE, bit))] == []


@given(st.integers(8 * tdx.QUOTED, 8 * len(QUOTE) - 1))
@settings(max_examples=300)
def test_a_changed_bit_behind_it_is_refused_or_changes_nothing(bit: int) -> None:
    """Behind the signature lie line ends of certificates and their like: nobody signs or reads them."""
    now = int(QUOTED_AT.timestamp())
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(COLLATERAL))
    try:
        found = dcap_qvl.verify(flipped(QUOTE, bit), collateral, now)
    except ValueError:
        return
    assert found.to_json() == dcap_qvl.verify(QUOTE, collateral, now).to_json()


@given(st.binary(max_size=700))
def test_no_quote_makes_the_reader_stumble(data: bytes) -> None:
    with pytest.raises(UnverifiableError, match=r"cannot be read|SGX"):
        tdx.parse_tdx_quote(data)


# --- the event log ------------------------------------------------------------------------------


def test_the_real_event_log_gives_the_registers_of_the_real_quote() -> None:
    events = parse_event_log(CCEL, padded=True)
    report = tdx.parse_tdx_quote(CCEL_QUOTE)
    assert len(events) == 43
    assert rtmrs(events) == (report.rt_mr0, report.rt_mr1, report.rt_mr2, bytes(48))
    assert report.rt_mr3 == bytes(48)
    assert report.report_data == CCEL_NONCE


@given(st.data())
def test_a_changed_digest_of_the_event_log_changes_a_register(data: st.DataObject) -> None:
    events = list(parse_event_log(CCEL, padded=True))
    counted = [index for index, event in enumerate(events) if event.kind != 3]
    index = data.draw(st.sampled_from(counted))
    bit = data.draw(st.integers(0, 48 * 8 - 1))
    event = events[index]
    events[index] = Event(
        event.register, event.kind, {"sha384": flipped(event.digests["sha384"], bit)}, event.data
    )
    assert rtmrs(events) != rtmrs(parse_event_log(CCEL, padded=True))


def test_a_log_that_comes_along_must_explain_the_quote() -> None:
    found = checks(log=CCEL)  # of another guest
    assert failing(found) == ["event log"]
    assert "RTMR 0" in found["event log"].words
    assert failing(checks(log=b"nothing")) == ["event log"]


def test_an_events_data_is_not_what_counts() -> None:
    events = parse_event_log(CCEL, padded=True)
    assert rtmrs([replace(event, data=b"") for event in events if event.kind != 3]) == rtmrs(events)


@given(st.binary(max_size=300))
def test_no_log_makes_the_reader_stumble(data: bytes) -> None:
    for log in (data, event_log() + data, event_log()[:65] + data):
        try:
            parse_event_log(log)
        except MalformedError as error:
            assert "event log" in str(error)


def test_a_truncated_log_is_told() -> None:
    with pytest.raises(MalformedError, match="ends too early"):
        parse_event_log(event_log()[:-1])


def test_the_banks_are_told_apart() -> None:
    log = event_log([(4, b"loader")], [(0x04, "sha1"), (0x0B, "sha256"), (0x0C, "sha384")])
    events = parse_event_log(log)
    assert {name: len(value) for name, value in events[0].digests.items()} == {
        "sha1": 20,
        "sha256": 32,
        "sha384": 48,
    }
    with pytest.raises(MalformedError, match="no sha512 digest"):
        replay(events, "sha512")


def test_registers_begin_where_the_platform_says() -> None:
    locality = Event(0, 3, {}, b"StartupLocality\0\x03")
    first = Event(0, 8, {"sha256": b"\x01" * 32}, b"")
    assert pcrs([locality, first], "sha256")[0] != pcrs([first], "sha256")[0]
    assert pcrs([], "sha256")[17] == b"\xff" * 32
    assert pcrs([], "sha256")[23] == bytes(32)
    with pytest.raises(MalformedError, match="measurement register 5"):
        rtmrs([Event(5, 8, {"sha384": bytes(48)}, b"")])
