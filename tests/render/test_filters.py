"""System call filters of init scripts: compiled by the tools tree's libseccomp, and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.image.root import FILTERS, write_files
from hal.render.filters import filter_file, filter_path
from hal.render.sandbox import Exemption
from hal.run import Completed
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec

STRICT = "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)"
SOCKET = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"
THREAD = "import threading; t = threading.Thread(target=print); t.start(); t.join()"


@pytest.fixture(scope="module")
def directory(starter: LoadedSpec, tools: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root tree with two filters in it, compiled."""
    root = tmp_path_factory.mktemp("root")
    loose = {"MemoryDenyWriteExecute": Exemption("no", "the test")}
    write_files({**filter_file(starter, "strict", {}), **filter_file(starter, "loose", loose)}, root)
    tools.run(["python3", "-I", str(FILTERS), str(root)], readable=[FILTERS], writable=[root])
    return root


def under(tools: Sandbox, directory: Path, name: str, *argv: str) -> Completed:
    """Run a program under a filter."""
    path = f"{directory}{filter_path(name)}"
    command = ["setpriv", "--no-new-privs", "--seccomp-filter", path, "--", *argv]
    return tools.run(command, readable=[directory], check=False)


def test_what_a_service_does_is_allowed(tools: Sandbox, directory: Path) -> None:
    assert under(tools, directory, "strict", "sh", "-c", "true | cat").returncode == 0
    assert under(tools, directory, "strict", "python3", "-I", "-c", THREAD).returncode == 0


@pytest.mark.parametrize(
    "argv",
    [
        ("unshare", "--user", "true"),
        ("python3", "-I", "-c", STRICT),
        ("python3", "-I", "-c", SOCKET),
        ("mount", "-t", "tmpfs", "none", "/tmp"),
    ],
)
def test_what_no_service_does_is_not(tools: Sandbox, directory: Path, argv: tuple[str, ...]) -> None:
    done = under(tools, directory, "strict", *argv)
    assert done.returncode != 0
    assert "not permitted" in done.stderr or "denied" in done.stderr, done.stderr


def test_an_engines_exemption_is_in_its_filter(tools: Sandbox, directory: Path) -> None:
    assert under(tools, directory, "loose", "python3", "-I", "-c", STRICT).returncode == 0


def test_equal_descriptions_give_equal_filters(tools: Sandbox, directory: Path, tmp_path: Path) -> None:
    path = filter_path("strict").lstrip("/")
    first = (directory / path).read_bytes()
    assert len(first) % 8 == 0
    (directory / path).unlink()
    tools.run(["python3", "-I", str(FILTERS), str(directory)], readable=[FILTERS], writable=[directory])
    assert (directory / path).read_bytes() == first
