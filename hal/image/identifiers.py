"""Identifiers that are the same in every build: UUIDs and salts derived from a seed by name.

Disk, partitions and filesystems all need unique identifiers; drawing them at random would make two
builds of one spec differ. Each is derived from a seed (the image's name and version) and from what it is
for, so equal inputs give equal bytes and different purposes never collide.
"""

from __future__ import annotations

import hashlib
import uuid

NAMESPACE = uuid.UUID("7f6a3c0e-4d0b-5c1e-9a53-68616c000001")
"""hal's own namespace for name-based UUIDs (RFC 9562, section 5.5)."""


def named_uuid(seed: str, purpose: str) -> str:
    """A UUID (version 5) for one purpose under a seed, in the usual text form."""
    return str(uuid.uuid5(NAMESPACE, f"{seed}/{purpose}"))


def salt(seed: str, purpose: str) -> str:
    """A dm-verity salt: 32 bytes as hex.

    It need not be secret; it makes two trees with equal blocks have different hashes.
    """
    return hashlib.sha256(f"hal-salt/{seed}/{purpose}".encode()).hexdigest()
