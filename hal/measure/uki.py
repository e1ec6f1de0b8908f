"""A unified kernel image as systemd-stub measures it: each section's name, then its content.

Source: systemd-stub(7), "TPM PCR Notes"; the order is that of systemd 257's `unified_sections`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hal.errors import HalError
from hal.measure.pe import Program
from hal.measure.registers import Algorithm, digest

MEASURED = (
    ".linux",
    ".osrel",
    ".cmdline",
    ".initrd",
    ".ucode",
    ".splash",
    ".dtb",
    ".uname",
    ".sbat",
    ".pcrpkey",
)
CHOSEN_AT_BOOT = (".profile", ".dtbauto", ".hwids", ".efifw")
"""With these the stub chooses among sections by what the host shows it, so that no one value can be told."""


HANDED_ON = (".ucode", ".pcrsig", ".pcrpkey")
"""Sections that the stub hands to the kernel as initrds, besides `.initrd` and `.osrel`."""

DIRECTORY_MODE = 0o40555
FILE_MODE = 0o100444
TRAILER = b"070701" + b"0" * 32 + b"00000001" + b"0" * 48 + b"0000000B" + b"0" * 8 + b"TRAILER!!!" + bytes(4)
"""How the stub ends an archive: with a capital B, and four zero bytes."""


def section_digests(uki: Program, algorithm: Algorithm) -> Iterator[bytes]:
    """What the stub extends, in its order.

    Raises:
        HalError: the image has sections that the stub chooses among at boot.
    """
    chosen = [section.name for section in uki.sections if section.name in CHOSEN_AT_BOOT]
    if chosen:
        raise HalError(f"the UKI has sections that are chosen at boot ({', '.join(chosen)}): not computed")
    for name in MEASURED:
        content = uki.content(name)
        if content is not None:
            yield digest(algorithm, name.encode() + b"\0")
            yield digest(algorithm, content)


def initrd_handed_on(uki: Program) -> bytes:
    """The initrd as the stub hands it to the kernel, which measures it: with the os-release file behind it.

    Source: systemd 257's src/boot/stub.c (generate_embedded_initrds, combine_initrds) and cpio.c.

    Raises:
        HalError: the image has other parts that the stub would put beside it.
    """
    beside = [section.name for section in uki.sections if section.name in HANDED_ON]
    if beside:
        raise HalError(
            f"the UKI has sections that become further initrds ({', '.join(beside)}): not computed"
        )
    initrd, release = uki.content(".initrd") or b"", uki.content(".osrel")
    return _padded(initrd) + (_archive(release) if release is not None else b"")


def _archive(release: bytes) -> bytes:
    directory = _node(1, b".extra", DIRECTORY_MODE, b"")
    return directory + _node(2, b".extra/os-release", FILE_MODE, release) + TRAILER


def _node(inode: int, name: bytes, mode: int, content: bytes) -> bytes:
    """A file of a cpio archive (newc), without owner and time."""
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return _padded(header) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
