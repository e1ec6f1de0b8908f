"""Where Debian packages come from, how they are resolved, and what happens when they are gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.errors import HalError, UsageError
from hal.fetch.debian_mirror import apt_snapshots, find_mirror, mirror_at, snapshots_at
from hal.fetch.fetcher import Fetcher, GoneError
from hal.fetch.sources import Mirrors
from hal.lock.debian import PackageSet, PackageSets, load_sets, resolve_debian
from hal.lock.file import Artifact, DebianLock, Lock, Wheel, load_lock
from hal.lock.resolve import Inputs, Substitution, differences, refresh, refresh_sets, supply, with_successors
from tests.misbehaving.server import Fault, MisbehavingServer, misbehaving_server, unused_url
from tests.unit import signed_archive
from tests.unit.signed_archive import Package, Signer, archive_files

# The host's mirror

DEB822 = """\
# the distribution's own
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://vendor.example/linux bookworm main
deb http://lines.example/debian bookworm main contrib # own
deb http://lines.example/debian bookworm-updates main
deb http://lines.example/debian-security bookworm-security main
"""
MMDEBSTRAP = """\
#!/usr/bin/perl
    my $mirror    = 'http://built-in.example/debian';
    my $secmirror = 'http://ignored.example/debian-security';
        $mirror = 'http://other.example/linux';
"""


def host(root: Path, files: dict[str, str], identity: str = "debian") -> Path:
    text = f'ID={identity}\nVERSION_CODENAME="bookworm"\n'
    for path, content in {"etc/os-release": text, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


@pytest.fixture(autouse=True)
def no_mirror_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HAL_DEBIAN_MIRROR", "HAL_DEBIAN_SECURITY_MIRROR", "HAL_SNAPSHOT", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("files", "main", "security"),
    [
        (
            {"etc/apt/sources.list.d/debian.sources": DEB822},
            "http://mirror.example/debian",
            "http://security.example/debian-security",
        ),
        (
            {"etc/apt/sources.list": ONE_LINE},
            "http://lines.example/debian",
            "http://lines.example/debian-security",
        ),
        (
            {"etc/apt/sources.list.d/own.list": "deb http://alone.example/debian bookworm main"},
            "http://alone.example/debian",
            "http://alone.example/debian-security",
        ),
        (
            {
                "etc/apt/sources.list": "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main",
                "etc/apt/mirrors/debian.list": "https://listed.example/debian\tpriority:1\n",
            },
            "https://listed.example/debian",
            "https://listed.example/debian-security",
        ),
        (
            {"etc/apt/sources.list": "deb cdrom:[Debian] bookworm main", "usr/bin/mmdebstrap": MMDEBSTRAP},
            "http://built-in.example/debian",
            "http://built-in.example/debian-security",
        ),
    ],
    ids=["deb822", "one-line", "derived security", "mirror list", "built in"],
)
def test_the_hosts_own_mirror(tmp_path: Path, files: dict[str, str], main: str, security: str) -> None:
    found = find_mirror(host(tmp_path, files))
    assert (found.main, found.security) == (main, security)


def test_a_derivatives_mirror_is_not_debians(tmp_path: Path) -> None:
    files = {"etc/apt/sources.list": ONE_LINE, "usr/bin/mmdebstrap": MMDEBSTRAP}
    assert find_mirror(host(tmp_path, files, "ubuntu")).main == "http://built-in.example/debian"


def test_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_DEBIAN_MIRROR", "http://chosen.example/debian/")
    found = find_mirror(host(tmp_path, {"etc/apt/sources.list": ONE_LINE}))
    assert (found.main, found.security) == (
        "http://chosen.example/debian",
        "http://chosen.example/debian-security",
    )
    monkeypatch.setenv("HAL_DEBIAN_MIRROR", "chosen.example")
    with pytest.raises(UsageError, match="HAL_DEBIAN_MIRROR"):
        find_mirror(tmp_path)


def test_no_mirror_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(HalError, match="no Debian mirror is known") as caught:
        find_mirror(host(tmp_path, {}))
    assert "--mirror" in (caught.value.hint or "")


MOMENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_snapshot_templates() -> None:
    place = "/debian-security/20260131T120000Z/pool/x%2By.deb"
    for template in (
        "http://snap.example/archive",
        "http://snap.example/archive/{archive}/{timestamp}",
        "http://snap.example/archive/@PATH@/@SNAPSHOTID@/",
    ):
        assert snapshots_at(template).urls("security", "pool/x+y.deb", MOMENT) == (
            f"http://snap.example/archive{place}",
        )
    with pytest.raises(UsageError, match="no template"):
        snapshots_at("http://snap.example/debian/{timestamp}")


def test_snapshots_that_apt_knows() -> None:
    dump = """\
