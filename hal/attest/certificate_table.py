"""The table of certificates that a host hands over with an SNP report (configfs-tsm's `auxblob`).

See "Guest Hypervisor Communication Block Standardization", SNP Extended Guest Request: entries of a GUID, an
offset and a length, little-endian, ended by one of zeros. The host is not trusted: what is in it is only
material.
"""

from __future__ import annotations

import uuid

from hal.attest.binary import Reader
from hal.attest.checks import MalformedError

NAMES = {
    uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
    uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea"): "CRL",
}
"""The GUIDs that mean something here; an ASVK comes under ASK's."""

MOST_ENTRIES = 64


def parse_certificate_table(data: bytes) -> dict[str, bytes]:
    """The entries that are known, by name, in DER.

    Raises:
        MalformedError: an entry points outside the table, or the table does not end.
    """
    reader = Reader(data, "certificate table", "little")
    found: dict[str, bytes] = {}
    for _ in range(MOST_ENTRIES):
        guid = uuid.UUID(bytes_le=reader.take(16))
        offset, size = reader.integer(4), reader.integer(4)
        if guid.int == 0 and offset == 0 and size == 0:
            return found
        if offset + size > len(data):
            raise MalformedError("an entry of the certificate table points outside it")
        if guid in NAMES:
            found[NAMES[guid]] = data[offset : offset + size]
    raise MalformedError(f"the certificate table has more than {MOST_ENTRIES} entries")
