"""Measurement registers: values that can only be extended, never set.

A register starts as zeros; extending it with a digest makes it H(register ‖ digest). Sources: TPM 2.0
Library, part 1, 17.3 (TPM2_PCR_Extend); Intel TDX Module ABI, TDG.MR.RTMR.EXTEND.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

Algorithm = Literal["sha256", "sha384"]

SEPARATOR = bytes(4)
"""What firmware measures before it starts anything that is not its own (TCG PC Client Platform Firmware
Profile, 3.3.4.2: EV_SEPARATOR)."""


def digest(algorithm: Algorithm, data: bytes) -> bytes:
    """The digest of an event's data."""
    return hashlib.new(algorithm, data).digest()


def replayed(algorithm: Algorithm, digests: Iterable[bytes]) -> bytes:
    """What a register holds after it was extended with these digests, in this order."""
    register = bytes(hashlib.new(algorithm).digest_size)
    for value in digests:
        register = digest(algorithm, register + value)
    return register
