"""HTTP clients that talk to one attested appliance and to nobody else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from hal.attest.connection import attested_context
from hal.errors import HalError

if TYPE_CHECKING:
    import httpx

CLEAR = "an attested client speaks https only: nothing vouches for the other end of plain HTTP"
PROXY = "an attested client connects by itself, not through a proxy"


class _Connection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.is_verified = True  # by its key, in the handshake


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class AttestedAdapter(HTTPAdapter):
    """A transport of requests whose every connection has the attested key."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> Any:
        """Where to connect to; the context judges certificates, whatever `verify` and the environment say."""
        where, _ = super().build_connection_pool_key_attributes(request, False, cert)
        return dict(where), {"cert_reqs": "CERT_NONE"}

    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: Any) -> None:
        """Nothing to do: the context judges."""

    def proxy_manager_for(self, proxy: str, **options: Any) -> NoReturn:
        raise requests.exceptions.InvalidProxyURL(PROXY)


class _Refusing(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> NoReturn:
        raise requests.exceptions.InvalidSchema(CLEAR)


def requests_session(key_sha256: bytes) -> requests.Session:
    """A session of requests for the appliance with this key; it takes no proxies from the environment."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", AttestedAdapter(attested_context(key_sha256)))
    session.mount("http://", _Refusing())
    return session


def httpx_client(key_sha256: bytes, options: Mapping[str, Any]) -> httpx.Client:
    """A client of httpx for the appliance with this key; `options` are its own, as `timeout`."""
    httpx = _httpx()

    class Refusing(httpx.BaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> NoReturn:
            raise httpx.UnsupportedProtocol(CLEAR)

    return httpx.Client(  # type: ignore[no-any-return]
        **_checked(options),
        verify=attested_context(key_sha256),
        trust_env=False,
        mounts={"http://": Refusing()},
    )


def httpx_async_client(key_sha256: bytes, options: Mapping[str, Any]) -> httpx.AsyncClient:
    """As `httpx_client`, for asyncio."""
    httpx = _httpx()

    class Refusing(httpx.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> NoReturn:
            raise httpx.UnsupportedProtocol(CLEAR)

    return httpx.AsyncClient(  # type: ignore[no-any-return]
        **_checked(options),
        verify=attested_context(key_sha256),
        trust_env=False,
        mounts={"http://": Refusing()},
    )


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    forbidden = {"verify", "trust_env", "mounts", "transport", "proxy", "cert"} & set(options)
    if forbidden:
        raise HalError(f"an attested client chooses {', '.join(sorted(forbidden))} itself")
    return dict(options)


def _httpx() -> Any:
    """httpx, or its successor httpx2, which newer `openai` packages bring; they have the same form."""
    for name in ("httpx", "httpx2"):
        with suppress(ImportError):
            return import_module(name)
    raise HalError("neither httpx nor httpx2 is installed", "pip install httpx")
