"""What tests of every level share: options, and the tools tree that `make image` leaves in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from hal.cache import Cache
from hal.engines import ArchiveArtifact, load_engine
from hal.lock.file import load_lock
from hal.sandbox import Sandbox
from hal.tools import digest
from tests.misbehaving.server import MisbehavingServer, misbehaving_server
from tests.ollama import archive

# A slow moment of the machine is no failure of the property.
settings.register_profile("hal", deadline=None)
settings.load_profile("hal")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hal")
    group.addoption("--spec", help="check the appliance of this spec instead of the tests' own small one")
    group.addoption(
        "--base",
        choices=("debian", "buildroot"),
        default="debian",
        help="what makes the operating system of the tests' own appliances; buildroot takes an hour once",
    )
    group.addoption(
        "--artifact",
        action="append",
        default=[],
        metavar="ENGINE=FILE",
        help="an engine's real release archive in the place of the tests' stand-in, as in `hal build`",
    )
    group.addoption("--out", type=Path, default=ROOT / "build", help="where builds go")


@pytest.fixture(scope="module")
def one_server() -> Iterator[MisbehavingServer]:
    """The server behind `server`, for what cannot have a fresh one for each try (properties)."""
    with misbehaving_server() as server:
        yield server


@pytest.fixture
def server(one_server: MisbehavingServer) -> MisbehavingServer:
    """A server without files and without misdeeds yet."""
    one_server.clear()
    return one_server


@dataclass(frozen=True)
class Archive:
    """A release archive for tests: its version, the value of `--artifact`, and whether it is the stand-in."""

    version: str
    option: str
    stand_in: bool


@pytest.fixture(scope="session")
def ollama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Ollama's archive: the real one that `--artifact ollama=FILE` names, else the stand-in of the tests.

    The real one's version is found by its digest; another one than hal pins is given with its digest.
    """
    for option in request.config.getoption("--artifact"):
        if option.startswith("ollama="):
            path = Path(option.removeprefix("ollama=").partition("#")[0])
            return Archive(_version("ollama", archive.digest(path)), option, stand_in=False)
    pinned = load_lock().wheel("xllamacpp")
    wheel = Cache().find(pinned.sha256, pinned.size)
    if wheel is None:
        pytest.skip("xllamacpp is not in hal's cache: `make image` fetches it")
    path = archive.write(tmp_path_factory.mktemp("ollama") / "ollama-stand-in.tgz", wheel)
    return Archive("stand-in", f"ollama={path}#sha256={archive.digest(path)}", stand_in=True)


def _version(engine: str, sha256: str) -> str:
    """The version of the release with this digest; "given" where hal pins none."""
    for artifacts in load_engine(engine).artifacts.values():
        for artifact in artifacts:
            if isinstance(artifact, ArchiveArtifact):
                for version, release in artifact.releases.items():
                    if release.sha256 == sha256:
                        return version
    return "given"


@pytest.fixture(scope="session")
def tools() -> Sandbox:
    """hal's tools tree: the HAProxy, systemd and QEMU that appliances are made with and for."""
    lock = load_lock()
    tree = Cache().tree("tools", digest(lock.packages("tools")))
    if not tree.exists():
        pytest.skip("no tools tree in the cache: `make image` makes it")
    return Sandbox(tree, int(lock.debian.created.timestamp()))
