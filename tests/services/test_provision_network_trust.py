"""Clocks that are wrong, certificates that are, resolvers that fail, proxies: what happens to a transfer."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.provisioner.config import Config
from services.provisioner.network.session import Network, direct
from services.provisioner.pins import HttpsSource, PinnedFile
from tests.misbehaving.certificates import Authority
from tests.misbehaving.proxy import Proxy, forward_proxy
from tests.misbehaving.server import MisbehavingServer, misbehaving_server, unused_url
from tests.services.provision_cases import CONTENT, PATIENT, SHA256, SIZE, Outcome, World, bring, settings

YEAR = timedelta(days=365)
MONTH = 30 * 86400.0
BUILT = time.time() - MONTH
"""When the image was made."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def plain() -> Iterator[MisbehavingServer]:
    with misbehaving_server() as server:
        server.files["/model"] = CONTENT
        yield server


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with forward_proxy() as running:
        yield running


def secure(tls: ssl.SSLContext) -> Iterator[MisbehavingServer]:
    with misbehaving_server(tls=tls) as server:
        server.files["/model"] = CONTENT
        yield server


@pytest.fixture
def valid(authority: Authority) -> Iterator[MisbehavingServer]:
    yield from secure(authority.server())


@pytest.fixture
def not_yet_valid(authority: Authority) -> Iterator[MisbehavingServer]:
    """As a machine sees it whose clock is before the certificate's first day."""
    yield from secure(authority.server(begin=YEAR, end=2 * YEAR))


@pytest.fixture
def expired(authority: Authority) -> Iterator[MisbehavingServer]:
    yield from secure(authority.server(begin=-2 * YEAR, end=-YEAR))


def world(server: MisbehavingServer, config: Config, url: str = "") -> World:
    file = PinnedFile("model", SIZE, SHA256, HttpsSource(url or f"{server.url}/model"))
    return World(file, config, server, "/model", "/model")


def trusting(authority: Authority, **options: object) -> Config:
    return settings(ca=str(authority.file), built=BUILT, **options)


def once(outcome: Outcome) -> bool:
    return (outcome.error, outcome.attempts, outcome.fetched) == ("", 1, SIZE)