Acquire::Snapshots "";
Acquire::Snapshots::URI "";
Acquire::Snapshots::URI::Host::mirror.debian.example "https://snap.example/archive/@PATH@/@SNAPSHOTID@/";
Acquire::Snapshots::URI::Host::linux.example "https://snap.example/linux/@SNAPSHOTID@/";
Acquire::Snapshots::URI::Override::Label::Debian-Security "https://own.example/ds/@SNAPSHOTID@/";
"""
    found = apt_snapshots(dump)
    assert found.urls("main", "pool/x", MOMENT) == (
        "https://snap.example/archive/debian/20260131T120000Z/pool/x",
    )
    assert found.urls("security", "pool/x", MOMENT)[1] == "https://own.example/ds/20260131T120000Z/pool/x"
    assert apt_snapshots("").urls("main", "pool/x", MOMENT) == ()


# Sets


def test_sets_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "debian.yaml"
    for text, message in [
        ("suite: trixie", "sets: is required"),
        (
            "{suite: trixie, sets: {a: {packages: [x], essentail: true}}}",
            r"sets\.a\.essentail: unknown key \(did you mean essential\?\)",
        ),
        ("{suite: trixie, sets: {a: {packages: [x], on_top_of: b}}}", "sets.a.on_top_of: 'b'"),
        ("{suite: trixie, sets: {a: {packages: [x], on_top_of: a}}}", "sets.a.on_top_of: 'a'"),
        ("{", "debian.yaml"),
    ]:
        path.write_text(text)
        with pytest.raises(HalError, match=message):
            load_sets(path)


SETS = PackageSets(
    suite="stable",
    sets={
        "extra": PackageSet(packages=["tool"], on_top_of="base"),
        "base": PackageSet(packages=["server"], essential=True),
        "apart": PackageSet(packages=["lonely"], dependencies=False),
    },
)
BEFORE = [
    Package("base-files", "1", essential=True),
    Package("server", "1:2.0+b1", depends="libx (>= 1)", recommends="docs"),
    Package("libx", "1.0-1"),
    Package("docs"),
    Package("tool", "3~rc1", depends="libx, libtool"),
    Package("libtool"),
    Package("lonely", depends="libx"),
]
UPDATED = [Package("libx", "1.0-2")]
LATER = [
    *(package for package in BEFORE if package.name not in ("libx", "tool")),
    Package("tool", "3", "libx, libtool"),
]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("key"))


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with misbehaving_server() as running:
        yield running


def publish(
    server: MisbehavingServer, signer: Signer, packages: list[Package], security: list[Package] | None = None
) -> None:
    main = archive_files(signer, "/debian", {"stable": packages, "stable-updates": []})
    server.files = main | archive_files(signer, "/debian-security", {"stable-security": security or []})


def versions(lock: DebianLock, name: str) -> dict[str, str]:
    return {package.package: package.version for package in lock.sets[name]}


@signed_archive.needed
def test_resolution(server: MisbehavingServer, signer: Signer, tmp_path: Path) -> None:
    publish(server, signer, BEFORE, UPDATED)
    mirror = mirror_at(f"{server.url}/debian", "a test")
    lock = resolve_debian(SETS, "amd64", mirror, Cache(tmp_path), signer.keyring)
    assert versions(lock, "base") == {"base-files": "1", "libx": "1.0-2", "server": "1:2.0+b1"}
    assert versions(lock, "extra") == {"libtool": "1", "tool": "3~rc1"}
    assert versions(lock, "apart") == {"lonely": "1"}
    found = {package.package: package for package in lock.sets["base"]}
    assert found["libx"].source == "debian:security/pool/main/l/libx/libx_1.0-2_amd64.deb"
    assert found["server"].source == "debian:main/pool/main/s/server/server_2.0+b1_amd64.deb"
    assert found["server"].size == len(BEFORE[1].content)
    fetcher = Fetcher(Cache(tmp_path), Mirrors(debian=(mirror,)))
    files = fetcher.fetch(lock.sets["base"])
    assert files[found["libx"].sha256].read_bytes() == UPDATED[0].content


@signed_archive.needed
def test_resolution_from_a_directory(signer: Signer, server: MisbehavingServer, tmp_path: Path) -> None:
    publish(server, signer, BEFORE)
    for path, content in server.files.items():
        (tmp_path / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path.lstrip("/")).write_bytes(content)
    mirror = Mirrors.choose([str(tmp_path)]).debian_mirror
    lock = resolve_debian(SETS, "amd64", mirror, Cache(tmp_path / "cache"), signer.keyring)
    assert versions(lock, "base") == {"base-files": "1", "libx": "1.0-1", "server": "1:2.0+b1"}
    assert lock.sets["base"][0].source.startswith("debian:main/pool/main/b/base-files/")


@signed_archive.needed
def test_an_index_that_is_not_signed_by_the_keyring_is_refused(
    server: MisbehavingServer, signer: Signer, tmp_path: Path
) -> None:
    publish(server, signer, BEFORE)
    (tmp_path / "other").mkdir()
    other = Signer(tmp_path / "other")
    mirror = mirror_at(f"{server.url}/debian", "a test")
    with pytest.raises(HalError, match="cannot be used") as caught:
        resolve_debian(SETS, "amd64", mirror, Cache(tmp_path), other.keyring)
    assert "sign" in str(caught.value)
    with pytest.raises(HalError, match="keyring is not installed"):
        resolve_debian(SETS, "amd64", mirror, Cache(tmp_path), tmp_path / "absent.gpg")


@signed_archive.needed
def test_mirrors_and_sets_that_cannot_be_used(
    server: MisbehavingServer, signer: Signer, tmp_path: Path
) -> None:
    nobody = mirror_at(f"{unused_url()}/debian", "--mirror")
    with pytest.raises(HalError, match=r"the Debian mirror .*\(--mirror\) cannot be used") as caught:
        resolve_debian(SETS, "amd64", nobody, Cache(tmp_path), signer.keyring)
    assert len(str(caught.value).splitlines()) <= 4
    publish(server, signer, BEFORE[1:2])
    with pytest.raises(HalError, match="packages of the set 'base' cannot be resolved") as caught:
        resolve_debian(
            SETS, "amd64", mirror_at(f"{server.url}/debian", "a test"), Cache(tmp_path), signer.keyring
        )
    assert "libx" in str(caught.value)


# Successors


def everything(lock: Lock) -> list[Artifact]:
    return [*(package for name in ("base", "extra", "apart") for package in lock.packages(name))]


@signed_archive.needed
def test_successors_of_packages_that_are_gone(
    server: MisbehavingServer, signer: Signer, tmp_path: Path
) -> None:
    publish(server, signer, BEFORE)
    mirrors = Mirrors.choose([f"{server.url}/debian"])
    cache = Cache(tmp_path / "cache")
    keyring = signer.keyring
    lock = Lock(resolve_debian(SETS, "amd64", mirrors.debian_mirror, cache, keyring), {})
    publish(server, signer, LATER, UPDATED)

    with pytest.raises(GoneError) as caught:
        supply(Fetcher(cache, mirrors), lock, everything, locked=True, sets=SETS, keyring=keyring)
    assert {artifact.name for artifact in caught.value.artifacts} == {
        "libx_1.0-1_amd64.deb",
        "tool_3~rc1_amd64.deb",
    }

    expected = (Substitution("libx", "1.0-1", "1.0-2"), Substitution("tool", "3~rc1", "3"))
    first = supply(Fetcher(cache, mirrors), lock, everything, sets=SETS, keyring=keyring)
    assert first.substitutions == expected
    assert [str(one) for one in expected] == ["libx 1.0-1 → 1.0-2", "tool 3~rc1 → 3"]
    assert set(first.files) == {artifact.sha256 for artifact in everything(first.lock)}
    assert first.lock.debian.sets["apart"] == lock.debian.sets["apart"]

    server.requests.clear()
    again = supply(Fetcher(cache, mirrors), lock, everything, sets=SETS, keyring=keyring)
    assert again == first
    assert server.requests == [], "a build from the same lock uses the same successors without asking"

    publish(server, signer, [*LATER[:-1], Package("tool", "4", "libx, libtool")], UPDATED)
    elsewhere = Cache(tmp_path / "second")
    memory = next((cache.root / "successors").iterdir())
    (elsewhere.root / "successors").mkdir(parents=True)
    (elsewhere.root / "successors" / memory.name).write_text(memory.read_text())
    third = supply(Fetcher(elsewhere, mirrors), lock, everything, sets=SETS, keyring=keyring)
    assert third.substitutions[1] == Substitution("tool", "3~rc1", "4")


@signed_archive.needed
def test_no_successor_for_what_the_index_still_lists(
    server: MisbehavingServer, signer: Signer, tmp_path: Path
) -> None:
    publish(server, signer, BEFORE)
    mirrors = Mirrors.choose([f"{server.url}/debian"])
    cache = Cache(tmp_path)
    lock = Lock(resolve_debian(SETS, "amd64", mirrors.debian_mirror, cache, signer.keyring), {})
    del server.files[f"/debian/{BEFORE[2].path}"]
    with pytest.raises(GoneError, match="1 pinned file is gone"):
        supply(Fetcher(cache, mirrors), lock, everything, sets=SETS, keyring=signer.keyring)
    wheel = Wheel("w-1-py3-none-any.whl", "0" * 64, 1, "pypi:w==1")
    with pytest.raises(GoneError, match="1 pinned file is gone"):
        with_successors(lock, [wheel], Fetcher(cache, mirrors))


@signed_archive.needed
def test_a_broken_mirror_is_not_a_package_that_is_gone(
    server: MisbehavingServer, signer: Signer, tmp_path: Path
) -> None:
    publish(server, signer, BEFORE)
    mirrors = Mirrors.choose([f"{server.url}/debian"])
    cache = Cache(tmp_path)
    lock = Lock(resolve_debian(SETS, "amd64", mirrors.debian_mirror, cache, signer.keyring), {})
    server.always = Fault("status", status=403)
    with pytest.raises(HalError, match="HTTP 403"):
        supply(Fetcher(cache, mirrors), lock, everything, sets=SETS, keyring=signer.keyring)


@signed_archive.needed
def test_refreshing_a_lock(server: MisbehavingServer, signer: Signer, tmp_path: Path) -> None:
    path = tmp_path / "hal.lock"
    mirrors = Mirrors.choose([f"{server.url}/debian"])
    cache = Cache(tmp_path / "cache")

    def again() -> tuple[Substitution, ...]:
        return refresh(
            path, mirrors, cache=cache, sets=SETS, inputs=Inputs(wheels=[]), keyring=signer.keyring
        )

    publish(server, signer, BEFORE)
    assert Substitution("tool", None, "3~rc1") in again()
    first = path.read_bytes()
    assert again() == ()
    assert path.read_bytes() == first, "nothing changed, so the file did not either"
    old = load_lock(path)
    publish(server, signer, LATER, UPDATED)
    changes = again()
    assert changes == differences(old, load_lock(path))
    assert [change.package for change in changes] == ["libx", "tool"]
    server.files.clear()
    with pytest.raises(HalError, match="cannot be used"):
        again()
    assert load_lock(path).debian.sets["extra"][1].version == "3"


@signed_archive.needed
def test_refreshing_one_set_leaves_all_else(
    server: MisbehavingServer, signer: Signer, tmp_path: Path
) -> None:
    path, cache = tmp_path / "hal.lock", Cache(tmp_path / "cache")
    mirrors = Mirrors.choose([f"{server.url}/debian"])

    def only(*names: str) -> tuple[Substitution, ...]:
        return refresh_sets(names, path, mirrors, cache=cache, sets=SETS, keyring=signer.keyring)

    publish(server, signer, BEFORE)
    refresh(path, mirrors, cache=cache, sets=SETS, inputs=Inputs(wheels=[]), keyring=signer.keyring)
    old = load_lock(path)
    assert only("extra") == ()
    publish(server, signer, LATER, UPDATED)
    with pytest.raises(HalError, match="the Debian packages of the set 'extra' cannot be resolved"):
        only("extra")  # what it is on top of is gone
    publish(server, signer, [*BEFORE, Package("tool", "4", depends="libx, libtool")])
    assert only("extra") == (Substitution("tool", "3~rc1", "4"),)
    new = load_lock(path)
    assert (new.debian.created, new.debian.sets["base"]) == (old.debian.created, old.debian.sets["base"])
    with pytest.raises(HalError, match="the set extra is on top of base"):
        only("base")
    with pytest.raises(HalError, match="there is no package set 'bse'"):
        only("bse")
