"""How the provisioner speaks HTTP: trust, proxies, redirects, credentials, and one clock."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from ..config import Config
from ..failures import PermanentError, TransientError, certificate, words
from . import tls
from .places import Place

log = logging.getLogger("hal.provisioner")

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5


class Opened(NamedTuple):
    """An answer whose body is still to be read; `url` is where redirects led.

    `credential`: a token went along. `withheld`: there is one, and it was not sent because of the clock.
    """

    response: requests.Response
    url: str
    credential: bool
    withheld: bool


class Network:
    """The way to the network that a configuration describes; one for all transfers, used by their threads.

    `clock` gives Unix time, for certificates and for dates in answers. The environment is not asked: neither
    for proxies nor for credentials (`.netrc`).
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.clock = clock
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def open(self, place: Place, headers: Mapping[str, str], timeouts: tuple[float, float]) -> Opened:
        """Ask a place, and where it redirects to.

        A token goes to the place's own origin, over https only, and nowhere else along redirects.

        Raises:
            TransientError, PermanentError: no answer, or one that leads nowhere.
        """
        url = place.url
        token = _token(place) if urlsplit(url).scheme == "https" else None
        sent = withheld = False
        for _ in range(MOST_REDIRECTS + 1):
            mine = token if origin(url) == origin(place.url) else None
            response, dated = self._get(url, {**headers, **dict(place.headers)}, mine, timeouts)
            sent, withheld = mine is not None and dated, mine is not None and not dated
            target = response.headers.get("Location")
            if response.status_code not in REDIRECTS or not target:
                return Opened(response, url, sent, withheld)
            response.close()
            url = _redirected(url, target)
        raise TransientError(f"{host(place.url)}: it redirects more than {MOST_REDIRECTS} times")

    def _get(
        self, url: str, headers: dict[str, str], token: str | None, timeouts: tuple[float, float]
    ) -> tuple[requests.Response, bool]:
        """One answer, and whether the certificate's dates were checked (a token goes along only then)."""
        secure = urlsplit(url).scheme == "https"
        now = self.clock()
        early = now < self.config.built
        if secure and early:
            self._tell(url, f"this machine's clock ({tls.written(now)}) is before this image was made")
        if not (secure and early):
            authorized = headers if token is None else {**headers, "Authorization": f"Bearer {token}"}
            try:
                return self._session(dates=True).get(
                    url, headers=authorized, **self._how(url, timeouts)
                ), True
            except (requests.RequestException, OSError) as error:
                refused = certificate(error)
                if refused is None or refused.verify_code != tls.NOT_YET_VALID:
                    raise _explained(url, error, now) from error
                self._tell(url, tls.refused(refused, now))
        try:
            return self._session(dates=False).get(url, headers=headers, **self._how(url, timeouts)), False
        except (requests.RequestException, OSError) as error:
            raise _explained(url, error, now) from error

    def _tell(self, url: str, why: str) -> None:
        if host(url) not in self._told:
            self._told.add(host(url))
            log.warning("%s: %s: dates are left out, the content is checked by SHA-256", host(url), why)

    def _how(self, url: str, timeouts: tuple[float, float]) -> dict[str, Any]:
        proxy = self.config.proxy
        used = proxy if proxy and not direct(urlsplit(url).hostname or "", self.config.no_proxy) else None
        proxies = {"http": used, "https": used} if used else {}
        return {"stream": True, "timeout": timeouts, "allow_redirects": False, "proxies": proxies}

    def _session(self, *, dates: bool) -> requests.Session:
        """A session for one request.

        Connections are not kept: one that the server has closed meanwhile would cost an attempt, and who
        leaves an answer may break its connection off without asking whether somebody else has it by now.
        """
        session = requests.Session()
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        told = {"User-Agent": "hal-provision", "Accept-Encoding": "identity", "Connection": "close"}
        session.headers.update(told)
        adapter = _Adapter(self._context(dates))
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _context(self, dates: bool) -> ssl.SSLContext:
        with self._lock:
            if dates not in self._contexts:
                self._contexts[dates] = tls.context(self.config.ca, dates=dates)
            return self._contexts[dates]


class _Adapter(HTTPAdapter):
    """Connections with one TLS context, also behind a proxy, instead of the library's list of authorities."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # the context has the authorities


def direct(name: str, exceptions: tuple[str, ...]) -> bool:
    """Whether a host is reached without the proxy: it, a domain above it, its network, or `*` is named."""
    for exception in exceptions:
        suffix = exception.lower().lstrip("*.")
        if exception == "*" or (suffix and (name == suffix or name.endswith(f".{suffix}"))):
            return True
        try:
            if ipaddress.ip_address(name) in ipaddress.ip_network(exception, strict=False):
                return True
        except ValueError:
            continue
    return False


def host(url: str) -> str:
    """Host and port of a URL, for words."""
    return urlsplit(url).netloc.rpartition("@")[2]


def origin(url: str) -> tuple[str, str, int | None]:
    """What has to be the same for a credential to be sent along (RFC 6454)."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or {"https": 443, "http": 80}.get(parts.scheme),
    )


def _redirected(url: str, target: str) -> str:
    following = urljoin(url, target)
    schemes = urlsplit(url).scheme, urlsplit(following).scheme
    if schemes[1] not in ("https", "http"):
        raise PermanentError(f"{host(url)}: it redirects to something that is no web address")
    if schemes == ("https", "http"):
        raise PermanentError(f"{host(url)}: it redirects from https to http ({host(following)})")
    return following


def _token(place: Place) -> str | None:
    if not place.credential:
        return None
    try:
        token = Path(place.credential).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None  # without it public files can still be had; refusals say what is missing
    return token if token.isprintable() and " " not in token else None


def _explained(url: str, error: Exception, now: float) -> TransientError | PermanentError:
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.InvalidURL):
        return PermanentError(f"{host(url)}: not a URL that can be fetched")
    refused = certificate(error)
    return TransientError(f"{host(url)}: {tls.refused(refused, now) if refused else words(error)}")
