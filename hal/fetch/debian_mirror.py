"""Which Debian mirror this machine uses, and which snapshot archives it knows.

hal has no mirror of its own: it asks what was configured, the most deliberate choice first.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from hal.errors import HalError, UsageError
from hal.lock.file import Archive
from hal.run import run

log = logging.getLogger("hal.sources")

MIRROR_VARIABLE = "HAL_DEBIAN_MIRROR"
SECURITY_VARIABLE = "HAL_DEBIAN_SECURITY_MIRROR"
SNAPSHOT_VARIABLE = "HAL_SNAPSHOT"

_SCHEMES = ("http://", "https://", "file:/")
_BUILT_IN = re.compile(r"^\s*my \$mirror\s*=\s*'([^']+)'", re.MULTILINE)
_NAMES: dict[Archive, str] = {"main": "debian", "security": "debian-security"}
"""The archives' names in the paths of Debian's mirrors and of its snapshot archive."""


@dataclass(frozen=True)
class DebianMirror:
    """The URLs under which both archives' `dists` and `pool` lie, and who chose them (for messages)."""

    main: str
    security: str
    chosen_by: str

    def base(self, archive: Archive) -> str:
        """The URL of an archive's root, without a slash at its end."""
        return self.main if archive == "main" else self.security

    def url(self, archive: Archive, path: str) -> str:
        """The URL of a file of an archive."""
        return f"{self.base(archive)}/{quote(path)}"


def mirror_at(url: str, chosen_by: str, security: str | None = None) -> DebianMirror:
    """The mirror at a URL; Debian's mirrors have the security archive beside the main one.

    Raises:
        UsageError: it is no http, https or file URL.
    """
    main = url.rstrip("/")
    if not main.startswith(_SCHEMES):
        raise UsageError(
            f"{chosen_by}: {url!r} is no URL of a Debian mirror", "give http://…, https:// or file:/…"
        )
    return DebianMirror(main, (security or f"{main}-security").rstrip("/"), chosen_by)


def find_mirror(root: Path = Path("/")) -> DebianMirror:
    """The mirror of `$HAL_DEBIAN_MIRROR`, else of this host's apt if it is Debian, else mmdebstrap's default.

    `root` is where the host's files are looked up.

    Raises:
        HalError: none of them says anything.
    """
    if chosen := os.environ.get(MIRROR_VARIABLE):
        return mirror_at(chosen, f"${MIRROR_VARIABLE}", os.environ.get(SECURITY_VARIABLE))
    found = _of_host(root) or _built_in(root)
    if found is None:
        raise HalError(
            "no Debian mirror is known on this machine",
            f"name one: --mirror URL or {MIRROR_VARIABLE}=URL; or install mmdebstrap, which has a default",
        )
    log.debug("Debian mirror: %s and %s, from %s", found.main, found.security, found.chosen_by)
    return found


def _built_in(root: Path) -> DebianMirror | None:
    program = root / "usr/bin/mmdebstrap"
    try:
        found = _BUILT_IN.search(program.read_text(errors="replace"))
    except OSError:
        return None
    return mirror_at(found[1], "mmdebstrap's default") if found else None


