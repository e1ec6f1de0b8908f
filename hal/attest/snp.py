"""Verifying a SEV-SNP report: AMD's key signed it, at an accepted TCB, for a guest that was measured."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hal.attest.amd import CHAIN, Endorsement, Roots, amd_roots, verify_chain
from hal.attest.certificate_table import NAMES, parse_certificate_table
from hal.attest.checks import Check, MalformedError, UnverifiableError, equal, short
from hal.attest.document import EvidenceDocument
from hal.attest.policy import Policy
from hal.attest.snp_report import SIGNED_BY, SnpReport, parse_snp_report, tcb_of
from hal.measure.document import SnpLaunch

EVIDENCE, SIGNATURE, TCB = "evidence", "signature", "TCB"
REPORT_DATA, GUEST_POLICY, MEASUREMENT = "report data", "guest policy", "measurement"
CHECKS = (EVIDENCE, CHAIN, SIGNATURE, TCB, REPORT_DATA, GUEST_POLICY, MEASUREMENT)


def verify_snp(
    document: EvidenceDocument,
    report_data: bytes,
    shapes: tuple[SnpLaunch, ...],
    policy: Policy,
    now: datetime,
    roots: tuple[Roots, ...] | None = None,
) -> Iterator[Check]:
    """The checks of a document from a SEV-SNP guest; `report_data` is what the report must carry.

    `roots`: AMD's, unless a test has its own.

    Raises:
        UnverifiableError: a check failed on which the rest depends.
    """
    try:
        report = parse_snp_report(document.evidence["report"])
    except MalformedError as error:
        raise UnverifiableError(EVIDENCE, str(error)) from None
    yield Check(EVIDENCE, True, f"an SNP report, version {report.version}")
    endorsement = _endorsement(document, report, now, amd_roots() if roots is None else roots)
    chip = f", chip {short(endorsement.chip_id)}" if endorsement.chip_id else ""
    yield Check(CHAIN, True, f"{endorsement.kind} of AMD's {endorsement.line}{chip}")
    _check_signature(report, endorsement)
    yield Check(SIGNATURE, True, f"ECDSA P-384 by the {endorsement.kind}")
    yield _tcb(report, endorsement, policy)
    yield equal(
        REPORT_DATA,
        report.report_data,
        report_data,
        "signs nonce, TLS key and manifest",
        "signs something else",
    )
    yield _guest_policy(report, policy)
    yield _measurement(report, shapes)


def _endorsement(
    document: EvidenceDocument, report: SnpReport, now: datetime, roots: tuple[Roots, ...]
) -> Endorsement:
    kind = SIGNED_BY.get(report.signing_key)
    if kind is None:
        raise UnverifiableError(
            CHAIN, f"the report says that no known key signed it (SIGNING_KEY {report.signing_key})"
        )
    given = _certificates(document)
    if kind not in given:
        raise UnverifiableError(
            CHAIN, f"neither the host nor the appliance gave the {kind}'s certificate; give --collateral FILE"
        )
    endorsement = verify_chain(
        given[kind], [given[name] for name in ("ASK",) if name in given], given.get("CRL"), now, roots
    )
    if endorsement.kind != kind:
        raise UnverifiableError(
            CHAIN, f"a {kind} signed the report, the certificate is of a {endorsement.kind}"
        )
    if endorsement.chip_id is not None and not _same_chip(endorsement.chip_id, report.chip_id):
        raise UnverifiableError(
            CHAIN,
            f"the report is of chip {short(report.chip_id)}, the certificate of {short(endorsement.chip_id)}",
        )
    return endorsement


def _same_chip(certified: bytes, reported: bytes) -> bool:
    """Turin's identifiers have 8 bytes, and zeros behind them in the report."""
    return len(certified) in (8, 64) and certified.ljust(64, b"\0") == reported and any(certified)


def _certificates(document: EvidenceDocument) -> dict[str, bytes]:
    """What the host's table and the appliance's collateral hold, by name (VCEK, ASK, CRL, …)."""
    found: dict[str, bytes] = {}
    if auxiliary := document.evidence.get("auxiliary"):
        try:
            found = parse_certificate_table(auxiliary)
        except MalformedError as error:
            raise UnverifiableError(CHAIN, str(error)) from None
    for name in NAMES.values():
        if (value := (document.collateral or {}).get(name.lower())) is not None:
            try:
                found[name] = base64.b64decode(value, validate=True)
            except (TypeError, ValueError):
                raise UnverifiableError(CHAIN, f"the collateral's {name} is not in base64") from None
    return found


def _check_signature(report: SnpReport, endorsement: Endorsement) -> None:
    try:
        endorsement.key.verify(
            encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(hashes.SHA384())
        )
    except InvalidSignature:
        raise UnverifiableError(
            SIGNATURE,
            f"the report is not what the {endorsement.kind} signed: it was changed, or is another machine's",
        ) from None


def _tcb(report: SnpReport, endorsement: Endorsement, policy: Policy) -> Check:
    current, reported, committed, launched = (
        tcb_of(value, endorsement.line)
        for value in (report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb)
    )
    if reported != endorsement.tcb:
        return Check(TCB, False, f"the report says {reported}, the certificate is for {endorsement.tcb}")
    if below := current.lower(reported):
        return Check(TCB, False, f"the current TCB is below the reported one: {', '.join(below)}")
    if below := current.lower(committed):
        return Check(TCB, False, f"the current TCB is below the committed one: {', '.join(below)}")
    if policy.minimum_tcb is None:
        return Check(TCB, False, f"{reported}; nothing says whether that is enough: give --minimum-tcb")
    for name, tcb in (("reported", reported), ("launch", launched)):
        if below := tcb.lower(policy.minimum_tcb):
            return Check(TCB, False, f"the {name} TCB is too old: {', '.join(below)}")
    return Check(TCB, True, f"{reported}, at least {policy.minimum_tcb}")


def _guest_policy(report: SnpReport, policy: Policy) -> Check:
    if report.vmpl != 0:
        return Check(
            GUEST_POLICY, False, f"asked for at VMPL {report.vmpl}: only VMPL 0 is the appliance's kernel"
        )
    if report.migration_agent:
        return Check(GUEST_POLICY, False, "a migration agent may carry the guest's memory elsewhere")
    if report.debug and not policy.allow_debug:
        return Check(GUEST_POLICY, False, "the host may debug the guest, and so read its memory")
    return Check(
        GUEST_POLICY, True, "VMPL 0, " + ("DEBUG ALLOWED BY YOU" if report.debug else "no debugging")
    )


def _measurement(report: SnpReport, shapes: tuple[SnpLaunch, ...]) -> Check:
    if not shapes:
        return Check(MEASUREMENT, False, "the measurements hold none for sev-snp")
    for shape in shapes:
        if bytes.fromhex(shape.launch_digest) == report.measurement:
            return Check(MEASUREMENT, True, f"launch digest of {shape.words}")
    return Check(
        MEASUREMENT,
        False,
        f"launch digest {short(report.measurement)} is none of {len(shapes)} known: another firmware, "
        "kernel, initrd, command line, number or type of virtual CPUs",
    )
