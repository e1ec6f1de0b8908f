"""TDX firmware (TDVF): its metadata, and the MRTD of a guest that is built from it.

MRTD is what the TDX module measures while the host builds the guest: each page that is added, and each 256
bytes of content that the metadata asks to be measured. It depends on the firmware file alone, given that the
host adds pages as KVM does since Linux 6.16: a page, then its content. Sources: Intel TDX Virtual Firmware
Design Guide (344991), chapter 11; Intel TDX Module ABI, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass

from hal.errors import HalError

PAGE = 4096
CHUNK = 256
RECORD = 128
"""Bytes that a page or a chunk adds to the measurement before its content: a name, and an address at 16."""

MEASURE_CONTENT = 1
ADDED_LATER = 2
"""Attributes of a section: MR.EXTEND its content; PAGE.AUG, memory that the guest accepts itself."""

FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
METADATA_OFFSET = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
AFTER_FOOTER = 32
"""Bytes of the reset vector behind OVMF's table of GUIDs (OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm)."""

ENTRY = 18
"""A table entry's length and GUID, which stand behind its data."""

MENDING = "take OVMF's IntelTdx build (OvmfPkg/IntelTdx), or another firmware with TDX metadata"


@dataclass(frozen=True)
class Section:
    """A part of the firmware and where it lies in the guest's memory."""

    file_offset: int
    file_size: int
    address: int
    memory_size: int
    attributes: int


def mrtd(firmware: bytes, what: str) -> str:
    """The MRTD of a guest with this firmware, in hex; `what` names the firmware in errors.

    Raises:
        HalError: it is no TDX firmware, or its metadata contradicts itself.
    """
    try:
        found = sections(firmware)
    except (struct.error, ValueError) as error:
        raise HalError(f"{what}: no TDX firmware: {error}", MENDING) from None
    state = hashlib.sha384()
    for section in found:
        for page in range(0, section.memory_size, PAGE):
            if not section.attributes & ADDED_LATER:
                state.update(_record(b"MEM.PAGE.ADD", section.address + page))
            if section.attributes & MEASURE_CONTENT:
                for offset in range(page, page + PAGE, CHUNK):
                    state.update(_record(b"MR.EXTEND", section.address + offset))
                    begin = section.file_offset + offset
                    state.update(firmware[begin : begin + CHUNK])
    return state.hexdigest()


def sections(firmware: bytes) -> tuple[Section, ...]:
    """The sections that the metadata describes.

    Raises:
        ValueError, struct.error: there is no metadata, or it is wrong.
    """
    (from_end,) = struct.unpack("<I", _table(firmware).get(METADATA_OFFSET, b"")[-4:].rjust(4, b"\0"))
    start = len(firmware) - from_end
    if not from_end or start < 0:
        raise ValueError("it has no TDX metadata")
    signature, _, version, count = struct.unpack_from("<4sIII", firmware, start)
    if signature != b"TDVF" or version != 1:
        raise ValueError("its TDX metadata is of another version than 1")
    found = []
    for number in range(count):
        fields = struct.unpack_from("<IIQQII", firmware, start + 16 + 32 * number)
        offset, file_size, address, memory_size, _, attributes = fields
        section = Section(offset, file_size, address, memory_size, attributes)
        if address % PAGE or memory_size % PAGE or file_size > memory_size:
            raise ValueError(f"section {number} of its TDX metadata is not aligned")
        if attributes & MEASURE_CONTENT and (
            file_size != memory_size or offset + file_size > len(firmware) or attributes & ADDED_LATER
        ):
            raise ValueError(f"section {number} of its TDX metadata asks to measure what is not in the file")
        found.append(section)
    return tuple(found)


def _record(name: bytes, address: int) -> bytes:
    return (name.ljust(16, b"\0") + struct.pack("<Q", address)).ljust(RECORD, b"\0")


def _table(firmware: bytes) -> dict[uuid.UUID, bytes]:
    """OVMF's table of GUIDs at the end of the firmware, read backwards from its footer."""
    end = len(firmware) - AFTER_FOOTER
    if end < ENTRY or firmware[end - 16 : end] != FOOTER.bytes_le:
        raise ValueError("it does not end as OVMF does")
    (size,) = struct.unpack_from("<H", firmware, end - ENTRY)
    begin, end = max(end - size, 0), end - ENTRY
    found = {}
    while end - ENTRY >= begin:
        (size,) = struct.unpack_from("<H", firmware, end - ENTRY)
        if size < ENTRY or end - size < begin:
            raise ValueError("its table of GUIDs is damaged")
        found[uuid.UUID(bytes_le=firmware[end - 16 : end])] = firmware[end - size : end - ENTRY]
        end -= size
    return found
