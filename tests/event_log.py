"""A firmware's event log (TCG PC Client Platform Firmware Profile, 10.2: crypto agile), for tests."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

BANKS = {0x4: ("sha1", 20), 0xB: ("sha256", 32), 0xC: ("sha384", 48), 0xD: ("sha512", 64)}


class Event(NamedTuple):
    """An entry: the register (a TPM's PCR; for TDX's log the RTMR's number and one), digests, data."""

    register: int
    digests: dict[str, bytes]
    data: bytes


def events(log: bytes) -> Iterator[Event]:
    """The events of a log, without the first one, which names the banks."""
    (size,) = struct.unpack_from("<I", log, 28)
    place = 32 + size
    while place + 12 <= len(log):
        register, kind, count = struct.unpack_from("<III", log, place)
        if register == 0xFFFFFFFF or kind == 0:
            return
        place += 12
        digests = {}
        for _ in range(count):
            name, length = BANKS[struct.unpack_from("<H", log, place)[0]]
            digests[name] = log[place + 2 : place + 2 + length]
            place += 2 + length
        (size,) = struct.unpack_from("<I", log, place)
        yield Event(register, digests, log[place + 4 : place + 4 + size])
        place += 4 + size
