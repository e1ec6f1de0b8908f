"""Verifying a TDX quote: through dcap-qvl, which holds Intel's root, then against the measured registers.

dcap-qvl checks the chain, revocation lists, dates, signatures, the quoting enclave and the TCB; it refuses
guests whose debug attribute is set, and those that may be migrated. It is used here only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Protocol, cast

from hal.attest.checks import Check, MalformedError, UnverifiableError, equal, short
from hal.attest.document import EvidenceDocument
from hal.attest.eventlog import parse_event_log, rtmrs
from hal.attest.policy import Policy
from hal.measure.document import TdxRegisters

EVIDENCE, QUOTE, TCB = "evidence", "quote", "TCB"
REPORT_DATA, GUEST_POLICY, EVENT_LOG, MEASUREMENT = "report data", "guest policy", "event log", "measurement"
CHECKS = (EVIDENCE, QUOTE, TCB, REPORT_DATA, GUEST_POLICY, MEASUREMENT)

QUOTED = 632
"""Header and TD report of a quote of version 4: what its signature covers."""

DEBUG = 1
"""TD attributes, bit 0: the host may read the guest's memory."""

NAMES = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")

MEANING = {
    "mrtd": "another firmware, or another number of virtual CPUs",
    "rtmr0": "another machine: firmware's configuration, memory, devices, boot variables",
    "rtmr1": "another kernel or boot loader",
    "rtmr2": "another command line or initrd",
    "rtmr3": "something in the guest extended it",
}
"""What it means when a register is another one than expected."""


class TdReport(Protocol):
    """dcap-qvl's view of a TD report."""

    td_attributes: bytes
    mr_td: bytes
    rt_mr0: bytes
    rt_mr1: bytes
    rt_mr2: bytes
    rt_mr3: bytes
    report_data: bytes


def verify_tdx(
    document: EvidenceDocument,
    report_data: bytes,
    shapes: tuple[TdxRegisters, ...],
    policy: Policy,
    now: datetime,
) -> Iterator[Check]:
    """The checks of a document from a TDX guest; `report_data` is what the quote must carry.

    Raises:
        UnverifiableError: a check failed on which the rest depends.
    """
    quote = document.evidence["quote"]
    report = parse_tdx_quote(quote)
    yield Check(EVIDENCE, True, "a TDX quote, version 4 or 5")
    # Before the signature: dcap-qvl refuses such a guest too, in words that tell less.
    debug = _guest_policy(report)
    if not debug.ok:
        raise UnverifiableError(GUEST_POLICY, debug.words)
    status, advisories = _verified(quote, document.collateral, now)
    yield Check(QUOTE, True, "signed by a quoting enclave that Intel's root vouches for")
    yield _tcb(status, advisories, policy)
    yield equal(
        REPORT_DATA,
        report.report_data,
        report_data,
        "signs nonce, TLS key and manifest",
        "signs something else",
    )
    yield debug
    if "event_log" in document.evidence:
        yield _event_log(document.evidence["event_log"], report)
    yield _measurement(registers(report), shapes)


def parse_tdx_quote(quote: bytes) -> TdReport:
    """The TD report of a quote; nothing of it is verified.

    Raises:
        UnverifiableError: it is no TDX quote.
    """
    qvl = _qvl()
    try:
        parsed = qvl.Quote.parse(quote)
    except ValueError as error:
        raise UnverifiableError(EVIDENCE, f"the quote cannot be read: {error}") from None
    if not parsed.is_tdx():
        raise UnverifiableError(EVIDENCE, "the quote is of an SGX enclave, not of a TDX guest")
    return cast(TdReport, parsed.report)


def registers(report: TdReport) -> dict[str, bytes]:
    """MRTD and RTMR 0 to 3, by the names that measurements have for them."""
    values = (report.mr_td, report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3)
    return dict(zip(NAMES, values, strict=True))


def _qvl() -> Any:
    import dcap_qvl

    return dcap_qvl


def _verified(quote: bytes, collateral: object, now: datetime) -> tuple[str, list[str]]:
    """The TCB status and Intel's advisories that apply, of a quote that is genuine."""
    if not collateral:
        raise UnverifiableError(
            QUOTE,
            "the appliance gave none of Intel's collateral (TCB info, identities, CRLs); "
            "give --collateral FILE",
        )
    qvl = _qvl()
    try:
        known = qvl.QuoteCollateralV3.from_json(json.dumps(collateral))
    except ValueError as error:
        raise UnverifiableError(QUOTE, f"the collateral cannot be read: {error}") from None
    try:
        found = qvl.verify(quote, known, int(now.timestamp()))
    except ValueError as error:
        raise UnverifiableError(QUOTE, f"dcap-qvl: {' '.join(str(error).split())}") from None
    return found.status, list(found.advisory_ids)


def _tcb(status: str, advisories: list[str], policy: Policy) -> Check:
    words = f"{status}, advisories {', '.join(advisories)}" if advisories else status
    if status in policy.tcb_statuses and status != "Revoked":
        return Check(TCB, True, words)
    return Check(TCB, False, f"{words}; accepted: {', '.join(sorted(policy.tcb_statuses))}")


def _guest_policy(report: TdReport) -> Check:
    if report.td_attributes[0] & DEBUG:
        return Check(
            GUEST_POLICY,
            False,
            "the host may debug the guest, and so read its memory; --allow-debug allows images, not this",
        )
    return Check(GUEST_POLICY, True, "no debugging")


def _event_log(log: bytes, report: TdReport) -> Check:
    try:
        replayed = rtmrs(parse_event_log(log, padded=True))
    except MalformedError as error:
        return Check(EVENT_LOG, False, str(error))
    signed = (report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3)
    for number, (found, wanted) in enumerate(zip(replayed, signed, strict=True)):
        if found != wanted:
            return Check(
                EVENT_LOG,
                False,
                f"gives RTMR {number} {short(found)}, the quote signs {short(wanted)}: it was changed",
            )
    return Check(EVENT_LOG, True, "gives the RTMRs that the quote signs")


def _measurement(found: dict[str, bytes], shapes: tuple[TdxRegisters, ...]) -> Check:
    if not shapes:
        return Check(MEASUREMENT, False, "the measurements hold none for tdx")
    differing = []
    for shape in shapes:
        wrong = [name for name in NAMES if found[name] != bytes.fromhex(getattr(shape, name))]
        if not wrong:
            return Check(MEASUREMENT, True, shape.words)
        differing.append((len(wrong), wrong, shape))
    _, wrong, shape = min(differing, key=lambda one: one[0])
    words = "; ".join(f"{name.upper()} {short(found[name])}: {MEANING[name]}" for name in wrong)
    return Check(MEASUREMENT, False, f"none of {len(shapes)} known; nearest is {shape.words}, but {words}")
