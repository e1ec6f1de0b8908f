"""EFI programs (PE32+ files): their sections, and the digest that firmware measures when it loads one.

Sources: Microsoft's PE Format; its "Windows Authenticode Portable Executable Signature Format", which UEFI
(2.10, 32.2.3) and the TCG's firmware profile (EV_EFI_BOOT_SERVICES_APPLICATION) name for the digest.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from hal.errors import HalError
from hal.measure.registers import Algorithm

PE32_PLUS = 0x20B
CHECKSUM = 64
"""Offset of the checksum in the optional header: left out of the digest, as it covers a signature too."""

SECURITY_DIRECTORY = 112 + 4 * 8
"""Offset of the certificate table's entry in a PE32+ optional header, likewise left out."""

SECTION_HEADER = 40


@dataclass(frozen=True)
class Section:
    """A section: its content in the file, and how many bytes of memory it takes."""

    name: str
    memory_size: int
    file_offset: int
    file_size: int


@dataclass(frozen=True)
class Program:
    """An EFI program."""

    data: bytes
    optional_header: int
    headers_size: int
    certificates_size: int
    sections: tuple[Section, ...]

    def content(self, name: str) -> bytes | None:
        """A section as it lies in memory once loaded, or None where there is none of this name."""
        for section in self.sections:
            if section.name == name:
                size = min(section.memory_size, section.file_size)
                inside = self.data[section.file_offset : section.file_offset + size]
                return inside.ljust(section.memory_size, b"\0")
        return None

    def authenticode(self, algorithm: Algorithm) -> bytes:
        """The digest of the program without its checksum and its signatures."""
        checksum = self.optional_header + CHECKSUM
        directory = self.optional_header + SECURITY_DIRECTORY
        state = hashlib.new(algorithm, self.data[:checksum])
        state.update(self.data[checksum + 4 : directory])
        state.update(self.data[directory + 8 : self.headers_size])
        done = self.headers_size
        for section in sorted(self.sections, key=lambda section: section.file_offset):
            state.update(self.data[section.file_offset : section.file_offset + section.file_size])
            done += section.file_size
        state.update(self.data[done : len(self.data) - self.certificates_size])
        return state.digest()


def parse(data: bytes, what: str) -> Program:
    """Read an EFI program; `what` names it in errors.

    Raises:
        HalError: it is no PE32+ file, or it is cut off.
    """
    try:
        return _parse(data)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise HalError(f"{what}: no EFI program: {error}", "build it again: `hal build SPEC`") from None


def _parse(data: bytes) -> Program:
    if data[:2] != b"MZ":
        raise ValueError("it does not begin with MZ")
    (header,) = struct.unpack_from("<I", data, 0x3C)
    if data[header : header + 4] != b"PE\0\0":
        raise ValueError("it has no PE header")
    (count,) = struct.unpack_from("<H", data, header + 6)
    (optional_size,) = struct.unpack_from("<H", data, header + 20)
    optional = header + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    if magic != PE32_PLUS:
        raise ValueError("it is not a 64-bit program")
    (headers_size,) = struct.unpack_from("<I", data, optional + 60)
    (directories,) = struct.unpack_from("<I", data, optional + 108)
    if directories < 5:
        raise ValueError("it has no certificate directory")
    _, certificates = struct.unpack_from("<II", data, optional + SECURITY_DIRECTORY)
    sections = []
    for number in range(count):
        place = optional + optional_size + number * SECTION_HEADER
        name, memory, _, size, offset = struct.unpack_from("<8sIIII", data, place)
        if offset + size > len(data):
            raise ValueError("it is cut off")
        if size:
            sections.append(Section(name.rstrip(b"\0").decode(), memory, offset, size))
    return Program(data, optional, headers_size, certificates, tuple(sections))
