"""What HAProxy is told of servers: endpoints elsewhere, the guardrails, and what routes lead to."""

from __future__ import annotations

from dataclasses import dataclass

from hal.engines import Engine
from hal.spec.loading import LoadedSpec
from hal.spec.remotes import SYSTEM_CERTIFICATES, Address, Remote, parse_url, remotes


@dataclass(frozen=True)
class Upstream:
    """A server elsewhere, in HAProxy's words.

    `endpoint` is its address and port, `options` what follows them, `authority` what `Host` says; `prefix`
    comes before the path. `socket` is the listener that leads to it. `timeout` in seconds. `reasons` are
    words for a failure and the condition that they are true under; the last one that holds is told.
    """

    name: str
    endpoint: str
    options: str
    authority: str
    prefix: str
    by_name: bool
    socket: str = ""
    timeout: int = 600
    credential: str | None = None
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Target:
    """What routes lead to: its name, its address in HAProxy's words, and what follows there."""

    name: str
    address: str
    state: str


def upstream(loaded: LoadedSpec, remote: Remote) -> Upstream:
    """A remote endpoint."""
    return Upstream(
        remote.name,
        endpoint(remote.address),
        options(remote.address, remote.certificates),
        remote.address.authority,
        remote.prefix,
        by_name(remote.address),
        remote.socket,
        remote.timeout,
        remote.credential,
        reasons(remote),
    )


def reasons(remote: Remote) -> tuple[tuple[str, str], ...]:
    """Why an endpoint does not answer, as far as HAProxy knows: words, and the condition for them."""
    found = [
        ("it does not answer", "{ status 502:504 }"),
        ("no answer came in time", "{ status 504 }"),
        ("the connection failed: %[bc_err_str]", "{ bc_err gt 0 }"),
    ]
    if remote.address.tls:
        # HAProxy calls all of that a failed handshake.
        found.append(
            ("the connection was refused or broken off before TLS", "{ bc_err gt 0 } !{ ssl_bc_err gt 0 }")
        )
        found.append(("TLS: %[ssl_bc_err_str]", "{ ssl_bc_err gt 0 }"))
    if by_name(remote.address):
        found.append((f"the name {remote.host} does not resolve", f"{{ nbsrv(remote-{remote.name}) eq 0 }}"))
    if remote.credential:
        words = f"the credential {remote.credential} is missing"
        found.append((words, "{ var(txn.keyless) -m found }"))
    return tuple(found)


def guardrails(loaded: LoadedSpec) -> Upstream | None:
    """The guardrails' service; None: there is none."""
    chosen = loaded.spec.gateway.guardrails
    if chosen is None:
        return None
    address = parse_url(chosen.url)
    return Upstream(
        "guardrails",
        endpoint(address),
        options(address, SYSTEM_CERTIFICATES),
        address.authority,
        address.prefix,
        by_name(address),
    )


def endpoint(address: Address) -> str:
    """Address and port; `localhost` is never looked up."""
    return f"127.0.0.1:{address.port}" if address.host == "localhost" else address.endpoint


def by_name(address: Address) -> bool:
    """Whether name servers are asked for it."""
    return address.version is None and address.host != "localhost"


def options(address: Address, certificates: str) -> str:
    """What follows the address of a server: TLS with a certificate that is verified, and name resolution."""
    found = ""
    if address.tls:
        # Server name indication is for names only (RFC 6066, section 3).
        name = "" if address.version is not None else f" sni str({address.host})"
        found += f" ssl verify required verifyhost {address.host} ca-file {certificates}{name} alpn http/1.1"
    if by_name(address):
        # HAProxy starts without the network, and asks again and again.
        found += " resolvers dns init-addr none"
    return found


def local_address(loaded: LoadedSpec, engine: Engine) -> str:
    """Where an engine of this machine listens, and how connections to it are held, in HAProxy's words."""
    options = "" if engine.keeps_connections else " pool-max-conn 0"
    return f"127.0.0.1:{loaded.port(engine)}{options}"


def targets(loaded: LoadedSpec) -> list[Target]:
    """What routes lead to, each once.

    The selector makes engines ready; an endpoint that is only routed to is always asked.
    """
    names = {route.to for route in loaded.spec.gateway.routes}
    found = [
        Target(engine.name, local_address(loaded, engine), " disabled")
        for engine in loaded.engines
        if engine.name in names
    ]
    found += [
        Target(remote.name, f"unix@{remote.socket}", " disabled" if remote.engine else "")
        for remote in remotes(loaded)
        if remote.name in names
    ]
    return found
