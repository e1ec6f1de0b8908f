"""Small files of the forms that are measured: EFI programs, UKIs, OVMF, partition tables."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence

ALIGNMENT = 512


def efi_program(sections: Mapping[str, bytes], *, checksum: int = 0, signature: bytes = b"") -> bytes:
    """A PE32+ file with these sections, and a certificate table behind them where there is a signature."""
    optional_size, header = 240, 64
    headers = 512 * (1 + (header + 24 + optional_size + 40 * len(sections)) // 512)
    table, content, offset = b"", b"", headers
    for name, data in sections.items():
        padded = data + bytes(-len(data) % ALIGNMENT)
        fields = (name.encode(), len(data), 0x1000 + offset, len(padded), offset, 0, 0, 0, 0, 0x40000040)
        table += struct.pack("<8sIIIIIIHHI", *fields)
        content += padded
        offset += len(padded)
    optional = bytearray(optional_size)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<II", optional, 60, headers, checksum)
    struct.pack_into("<I", optional, 108, 16)
    if signature:
        struct.pack_into("<II", optional, 144, offset, len(signature))
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, optional_size, 0x22)
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", header)
    return (dos + coff + bytes(optional) + table).ljust(headers, b"\0") + content + signature


def kernel(text: bytes = b"a kernel") -> bytes:
    """A kernel with an EFI stub, as far as anybody measures it."""
    return efi_program({".text": text})


def uki(cmdline: bytes = b"ro", linux: bytes | None = None, **more: bytes) -> bytes:
    """A unified kernel image; `more` are further sections by their names without the dot."""
    sections = {".text": b"stub", ".sbat": b"sbat,1\n", ".osrel": b"ID=debian\n", ".cmdline": cmdline}
    sections |= {".uname": b"6.12", ".linux": linux or kernel(), ".initrd": b"an initrd"}
    return efi_program(sections | {f".{name}": data for name, data in more.items()})


def _entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le


def firmware(entries: Sequence[tuple[str, bytes]], content: bytes) -> bytes:
    """A file that ends as OVMF does: content, a table of GUIDs, and 32 bytes of reset vector."""
    table = b"".join(_entry(guid, data) for guid, data in entries)
    footer = struct.pack("<H", len(table) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    end = table + footer + bytes(32)
    return content[: len(content) - len(end)] + end


SNP_SECTIONS = ((0x800000, 0x9000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3), (0x810000, 0x1000, 0x10))
"""As in AmdSev's OVMF: memory, the secrets page, the CPUID page, the page with the kernel's hashes."""


def snp_firmware(sections: Sequence[tuple[int, int, int]] = SNP_SECTIONS, fill: bytes = b"\x90") -> bytes:
    """OVMF for SEV-SNP, 64 KiB: (address, size, type) of its metadata's sections."""
    size, place = 0x10000, 0x8000
    content = bytearray(fill * size)
    header = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sections), 1, len(sections))
    metadata = header + b"".join(struct.pack("<III", *section) for section in sections)
    content[place : place + len(metadata)] = metadata
    entries = [
        ("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", size - place)),
        ("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", 0x810C00, 0x400)),
        ("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", 0x80B004)),
    ]
    return firmware(entries, bytes(content))


def tdx_firmware(sections: Sequence[tuple[int, int, int, int, int, int]], size: int = 0x4000) -> bytes:
    """TDX firmware: (file offset, file size, address, memory size, type, attributes) of its sections."""
    place = size - 0x1000
    content = bytearray(bytes(range(256)) * (size // 256))
    metadata = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<IIQQII", *section) for section in sections)
    content[place : place + len(metadata)] = metadata
    return firmware(
        [("e47a6535-984a-4798-865e-4685a7bf8ec2", struct.pack("<I", size - place))], bytes(content)
    )


def partition_table(used: int) -> bytes:
    """The first sectors of a disk whose GPT has `used` partitions."""
    header = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, 99, 34, 66, b"d" * 16, 2, 128, 128, 0
    )
    entries = b"".join(bytes([number + 1]) * 128 for number in range(used))
    return bytes(512) + header.ljust(512, b"\0") + entries.ljust(128 * 128, b"\0")
