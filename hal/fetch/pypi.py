"""PyPI: which file of a project is the wheel we need, and where a pinned file lies."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hal.errors import HalError
from hal.lock.file import Artifact, IndexSource, PypiSource, Wheel

if TYPE_CHECKING:
    import requests
    from pypi_simple import DistributionPackage

PYTHON = (3, 13)
"""The Python of the appliance's root (Debian 13)."""

RUNTIME_PYTHON = (3, 11)
"""The Python that engine packs bring along (Debian 12's), for wheel sets."""

SYSTEM_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf")
"""Where pip's configuration for all users may lie."""

TIMEOUT = 30.0
"""Seconds that the index may take to answer."""


def index_url() -> str:
    """The package index: `$PIP_INDEX_URL`, else the one pip is configured with, else PyPI."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return os.environ.get("PIP_INDEX_URL") or _pip_setting("index-url") or PYPI_SIMPLE_ENDPOINT


def find_links() -> list[str]:
    """Directories and pages with wheels that pip is told of: `$PIP_FIND_LINKS`, else its configuration."""
    return (os.environ.get("PIP_FIND_LINKS") or _pip_setting("find-links") or "").split()


def extra_indexes() -> list[str]:
    """Indexes that pip is told of besides the one; those on this machine's disk mirror PyPI: passed over."""
    urls = (os.environ.get("PIP_EXTRA_INDEX_URL") or _pip_setting("extra-index-url") or "").split()
    return [url for url in urls if not url.startswith("file:")]


def _pip_setting(name: str) -> str | None:
    """A setting of pip's configuration files (pip's documentation, "Configuration"), the user's first."""
    files: list[str | Path] = [
        os.environ.get("PIP_CONFIG_FILE", ""),
        Path(sys.prefix, "pip.conf"),
        Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config", "pip/pip.conf").expanduser(),
        Path("~/.pip/pip.conf").expanduser(),
        *SYSTEM_FILES,
    ]
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)  # skips files that do not exist
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        if value := parser.get("global", name, fallback=""):
            return value
    return None


def manylinux(machine: str, glibc: int = 41) -> tuple[str, ...]:
    """The wheel platform tags that run with glibc 2.`glibc` on `machine`, the newest first (PEP 600)."""
    old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    tags: list[str] = []
    for minor in range(glibc, 4, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in old:
            tags.append(f"{old[minor]}_{machine}")
    return (*tags, f"linux_{machine}")


def resolve_wheel(
    project: str,
    version: str | None = None,
    *,
    platforms: Sequence[str] = manylinux("x86_64"),
    python: tuple[int, int] = PYTHON,
    session: requests.Session | None = None,
) -> Wheel:
    """Find the wheel of a project that fits best: of `version`, or of the newest final release.

    Raises:
        HalError: the index cannot be reached, or has no such wheel.
    """
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    tags = [*cpython_tags(python, platforms=platforms), *compatible_tags(python, "cp313", platforms)]
    rank = {tag: number for number, tag in reversed(list(enumerate(tags)))}
    candidates = []
    for package in _files(project, session):
        if package.package_type != "wheel" or "sha256" not in package.digests:
            continue
        try:
            _, release, build, wheel_tags = parse_wheel_filename(package.filename)
        except InvalidWheelFilename:
            continue
        fitting = [rank[tag] for tag in wheel_tags if tag in rank]
        if version is None:
            wanted = not release.is_prerelease and not package.is_yanked
        else:
            wanted = str(release) == version
        if fitting and wanted:
            candidates.append(((release, -min(fitting), build), package))
    if not candidates:
        what = f"{project} {version}" if version else project
        raise HalError(
            f"{index_url()}: no wheel of {what} fits Python {python[0]}.{python[1]} on {platforms[-1]}"
        )
    (release, _, _), package = max(candidates, key=lambda pair: pair[0])
    size = package.size if package.size is not None else length(package.url, session)
    return Wheel(package.filename, package.digests["sha256"], size, f"pypi:{project}=={release}")


def file_urls(
    artifact: Artifact, source: PypiSource, session: requests.Session | None = None
) -> Iterator[str]:
    """Where the index has a pinned file; nothing when it has it no more.

    Raises:
        HalError: the index cannot be reached.
    """
    for package in _files(source.project, session):
        if package.filename == artifact.name:
            yield package.url.partition("#")[0]


def found_files(artifact: Artifact) -> Iterator[Path]:
    """The files of this name in directories that pip is told of."""
    for place in find_links():
        path = Path(place.removeprefix("file://")) / artifact.name
        if "://" not in place.removeprefix("file://") and path.is_file():
            yield path


def extra_file_urls(
    artifact: Artifact, source: IndexSource, session: requests.Session | None = None
) -> Iterator[str]:
    """Where the indexes and pages besides PyPI have a pinned file.

    Raises:
        HalError: one of them cannot be reached.
    """
    for index in extra_indexes():
        for package in _files(source.project, session, index):
            if package.filename == artifact.name:
                yield package.url.partition("#")[0]
    for place in find_links():
        if place.startswith(("https:", "http:")):
            folder = place.rpartition("/")[0] if place.endswith(".html") else place.rstrip("/")
            yield f"{folder}/{quote(artifact.name)}"


def best_wheel(
    names: Iterable[str], python: tuple[int, int] = RUNTIME_PYTHON, platforms: Sequence[str] | None = None
) -> str:
    """The name of the wheel that fits best, of several of one release."""
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.utils import parse_wheel_filename

    platforms = platforms or manylinux("x86_64")
    interpreter = f"cp{python[0]}{python[1]}"
    tags = [*cpython_tags(python, platforms=platforms), *compatible_tags(python, interpreter, platforms)]
    rank = {tag: number for number, tag in reversed(list(enumerate(tags)))}

    def place(name: str) -> int:
        return min((rank[tag] for tag in parse_wheel_filename(name)[3] if tag in rank), default=len(rank))

    return min(sorted(names), key=place)


def _files(
    project: str, session: requests.Session | None, index: str | None = None
) -> Sequence[DistributionPackage]:
    import requests
    from pypi_simple import NoSuchProjectError, PyPISimple

    from hal.fetch.http import new_session

    index = index or index_url()
    try:
        with PyPISimple(index, session=session or new_session()) as client:
            return client.get_project_page(project, timeout=TIMEOUT).packages
    except NoSuchProjectError:
        return ()
    except (requests.RequestException, ValueError) as error:
        raise HalError(
            f"the package index {_public(index)} cannot be used: {type(error).__name__} for {project}",
            "check the network, or set PIP_INDEX_URL to an index that can be reached",
        ) from error


def length(url: str, session: requests.Session | None = None) -> int:
    """The size of a file that its index page does not tell."""
    import requests

    from hal.fetch.http import new_session

    try:
        answer = (session or new_session()).head(url, timeout=TIMEOUT, allow_redirects=True)
        answer.raise_for_status()
        return int(answer.headers["Content-Length"])
    except (requests.RequestException, KeyError, ValueError) as error:
        raise HalError(f"{_public(url)}: its size cannot be found: {error}") from error


def _public(url: str) -> str:
    """A URL without the name and password it may hold."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
