"""How an appliance refers to a pack: by label where to find it, by root hash what it must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LABEL_LENGTH = 36
"""UTF-16 code units of a GPT partition's name (UEFI specification, table 5.6)."""

HASH_LENGTH = 16
"""Hex digits of the root hash in a label: enough to tell packs apart; trust comes from the whole hash."""


@dataclass(frozen=True)
class PackRef:
    """A pack as the measured root names it; nothing here is read from the pack's own disk.

    `data_blocks` counts blocks of 4,096 bytes, behind which the hash tree starts; `salt` and
    `root_hash` are hex (dm-verity version 1, sha256); `mountpoint` is the absolute path in the appliance.
    """

    kind: Literal["engine", "model"]
    name: str
    label: str
    data_blocks: int
    salt: str
    root_hash: str
    mountpoint: str

    def line(self) -> str:
        """The pack's line in `/usr/lib/hal/packs`, which the initrd reads; no field holds a space."""
        return " ".join(
            [self.name, self.label, str(self.data_blocks), self.salt, self.root_hash, self.mountpoint]
        )


def pack_label(kind: Literal["engine", "model"], name: str, root_hash: str) -> str:
    """The GPT label of a pack, `e-NAME-HASH` or `m-NAME-HASH`; a long name is cut, never the hash."""
    room = LABEL_LENGTH - len("e--") - HASH_LENGTH
    return f"{kind[0]}-{name[:room]}-{root_hash[:HASH_LENGTH]}"