def test_https_with_ones_own_authority(
    valid: MisbehavingServer, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert once(bring(world(valid, trusting(authority)), tmp_path))
    assert caplog.records == []


def test_an_unknown_authority_is_an_error_that_names_the_key_to_set(
    valid: MisbehavingServer, tmp_path: Path
) -> None:
    outcome = bring(world(valid, settings()), tmp_path)
    assert outcome.attempts == PATIENT.attempts
    assert "signed by nobody that this machine trusts (provision.ca)" in outcome.error


def test_another_hosts_certificate_is_an_error(authority: Authority, tmp_path: Path) -> None:
    with misbehaving_server(tls=authority.server(host="127.0.0.9")) as server:
        outcome = bring(world(server, trusting(authority)), tmp_path, policy=PATIENT._replace(attempts=1))
    assert "its certificate is for another host" in outcome.error


@pytest.mark.parametrize("content", [None, "nothing\n"])
def test_a_file_of_authorities_that_is_not_there_or_none(
    content: str | None, valid: MisbehavingServer, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    outcome = bring(world(valid, settings(ca=str(path))), tmp_path, policy=PATIENT._replace(attempts=1))
    assert outcome.error.startswith(f"{path}: ") and "provision.ca" in outcome.error


@pytest.mark.parametrize("slow", [BUILT, 1.0], ids=["at 1970", "by a second"])
def test_a_clock_before_the_image_was_made_leaves_the_dates_out_and_says_so(
    slow: float,
    valid: MisbehavingServer,
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    config = trusting(authority)
    assert once(bring(world(valid, config), tmp_path, network=Network(config, clock=lambda: BUILT - slow)))
    (record,) = caplog.records
    assert "before this image was made" in record.getMessage() and "SHA-256" in record.getMessage()


def test_a_clock_at_1970_sees_certificates_that_are_not_yet_valid_and_gets_the_file(
    not_yet_valid: MisbehavingServer, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    config = trusting(authority)
    made = world(not_yet_valid, config)
    assert once(bring(made, tmp_path, network=Network(config, clock=lambda: 0.0)))
    # Also where only the certificate shows that the clock is slow.
    assert once(bring(made, tmp_path))
    assert "is not valid yet, by this machine's clock" in caplog.records[1].getMessage()


def test_without_its_dates_a_certificate_is_still_held_against_the_authorities(
    not_yet_valid: MisbehavingServer, tmp_path: Path
) -> None:
    config = settings(built=BUILT)
    made = world(not_yet_valid, config)
    outcome = bring(
        made, tmp_path, policy=PATIENT._replace(attempts=1), network=Network(config, clock=lambda: 0.0)
    )
    assert "signed by nobody" in outcome.error


def test_an_expired_certificate_is_an_error_that_tells_the_clock(
    expired: MisbehavingServer, authority: Authority, tmp_path: Path
) -> None:
    outcome = bring(world(expired, trusting(authority)), tmp_path)
    assert outcome.attempts == PATIENT.attempts
    assert "its certificate has expired, by this machine's clock (20" in outcome.error
    assert expired.requests == []


def test_a_resolver_that_fails_for_a_minute(
    plain: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    asked = []

    def failing(name: str, *arguments: object, **options: object) -> object:
        if name == "models.test":
            asked.append(name)
            if len(asked) <= 4:  # 5 + 10 + 20 + 40 s of back-off
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            name = "127.0.0.1"
        return resolve(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("socket.getaddrinfo", failing)
    url = plain.url.replace("127.0.0.1", "models.test") + "/model"
    outcome = bring(world(plain, settings(), url), tmp_path)
    assert (outcome.error, outcome.attempts, outcome.fetched) == ("", 5, SIZE)
    assert outcome.waited >= 60
    assert all("the host name cannot be resolved" in error for error in outcome.errors)


def test_a_host_that_does_not_exist_is_asked_for_to_the_end_of_the_attempts(tmp_path: Path) -> None:
    file = PinnedFile("model", SIZE, SHA256, HttpsSource("http://nowhere.invalid/model"))
    made = World(file, settings(), MisbehavingServer(), "", "")
    outcome = bring(made, tmp_path, policy=PATIENT._replace(attempts=3, stall=20.0))
    assert outcome.attempts == 3 and "the host name" in outcome.error


def test_https_through_a_proxy(
    valid: MisbehavingServer, authority: Authority, proxy: Proxy, tmp_path: Path
) -> None:
    config = trusting(authority, proxy=proxy.url)
    assert once(bring(world(valid, config), tmp_path))
    assert proxy.requests == [f"CONNECT {valid.url.removeprefix('https://')}"]


def test_http_through_a_proxy_that_alone_knows_the_host_and_wants_a_password(
    plain: MisbehavingServer, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.hosts["models.test"] = "127.0.0.1"
    proxy.password = "hal:s3cret"
    config = settings(proxy=proxy.url)
    url = plain.url.replace("127.0.0.1", "models.test") + "/model"
    assert once(bring(world(plain, config, url), tmp_path))
    assert proxy.requests == [f"GET {url}"]


def test_time_is_left_out_behind_a_proxy_too(
    not_yet_valid: MisbehavingServer, authority: Authority, proxy: Proxy, tmp_path: Path
) -> None:
    config = trusting(authority, proxy=proxy.url)
    assert once(bring(world(not_yet_valid, config), tmp_path))


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_without_its_password_or_that_refuses_or_is_not_there(
    scheme: str,
    valid: MisbehavingServer,
    plain: MisbehavingServer,
    authority: Authority,
    proxy: Proxy,
    tmp_path: Path,
) -> None:
    server = valid if scheme == "https" else plain
    few = PATIENT._replace(attempts=2)

    def error(url: str) -> str:
        outcome = bring(world(server, trusting(authority, proxy=url)), tmp_path, policy=few)
        assert "s3cret" not in "".join(outcome.errors)
        return outcome.error

    proxy.password = "hal:s3cret"
    assert (
        "password (provision.proxy)" in (said := error(f"http://hal:wrong@{proxy.address}"))
    ) or "407" in said
    proxy.refuses.add("127.0.0.1")
    said = error(proxy.url)
    assert "does not let us through" in said or "HTTP 403" in said
    assert "the proxy cannot be reached (provision.proxy)" in error(unused_url())


def test_exceptions_from_the_proxy(plain: MisbehavingServer, proxy: Proxy, tmp_path: Path) -> None:
    config = settings(proxy=proxy.url, no_proxy=("127.0.0.0/8",))
    assert once(bring(world(plain, config), tmp_path))
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("name", "exceptions", "expected"),
    [
        ("a.example", ("example",), True),
        ("a.example", (".example",), True),
        ("a.example", ("*.example",), True),
        ("example", ("*.example",), True),
        ("anexample", ("example",), False),
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("10.1.2.3", ("10.1.2.3",), True),
        ("::1", ("::/64",), True),
        ("11.1.2.3", ("10.0.0.0/8", ""), False),
        ("anything", ("*",), True),
        ("a.example", (), False),
    ],
)
def test_which_hosts_are_exceptions(name: str, exceptions: tuple[str, ...], expected: bool) -> None:
    assert direct(name, exceptions) is expected


def test_neither_proxies_nor_credentials_come_from_the_environment(
    plain: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", unused_url())
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login hal password s3cret\n")
    (tmp_path / "netrc").chmod(0o600)
    plain.requests.clear()
    (tmp_path / "parts").mkdir()
    assert once(bring(world(plain, settings()), tmp_path / "parts"))
    assert plain.requests[0].authorization is None


def test_https_is_never_left_along_a_redirect(
    valid: MisbehavingServer, plain: MisbehavingServer, authority: Authority, tmp_path: Path
) -> None:
    valid.files.clear()
    valid.redirects["/model"] = f"{plain.url}/model"
    outcome = bring(world(valid, trusting(authority)), tmp_path)
    assert outcome.attempts == 1 and "it redirects from https to http" in outcome.error
