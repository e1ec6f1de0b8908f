"""The two TPM 2.0 commands that a quote takes, as bytes (TCG's TPM 2.0 Library, parts 2 and 3). Pure.

tpm2-pytss would bring cryptography, cffi and a dozen libraries into the measured root, tpm2-tools curl and
LDAP's library: for two commands whose bytes fit a page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

CREATE_PRIMARY, QUOTE = 0x131, 0x158
SESSIONS = 0x8002
"""TPM_ST_SESSIONS: the command carries an authorisation."""

ENDORSEMENT = 0x4000000B
"""TPM_RH_ENDORSEMENT: keys below it come from a seed that stays as long as the TPM has its owner."""

ALG_SHA256, ALG_NULL = 0x000B, 0x0010
GENERATED, ATTEST_QUOTE = 0xFF544347, 0x8018

AGAIN = (0x922, 0x908, 0x90A)
"""TPM_RC_RETRY, _YIELDED, _TESTING: the same command later."""

HEADER = struct.Struct(">HII")
LARGEST = 4096
"""Bytes of a command or an answer."""

_EMPTY_PASSWORD = struct.pack(">IHBH", 0x40000009, 0, 0, 0)

RESTRICTED_SIGNING = 0x00050072
"""TPMA_OBJECT: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.

A restricted key signs what the TPM made itself: nobody can have it sign a quote that none was.
"""

TEMPLATES = {
    "ECC P-256": struct.pack(
        ">HHIHHHHHHHH", 0x23, ALG_SHA256, RESTRICTED_SIGNING, 0, ALG_NULL, 0x18, ALG_SHA256, 3, ALG_NULL, 0, 0
    ),
    "RSA 2048": struct.pack(
        ">HHIHHHHHIH", 0x01, ALG_SHA256, RESTRICTED_SIGNING, 0, ALG_NULL, 0x14, ALG_SHA256, 2048, 0, 0
    ),
}
"""Attestation keys (TPMT_PUBLIC), the better one first. In one TPM, a template always gives the same key."""


class TpmError(Exception):
    """The TPM did not do what was asked; the message says so in one line."""


class Key(NamedTuple):
    """A key in the TPM: its handle, and its public part (TPMT_PUBLIC)."""

    handle: int
    public: bytes


class Quote(NamedTuple):
    """TPMS_ATTEST and the TPMT_SIGNATURE over it."""

    quote: bytes
    signature: bytes


def sized(data: bytes) -> bytes:
    """A TPM2B: two bytes of length, then the data."""
    return struct.pack(">H", len(data)) + data


def command(code: int, handle: int, parameters: bytes) -> bytes:
    """A command on one handle that is authorised by the empty password."""
    body = struct.pack(">II", handle, len(_EMPTY_PASSWORD)) + _EMPTY_PASSWORD + parameters
    return HEADER.pack(SESSIONS, HEADER.size + len(body), code) + body


def create_primary(template: bytes) -> bytes:
    """TPM2_CreatePrimary in the endorsement hierarchy: a key that lives in the TPM until it is flushed."""
    return command(CREATE_PRIMARY, ENDORSEMENT, sized(bytes(4)) + sized(template) + bytes(2 + 4))


def quote(handle: int, qualifying: bytes, registers: Iterable[int]) -> bytes:
    """TPM2_Quote over PCRs of the SHA-256 bank, by the key's own scheme."""
    selected = sum(1 << number for number in registers).to_bytes(3, "little")
    return command(
        QUOTE,
        handle,
        sized(qualifying) + struct.pack(">HIHB", ALG_NULL, 1, ALG_SHA256, len(selected)) + selected,
    )


def read_status(answer: bytes) -> int:
    """The response code of an answer; 0 means that it was done.

    Raises:
        TpmError: it is no answer.
    """
    if len(answer) < HEADER.size:
        raise TpmError(f"the TPM answered {len(answer)} bytes")
    _, size, status = HEADER.unpack_from(answer)
    if size != len(answer):
        raise TpmError(f"the TPM answered {len(answer)} bytes and says {size}")
    return int(status)


def read_key(answer: bytes) -> Key:
    """The key that TPM2_CreatePrimary made.

    Raises:
        TpmError: the answer is not of that form.
    """
    try:
        handle, _, size = struct.unpack_from(">IIH", answer, HEADER.size)
    except struct.error:
        raise TpmError("the TPM's answer ends too early") from None
    start = HEADER.size + 10
    return Key(handle, _take(answer, start, size))


def read_quote(answer: bytes, qualifying: bytes) -> Quote:
    """What TPM2_Quote gave.

    Raises:
        TpmError: the answer is not of that form, or the quote is over something else.
    """
    try:
        parameters, size = struct.unpack_from(">IH", answer, HEADER.size)
    except struct.error:
        raise TpmError("the TPM's answer ends too early") from None
    start, end = HEADER.size + 6, HEADER.size + 4 + parameters
    found = Quote(_take(answer, start, size), _take(answer, start + size, end - start - size))
    if _extra_data(found.quote) != qualifying:
        raise TpmError("the TPM quoted something else")
    return found


def _extra_data(attest: bytes) -> bytes:
    """`extraData` of a TPMS_ATTEST: behind magic, type and the signer's name."""
    try:
        magic, kind, signer = struct.unpack_from(">IHH", attest)
        (size,) = struct.unpack_from(">H", attest, 8 + signer)
    except struct.error:
        raise TpmError("the TPM's quote ends too early") from None
    if (magic, kind) != (GENERATED, ATTEST_QUOTE):
        raise TpmError("the TPM's answer is no quote")
    return _take(attest, 10 + signer, size)


def _take(data: bytes, start: int, size: int) -> bytes:
    if size < 0 or start + size > len(data):
        raise TpmError("the TPM's answer ends too early")
    return data[start : start + size]