@dataclass(frozen=True)
class AptSource:
    """One `deb` source of a host: apt's sources.list(5), either of its formats."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str


def _of_host(root: Path) -> DebianMirror | None:
    release = _os_release(root)
    if release.get("ID") != "debian":  # a derivative's archive holds other packages
        return None
    sources = tuple(host_sources(root))
    names = {"stable", "testing", "unstable", "sid", "oldstable", release.get("VERSION_CODENAME", "")} - {""}
    main = [s for s in sources if s.suite in names and "main" in s.components]
    # Other vendors may use Debian's suite names too. What also carries the updates suite, or names Debian's
    # keyring, is Debian's own.
    updated = {
        s.uri for s in sources if s.suite.removesuffix("-updates") in names and s.suite.endswith("-updates")
    }
    main.sort(key=lambda s: (s.uri not in updated, "debian-archive" not in s.signed_by))
    if not main:
        return None
    chosen_by = "this host's apt sources"
    security = [
        s.uri
        for s in sources
        if s.suite.endswith(("-security", "/updates")) and "debian" in s.uri + s.signed_by
    ]
    return mirror_at(main[0].uri, chosen_by, security[0] if security else None)


def _os_release(root: Path) -> dict[str, str]:
    try:
        text = (root / "etc/os-release").read_text()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value.strip("\"'") for name, _, value in pairs}


def host_sources(root: Path = Path("/")) -> Iterator[AptSource]:
    """The enabled `deb` sources of a host, with http, https or file URIs, in apt's order."""
    parts = root / "etc/apt/sources.list.d"
    files = [root / "etc/apt/sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        parsed = _deb822(text) if file.suffix == ".sources" else _one_line(text)
        for source in parsed:
            for uri in _expanded(source.uri, root):
                yield AptSource(uri.rstrip("/"), source.suite, source.components, source.signed_by)


def _one_line(text: str) -> Iterator[AptSource]:
    """`deb [signed-by=… arch=…] URI SUITE COMPONENT…`"""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if found:
            options = dict(option.partition("=")[::2] for option in (found[1] or "").split())
            signed_by = options.get("signed-by", "")
            yield AptSource(found[2], found[3], tuple(found[4].split()), signed_by)


def _deb822(text: str) -> Iterator[AptSource]:
    """Stanzas of `Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:`; comments and folded lines."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        pairs = (line.partition(":") for line in unfolded.splitlines())
        fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptSource(uri, suite, components, fields.get("signed-by", ""))


def _expanded(uri: str, root: Path) -> Iterable[str]:
    """The URIs a source stands for: cloud images keep theirs in a file, `mirror+file:/etc/apt/mirrors/…`."""
    if uri.startswith("mirror+file:"):
        listed = root / uri.removeprefix("mirror+file:").lstrip("/")
        try:
            lines = listed.read_text().splitlines()
        except OSError:
            return
        yield from (words[0] for words in map(str.split, lines) if words and words[0].startswith(_SCHEMES))
    elif uri.startswith(_SCHEMES):
        yield uri


@dataclass(frozen=True)
class Snapshots:
    """Where a past state of the archives can be had: URL templates per archive.

    A template holds `@SNAPSHOTID@` for the time and may hold `@PATH@` for the archive's name (apt.conf(5)).
    """

    templates: tuple[tuple[Archive, str], ...]

    def urls(self, archive: Archive, path: str, moment: datetime) -> tuple[str, ...]:
        """The URLs of a file as the archive was at `moment`."""
        identifier = moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        return tuple(
            template.replace("@PATH@", _NAMES[archive]).replace("@SNAPSHOTID@", identifier).rstrip("/")
            + f"/{quote(path)}"
            for of, template in self.templates
            if of == archive
        )


def snapshots_at(template: str) -> Snapshots:
    """The snapshot archive at a URL: with apt's placeholders, or the part before `/debian/20260131T120000Z/`.

    Raises:
        UsageError: the template names a time or an archive, but not both.
    """
    text = template.replace("{archive}", "@PATH@").replace("{timestamp}", "@SNAPSHOTID@")
    if "@PATH@" not in text and "@SNAPSHOTID@" not in text:
        text = f"{text.rstrip('/')}/@PATH@/@SNAPSHOTID@/"
    if not ("@PATH@" in text and "@SNAPSHOTID@" in text and text.startswith(_SCHEMES)):
        raise UsageError(
            f"{template!r} is no template for a snapshot archive",
            "give its URL up to the archive's name, or one with {archive} and {timestamp}",
        )
    return Snapshots((("main", text), ("security", text)))


def find_snapshots() -> Snapshots:
    """The snapshot archive of `$HAL_SNAPSHOT`, else those that this host's apt knows (maybe none)."""
    if chosen := os.environ.get(SNAPSHOT_VARIABLE):
        return snapshots_at(chosen)
    try:
        done = run(["apt-config", "dump", "Acquire::Snapshots"], check=False)
    except HalError:  # no apt here
        return Snapshots(())
    return apt_snapshots(done.stdout)


def apt_snapshots(dump: str) -> Snapshots:
    """The templates in the output of `apt-config dump`, apt's own order kept."""
    templates: list[tuple[Archive, str]] = []
    for key, value in re.findall(r'^Acquire::Snapshots::URI::(\S+) "(.*)";$', dump, re.MULTILINE):
        if "@SNAPSHOTID@" not in value or "debian" not in f"{key}{value}".lower():
            continue
        if "@PATH@" in value:
            templates += [("main", value), ("security", value)]
        else:
            templates.append(("security" if "security" in f"{key}{value}".lower() else "main", value))
    return Snapshots(tuple(dict.fromkeys(templates)))
