"""Event logs of firmware: TCG's for a TPM, and the same form for TDX (CCEL), read and replayed.

A log is not signed. What it is worth shows when the registers that its events give are those that a quote
signs; of an event only its digest takes part. See TCG's "PC Client Platform Firmware Profile", section 10,
and for CCEL the UEFI specification's chapter on confidential computing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hal.attest.binary import Reader
from hal.attest.checks import MalformedError

EV_NO_ACTION = 3
"""Such events say something and extend nothing."""

HASHES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
"""TPM_ALG_ID of the hash algorithms that logs and quotes use."""

MOST_EVENTS = 10_000
MOST_DIGESTS = 8

_STARTUP_LOCALITY = b"StartupLocality\0"
_PADDING = (0xFFFFFFFF, 0xFFFFFFFF)
"""What the unused end of a CCEL table reads as."""


@dataclass(frozen=True)
class Event:
    """An entry: which register it is for (a PCR, or one of TDX), its digests by algorithm, its data."""

    register: int
    kind: int
    digests: Mapping[str, bytes]
    data: bytes


def parse_event_log(log: bytes, *, padded: bool = False) -> tuple[Event, ...]:
    """The events of a log in the crypto-agile form. `padded`: the table has an unused end, as CCEL has.

    Raises:
        MalformedError: it is not of that form.
    """
    reader = Reader(log, "event log", "little")
    sizes = _algorithms(reader)
    events: list[Event] = []
    while reader.left:
        if padded and (reader.left < 8 or struct.unpack_from("<II", log, reader.offset) == _PADDING):
            break
        if len(events) == MOST_EVENTS:
            raise MalformedError(f"the event log has more than {MOST_EVENTS} events")
        register, kind = reader.integer(4), reader.integer(4)
        count = reader.integer(4)
        if count > MOST_DIGESTS:
            raise MalformedError(f"event {len(events) + 1} of the event log has {count} digests")
        digests: dict[str, bytes] = {}
        for _ in range(count):
            algorithm = reader.integer(2)
            if algorithm not in sizes:
                raise MalformedError(
                    f"event {len(events) + 1} of the event log has a digest of algorithm {algorithm:#06x}, "
                    "which its head does not name"
                )
            digest = reader.take(sizes[algorithm])
            if (name := HASHES.get(algorithm)) is not None:
                digests[name] = digest
        events.append(Event(register, kind, digests, reader.sized(4)))
    return tuple(events)


def _algorithms(reader: Reader) -> dict[int, int]:
    """The head of a log, an event of the old form: digest sizes by algorithm."""
    _, kind, _ = reader.integer(4), reader.integer(4), reader.take(20)
    head = Reader(reader.sized(4), "event log's head", "little")
    if kind != EV_NO_ACTION or head.take(16) != b"Spec ID Event03\0":
        raise MalformedError("the event log does not begin with a Spec ID Event03")
    head.take(4 + 1 + 1 + 1 + 1)  # platform class, minor and major version, errata, size of UINTN
    count = head.integer(4)
    if not 1 <= count <= MOST_DIGESTS:
        raise MalformedError(f"the event log's head names {count} algorithms")
    sizes = {}
    for _ in range(count):
        algorithm, size = head.integer(2), head.integer(2)
        if size > 64 or (algorithm in HASHES and size != hashlib.new(HASHES[algorithm]).digest_size):
            raise MalformedError(
                f"the event log's head gives algorithm {algorithm:#06x} digests of {size} bytes"
            )
        sizes[algorithm] = size
    head.sized(1)
    head.end()
    return sizes


def replay(
    events: Iterable[Event], algorithm: str, start: Mapping[int, bytes] | None = None
) -> dict[int, bytes]:
    """The registers that the events leave behind, by number; those without an event are not in it.

    `start` are values before the first event, where they are not zeros.

    Raises:
        MalformedError: an event has no digest of this algorithm.
    """
    size = hashlib.new(algorithm).digest_size
    registers: dict[int, bytes] = {}
    before = dict(start or {})
    for number, event in enumerate(events, 1):
        if event.kind == EV_NO_ACTION:
            if event.register == 0 and event.data.startswith(_STARTUP_LOCALITY) and len(event.data) == 17:
                before[0] = event.data[16:].rjust(size, b"\0")
            continue
        if algorithm not in event.digests:
            raise MalformedError(f"event {number} of the event log has no {algorithm} digest")
        value = registers.get(event.register, before.get(event.register, bytes(size)))
        registers[event.register] = hashlib.new(algorithm, value + event.digests[algorithm]).digest()
    return registers


def pcrs(events: Iterable[Event], algorithm: str) -> dict[int, bytes]:
    """All 24 PCRs after the events. Those of a dynamic launch (17 to 22) begin with all bits set."""
    size = hashlib.new(algorithm).digest_size
    begin = {number: (b"\xff" if 17 <= number <= 22 else b"\0") * size for number in range(24)}
    return {**begin, **replay(events, algorithm, begin)}


def rtmrs(events: Iterable[Event]) -> tuple[bytes, bytes, bytes, bytes]:
    """RTMR 0 to 3 after the events of a CCEL: measurement register n of the log is RTMR n-1."""
    found = replay(events, "sha384")
    if unknown := sorted(set(found) - {1, 2, 3, 4}):
        raise MalformedError(f"the event log names measurement register {unknown[0]}; TDX extends 1 to 4")
    zero = bytes(48)
    return (found.get(1, zero), found.get(2, zero), found.get(3, zero), found.get(4, zero))
