"""The partition table as firmware measures it (EV_EFI_GPT_EVENT), before it starts a program from the disk.

Sources: UEFI 2.10, 5.3; TCG PC Client Platform Firmware Profile, 10.2.6 (UEFI_GPT_DATA): the header, the
number of partitions, and the entries that are in use.
"""

from __future__ import annotations

import struct
from pathlib import Path

from hal.errors import HalError

SECTOR = 512
HEADER = 92


def event(disk: Path) -> bytes:
    """The event's data for a disk image.

    Raises:
        HalError: the image has no partition table.
    """
    with disk.open("rb") as file:
        file.seek(SECTOR)
        header = file.read(HEADER)
        if header[:8] != b"EFI PART":
            raise HalError(f"{disk}: no GPT partition table", "build it again: `hal build SPEC`")
        first, count, size = struct.unpack_from("<QII", header, 72)
        file.seek(first * SECTOR)
        table = file.read(count * size)
    entries = [table[place : place + size] for place in range(0, len(table), size)]
    used = [entry for entry in entries if any(entry[:16])]
    return header + struct.pack("<Q", len(used)) + b"".join(used)
