"""What tests of every level share: options, and the tools tree that `make image` leaves in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.cache import Cache
from hal.lock import load_lock
from hal.sandbox import Sandbox
from hal.tools import digest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hal")
    group.addoption("--spec", help="check the appliance of this spec instead of the tests' own small one")
    group.addoption("--out", type=Path, default=ROOT / "build", help="where builds go")


@pytest.fixture(scope="session")
def tools() -> Sandbox:
    """hal's tools tree: the HAProxy, systemd and QEMU that appliances are made with and for."""
    lock = load_lock()
    tree = Cache().tree("tools", digest(lock.packages("tools")))
    if not tree.exists():
        pytest.skip("no tools tree in the cache: `make image` makes it")
    return Sandbox(tree, int(lock.debian.created.timestamp()))
