"""The endpoints elsewhere that an appliance talks to: the engine `openai`, and `gateway.remotes`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from hal.engines import RemoteEngine
    from hal.spec.gateway import RemoteEndpoint
    from hal.spec.loading import LoadedSpec
    from hal.spec.model import EngineChoice

CERTIFICATES = "/etc/hal/gateway/ca"
"""Where the certificates that a spec gives for its remote endpoints lie in the image."""

SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Those of Debian's ca-certificates."""

LOCALHOST = "localhost"
"""The one name that every appliance knows (/etc/hosts)."""

SOCKETS = "/run/hal/gateway"

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


@dataclass(frozen=True)
class Address:
    """Where a URL leads: `host` is a name or an IP address, `prefix` its path without a slash at its end.

    `version` is 4 or 6 for an IP address, and None for a name.
    """

    scheme: str
    host: str
    port: int
    prefix: str
    version: int | None
    loopback: bool

    @property
    def tls(self) -> bool:
        """Whether it is talked to over TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """What a request's `Host` header says: without the port where it is the scheme's own."""
        host = f"[{self.host}]" if self.version == 6 else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Host and port as HAProxy's `server` takes them."""
        return f"[{self.host}]:{self.port}" if self.version == 6 else f"{self.host}:{self.port}"


_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Remote:
    """An endpoint elsewhere. `engine` says that it is the engine `openai`, which may be the active one.

    `prefix` takes the place of `/v1` in requests' paths. `ca` is a file of the build host, None: Debian's
    certificates. `credential` names what holds its API key. `timeout` in seconds.
    """

    name: str
    base_url: str
    address: Address
    model: str
    orchestrator_model: str
    credential: str | None
    ca: Path | None
    timeout: int
    engine: bool = False

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self.address.scheme

    @property
    def host(self) -> str:
        """Its name, or its IP address without brackets."""
        return self.address.host

    @property
    def port(self) -> int:
        """Its TCP port."""
        return self.address.port

    @property
    def prefix(self) -> str:
        """The path that takes the place of `/v1`, without a slash at its end; may be empty."""
        return self.address.prefix

    @property
    def certificates(self) -> str:
        """The file of the image that its certificate is verified with."""
        return f"{CERTIFICATES}/{self.name}.pem" if self.ca is not None else SYSTEM_CERTIFICATES

    @property
    def socket(self) -> str:
        """The UNIX socket of the gateway's own listener for it."""
        return f"{SOCKETS}/remote-{self.name}.sock"


def remotes(loaded: LoadedSpec) -> tuple[Remote, ...]:
    """All endpoints elsewhere of a valid spec: the engine `openai` first, where it is one of the engines.

    The order is otherwise that of `gateway.remotes`.
    """
    folder = loaded.path.parent
    engines = [engine_remote(engine, loaded.choice(engine), folder) for engine in loaded.remote_engines]
    return (*engines, *(endpoint_remote(remote, folder) for remote in loaded.spec.gateway.remotes))


def engine_remote(engine: RemoteEngine, choice: EngineChoice, folder: Path) -> Remote:
    """An engine that runs elsewhere, with the settings that a spec gives it; `folder` is the spec's.

    Raises:
        ValueError: `base_url` is none.
    """
    values = {name: setting.default for name, setting in engine.settings.items()} | choice.settings
    return _remote(engine.name, values, folder, engine=True)


def endpoint_remote(endpoint: RemoteEndpoint, folder: Path) -> Remote:
    """One of `gateway.remotes`.

    Raises:
        ValueError: `base_url` is none.
    """
    return _remote(endpoint.name, endpoint.model_dump(), folder)


def _remote(name: str, values: Mapping[str, Any], folder: Path, *, engine: bool = False) -> Remote:
    model, url = str(values["model"]), str(values["base_url"])
    return Remote(
        name,
        url,
        parse_url(url),
        model,
        str(values["orchestrator_model"] or model),
        str(values["credential"]) if values["credential"] else None,
        folder / str(values["ca"]) if values["ca"] else None,
        int(values["timeout"]),
        engine,
    )


def parse_url(url: str) -> Address:
    """Where a URL of an API leads.

    Raises:
        ValueError: it is no such URL; the text says what is wrong with it and never repeats a password.
    """
    from ipaddress import ip_address  # few specs have an endpoint elsewhere

    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is no URL: its host or its port is malformed") from None
    if parts.scheme not in _PORTS:
        raise ValueError("must be a URL that begins with https:// (or http://, on loopback)")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password: an API key comes as a `credential`")
    if "?" in url or "#" in url:
        raise ValueError("must end with its path, without ? and #")
    if not host:
        raise ValueError("names no host")
    try:
        address = ip_address(host)
    except ValueError:
        address = None
        if _HOST.fullmatch(host) is None or re.fullmatch(r"[0-9.]+", host):
            raise ValueError("its host is neither a name nor an IP address") from None
    if _PATH.fullmatch(parts.path) is None or any(part in (".", "..") for part in parts.path.split("/")):
        raise ValueError("its path may have letters, digits and . _ ~ - between slashes")
    if port == 0:
        raise ValueError("its port is 0")
    return Address(
        parts.scheme,
        host,
        port or _PORTS[parts.scheme],
        parts.path.rstrip("/"),
        address.version if address is not None else None,
        address.is_loopback if address is not None else host == LOCALHOST,
    )
