"""What cannot work in the gateway's part of a spec: tokens, limits, routes, endpoints elsewhere, guardrails.

As in `hal.spec.check`, each check is a pure function of what was chosen, but for files that it must look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hal.documents.document import KeyPath, Problem
from hal.documents.size import format_size
from hal.engines import RemoteEngine
from hal.spec.chosen import Chosen, repeated
from hal.spec.gateway import CREDENTIAL_NAME
from hal.spec.model import EngineChoice
from hal.spec.remotes import Address, parse_url

KIB = 1 << 10
GIB = 1 << 30

LEAST_BODY, MOST_BODY = KIB, 4 * GIB

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of nothing, which one gets from a variable that is not set."""

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
MOST_CERTIFICATES = 1 << 20

CLEAR_HINT = "give an https:// URL; `ca` names the certificates that a private one is verified with"
DNS_HINT = "`network: {dns: [ADDRESS]}` gives the name servers; an IP address in the URL needs none"


def tokens(chosen: Chosen) -> Iterator[Problem]:
    """Names and digests that are there twice, and the digest of nothing."""
    found = chosen.spec.gateway.tokens
    yield from repeated(("gateway", "tokens"), "token", [token.name for token in found], "name")
    digests = [token.sha256 for token in found]
    for index, token in enumerate(found):
        path: KeyPath = ("gateway", "tokens", index)
        first = digests.index(token.sha256)
        if first < index and token.name != found[first].name:
            yield Problem((*path, "sha256"), f"is the token of {found[first].name} as well")
        if token.sha256 == EMPTY:
            yield Problem((*path, "sha256"), "is the digest of an empty text: nothing was hashed")
        yield from repeated((*path, "domains"), "domain", token.domains)


def limits(chosen: Chosen) -> Iterator[Problem]:
    """Bodies so small that no request has one, or so large that no limit is meant."""
    size = chosen.spec.gateway.limits.body
    if not LEAST_BODY <= size <= MOST_BODY:
        text = f"must be from {format_size(LEAST_BODY)} to {format_size(MOST_BODY)}, not {format_size(size)}"
        yield Problem(("gateway", "limits", "body"), text)


def routes(chosen: Chosen) -> Iterator[Problem]:
    """Rules that are in conflict, that nothing reaches, or that lead nowhere."""
    from hal.spec.routes import route_problems, routes_json, targets  # few specs have routes

    spec = chosen.spec
    if spec.gateway.routes:
        names = targets(spec.engines, spec.gateway.remotes)
        yield from route_problems(routes_json(spec.gateway.routes, chosen.route_lines, names))


def exclusive(chosen: Chosen) -> Iterator[Problem]:
    """One engine at a time, where there is only one."""
    if chosen.spec.selector.exclusive is True and len(chosen.engines) < 2:
        names = ", ".join(engine.name for _, _, engine in chosen.engines) or "none"
        text = f"needs two engines that run in the appliance, and there is {names}: leave it out"
        yield Problem(("selector", "exclusive"), text)


def remotes(chosen: Chosen) -> Iterator[Problem]:
    """Endpoints elsewhere: where they are, how they are talked to, and whether that is safe."""
    for index, choice, engine in chosen.remote_engines:
        yield from _remote_engine(chosen, ("engines", index), choice, engine)
    taken = [choice.name for choice in chosen.spec.engines]
    for index, remote in enumerate(chosen.spec.gateway.remotes):
        path: KeyPath = ("gateway", "remotes", index)
        if remote.name in taken:
            yield Problem((*path, "name"), f"{remote.name} is the name of an engine: give it another")
        yield from _url(chosen, (*path, "base_url"), remote.base_url)
        yield from _certificates(chosen, (*path, "ca"), remote.ca or "", remote.base_url)
    names = [remote.name for remote in chosen.spec.gateway.remotes]
    yield from repeated(("gateway", "remotes"), "remote", names, "name")


def _remote_engine(
    chosen: Chosen, path: KeyPath, choice: EngineChoice, engine: RemoteEngine
) -> Iterator[Problem]:
    for key in ("port", "version"):
        if getattr(choice, key) is not None:
            yield Problem((*path, key), f"{engine.name} runs elsewhere: its settings say where (`base_url`)")
    values = {name: setting.default for name, setting in engine.settings.items()} | choice.settings
    url, model, credential, ca = (values.get(key) for key in ("base_url", "model", "credential", "ca"))
    settings: KeyPath = (*path, "settings")
    if not url:
        text = f"is required: where {engine.name} is, as https://api.example.com/v1"
        yield Problem((*settings, "base_url"), text)
    elif isinstance(url, str):
        yield from _url(chosen, (*settings, "base_url"), url)
        if isinstance(ca, str):
            yield from _certificates(chosen, (*settings, "ca"), ca, url)
    if not model:
        yield Problem((*settings, "model"), f"is required: the model that {engine.name} serves")
    if isinstance(credential, str) and credential and not re.fullmatch(CREDENTIAL_NAME, credential):
        text = "must be a credential's name: letters, digits and . _ -; the key itself never stands in a spec"
        yield Problem((*settings, "credential"), text)


def guardrails(chosen: Chosen) -> Iterator[Problem]:
    """Where the guardrails are: here, or behind TLS."""
    asked = chosen.spec.gateway.guardrails
    if asked is None:
        return
    path: KeyPath = ("gateway", "guardrails", "url")
    try:
        address = parse_url(asked.url)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    yield from _reachable(chosen, path, address)
    if not address.tls and not address.loopback:
        text = "must be on loopback, or begin with https://: prompts would cross the network in clear"
        yield Problem(path, text, hint=CLEAR_HINT)
    if address.loopback and address.port == asked.port:
        yield Problem(path, f"port {asked.port} is where the guardrails reach the engine (`port`)")


def _url(chosen: Chosen, path: KeyPath, url: str) -> Iterator[Problem]:
    try:
        address = parse_url(url)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    yield from _reachable(chosen, path, address)
    if chosen.spec.variant == "production" and not address.tls and not address.loopback:
        text = (
            "http:// would send prompts and answers over the network in clear, and this is a production image"
        )
        yield Problem(path, text, hint=CLEAR_HINT)


def _reachable(chosen: Chosen, path: KeyPath, address: Address) -> Iterator[Problem]:
    gateway = chosen.spec.gateway
    if address.version is None and not address.loopback and not chosen.spec.network.dns:
        text = f"{address.host} is a name, and the appliance has no name server (`network.dns`)"
        yield Problem(path, text, hint=DNS_HINT)
    if address.loopback and address.port == gateway.port:
        yield Problem(path, f"port {gateway.port} on loopback is this appliance's own gateway")


def _certificates(chosen: Chosen, path: KeyPath, ca: str, url: str) -> Iterator[Problem]:
    """A file of certificates on this machine: there, and PEM."""
    if not ca:
        return
    if url.startswith("http://"):
        yield Problem(path, "certificates are for https://, and `base_url` begins with http://")
    file = chosen.directory / ca
    try:
        found = certificates_problem(file)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or "is no file name"
    if found:
        yield Problem(path, f"{file}: {found}")


def certificates_problem(file: Path) -> str | None:
    """Why a file cannot be what certificates are verified with; None: it can.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        raw = opened.read(MOST_CERTIFICATES + 1)
    if len(raw) > MOST_CERTIFICATES:
        return f"is larger than {format_size(MOST_CERTIFICATES)}: no list of certificates"
    text = raw.decode("ascii", errors="replace")
    if "PRIVATE KEY" in text:
        return "holds a private key, which has no place in an image: give the certificates alone"
    if CERTIFICATE.search(text) is None:
        return "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    return None
