"""What tests of verification share: an appliance that answers, and what its client has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.attest.appliance import Appliance, serving, tls_key
from tests.attest.asking import HONEST
from tests.attest.machines import measurements


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    with serving(HONEST.document, tls_key("gateway")) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with what a client has: measurements and the machine's pinned key."""
    (tmp_path / "measurements.json").write_text(measurements(HONEST.platforms).text())
    pem = HONEST.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ak.pem").write_bytes(pem)
    return tmp_path
