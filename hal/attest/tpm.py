"""Verifying a TPM 2.0 quote: by a pinned key, over PCRs that the log explains and measurements expect.

Nothing here says whose TPM it is: the one who pins the key does. A TPM that the host emulates proves nothing
against that host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hal.attest.checks import Check, MalformedError, UnverifiableError, equal, short
from hal.attest.document import EvidenceDocument
from hal.attest.eventlog import parse_event_log, pcrs
from hal.attest.policy import Policy
from hal.attest.report_data import qualifying_data
from hal.attest.tpm_structures import (
    ALG_ECDSA,
    ALG_RSAPSS,
    DECRYPT,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
    TpmKey,
    TpmQuote,
    TpmSignature,
    parse_tpm_public,
    parse_tpm_quote,
    parse_tpm_signature,
)
from hal.errors import UsageError
from hal.measure.document import TpmPcrs

EVIDENCE, KEY, SIGNATURE = "evidence", "attestation key", "signature"
REPORT_DATA, EVENT_LOG, MEASUREMENT = "report data", "event log", "measurement"
CHECKS = (EVIDENCE, KEY, SIGNATURE, REPORT_DATA, EVENT_LOG, MEASUREMENT)

BANK = "sha256"
"""The bank that measurements are of."""

MEANING = {
    4: "another boot loader or unified kernel image",
    11: "another kernel, initrd or command line in the unified kernel image (and so, another root)",
    12: "a command line, credentials or an extension came from outside the image",
}
"""What it means when a PCR is another one than expected."""

_HASHES = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_NEEDED = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN


def verify_tpm(
    document: EvidenceDocument, report_data: bytes, shapes: tuple[TpmPcrs, ...], policy: Policy
) -> Iterator[Check]:
    """The checks of a document from a machine with a TPM; the quote must carry sha256 of `report_data`.

    Raises:
        UnverifiableError: a check failed on which the rest depends.
    """
    evidence = document.evidence
    try:
        quote = parse_tpm_quote(evidence["quote"])
        signature = parse_tpm_signature(evidence["signature"])
        key = parse_tpm_public(evidence["key"])
    except MalformedError as error:
        raise UnverifiableError(EVIDENCE, str(error)) from None
    yield Check(EVIDENCE, True, "a TPM 2.0 quote")
    yield _pinned(key, policy)
    _check_signature(key, signature, evidence["quote"])
    yield Check(SIGNATURE, True, f"by the attestation key, over {signature.hash}")
    yield equal(
        REPORT_DATA,
        quote.extra_data,
        qualifying_data(report_data),
        "signs nonce, TLS key and manifest",
        "signs something else",
    )
    values = _replayed(evidence["event_log"], quote, signature.hash)
    yield Check(EVENT_LOG, True, "gives the PCRs that the quote signs")
    yield _measurement(values, shapes)


def read_tpm_key(path: Path) -> bytes:
    """The key in a file (PEM, DER, or a TPM's TPMT_PUBLIC or TPM2B_PUBLIC) as SubjectPublicKeyInfo (DER).

    Raises:
        UsageError: the file cannot be read, or holds no such key.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    for load in (serialization.load_pem_public_key, serialization.load_der_public_key):
        try:
            key = load(data)
        except ValueError:
            continue
        return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        return parse_tpm_public(data).spki
    except MalformedError as error:
        raise UsageError(f"{path} holds no public key: neither PEM nor DER, and {error}") from None


def _pinned(key: TpmKey, policy: Policy) -> Check:
    if policy.tpm_key is None:
        raise UnverifiableError(
            KEY, f"key {_name(key.spki)} is not pinned: nothing says whose TPM this is; give --tpm-key FILE"
        )
    if key.spki != policy.tpm_key:
        raise UnverifiableError(
            KEY,
            f"key {_name(key.spki)} is another one than the pinned {_name(policy.tpm_key)}: another machine",
        )
    if key.attributes & _NEEDED != _NEEDED or key.attributes & DECRYPT:
        raise UnverifiableError(
            KEY,
            f"the key (attributes {key.attributes:#010x}) may sign what no TPM made",
        )
    return Check(KEY, True, f"the pinned one, {_name(key.spki)}")


def _name(spki: bytes) -> str:
    return short(hashlib.sha256(spki).digest())


def _check_signature(key: TpmKey, signature: TpmSignature, signed: bytes) -> None:
    algorithm = _HASHES[signature.hash]
    public = key.key
    try:
        if signature.scheme == ALG_ECDSA and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(encode_dss_signature(signature.r, signature.s), signed, ec.ECDSA(algorithm))
        elif signature.scheme != ALG_ECDSA and isinstance(public, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            public.verify(
                signature.signature,
                signed,
                pss if signature.scheme == ALG_RSAPSS else padding.PKCS1v15(),
                algorithm,
            )
        else:
            raise UnverifiableError(SIGNATURE, "the signature's scheme does not fit the attestation key")
    except InvalidSignature:
        raise UnverifiableError(
            SIGNATURE,
            "the quote is not what the attestation key signed: it was changed, or is another machine's",
        ) from None


def _replayed(log: bytes, quote: TpmQuote, algorithm: str) -> dict[int, bytes]:
    """The PCRs that the event log gives and the quote covers, of the bank that measurements are of.

    `algorithm` is the signature's hash, with which a TPM makes the digest of PCRs as well.
    """
    try:
        events = parse_event_log(log)
        values = {bank: pcrs(events, bank) for bank, _ in quote.selection}
    except MalformedError as error:
        raise UnverifiableError(EVENT_LOG, str(error)) from None
    joined = b"".join(values[bank][number] for bank, numbers in quote.selection for number in numbers)
    found = hashlib.new(algorithm, joined).digest()
    if found != quote.pcr_digest:
        raise UnverifiableError(
            EVENT_LOG,
            f"gives PCRs of digest {short(found)}, the quote signs {short(quote.pcr_digest)}: the log was "
            "changed, or something extended a PCR that the log does not tell of",
        )
    covered = {number for bank, numbers in quote.selection if bank == BANK for number in numbers}
    return {number: values[BANK][number] for number in sorted(covered)}


def _measurement(values: dict[int, bytes], shapes: tuple[TpmPcrs, ...]) -> Check:
    if not shapes:
        return Check(MEASUREMENT, False, "the measurements hold none for tpm")
    differing = []
    for shape in shapes:
        wanted = shape.values
        if missing := sorted(set(wanted) - set(values)):
            return Check(
                MEASUREMENT,
                False,
                f"the quote does not cover PCR {', '.join(map(str, missing))} of the {BANK} bank",
            )
        wrong = [number for number, value in wanted.items() if values[number] != value]
        if not wrong:
            return Check(MEASUREMENT, True, f"PCR {', '.join(map(str, wanted))} as measured")
        differing.append(wrong)
    nearest = min(differing, key=len)
    words = "; ".join(
        f"PCR {number} is {short(values[number])}: {MEANING.get(number, 'another firmware or configuration')}"
        for number in nearest
    )
    return Check(MEASUREMENT, False, words)
