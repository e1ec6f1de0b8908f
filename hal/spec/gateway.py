"""The gateway's part of an appliance file: tokens, limits, routes, remote endpoints, guardrails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from hal.documents.size import Size
from hal.documents.strict import EngineName, Line, Many, Matching, Sha256, Value
from hal.documents.wording import shown

MIB = 1 << 20

Port = Annotated[int, Field(ge=1, le=65535)]

NONE: Literal["none"] = "none"
"""What a limit is where there is none."""


def _limit(value: object) -> object:
    if value == NONE or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000):
        return value
    words = f"must be a whole number from 1 to 1000000, or none, not {shown(value)}"
    raise PydanticCustomError("limit", "{words}", {"words": words})


_LIMIT_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": 1_000_000}, {"type": "string", "const": NONE}]
}

Limit = Annotated[int | Literal["none"], BeforeValidator(_limit), WithJsonSchema(_LIMIT_SCHEMA)]
"""A number from 1, or `none`."""

TokenName = Annotated[str, Matching(r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", "letters, digits and any of . _ @ -")]

DOMAINS_TAKEN = ("v1", "api", "health", "metrics", "attestation")
"""First parts of paths that are the gateway's own: no domain can have their names."""

Domain = Annotated[
    str,
    Matching(
        rf"^(?!(?:{'|'.join(DOMAINS_TAKEN)})$)[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}$",
        "a domain, the first part of a path as in /finance/v1/: letters, digits, dots, hyphens and "
        f"underscores, and none of {', '.join(DOMAINS_TAKEN)}",
    ),
]

RouteName = Annotated[str, Matching(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "letters, digits and any of . _ -")]

HeaderName = Annotated[str, Matching(r"^[A-Za-z][A-Za-z0-9_-]{0,62}$", "the name of a header")]

HeaderPattern = Annotated[
    str,
    Matching(r"^[!-~]([ -~]{0,1022}[!-~])?$", "one line of ASCII without spaces at its ends"),
]
"""What a header's value is held against; `*` stands for any characters, none as well."""

_PATH = r"[A-Za-z0-9/._~!$&'()+,;=:@%-]"
Path = Annotated[
    str,
    Matching(rf"^/{_PATH}{{0,1022}}$", "a path that begins with /, in a URL's characters, without `*`"),
]
PathPattern = Annotated[
    str,
    Matching(
        rf"^/(?:{_PATH}|\*){{0,1022}}$", "a path that begins with /, in a URL's characters, and `*` for any"
    ),
]

CREDENTIAL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
CredentialName = Annotated[str, Matching(CREDENTIAL_NAME, "a credential's name: letters, digits and . _ -")]
"""A part of systemd's credential names (systemd.exec(5)) that is a file's name as well."""

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Token(Value):
    """A bearer token that the gateway accepts, known only by its digest."""

    name: TokenName = Field(description="who holds the token, for logs", max_length=63)
    sha256: Sha256 = Field(description="SHA-256 of the token, in hexadecimal")
    domains: Many[Domain] = Field(
        description="the only domains that it opens (`/finance/v1/…`); none given: everything", default=()
    )
    rate: Limit | None = Field(
        description="requests each minute, or none; default: `limits.rate`", default=None
    )
    concurrency: Limit | None = Field(
        description="requests at the same time, or none; default: `limits.concurrency`", default=None
    )


class Limits(Value):
    """What one client may ask of the gateway; a client is a token, or an address where there are none."""

    body: Size = Field(description="bytes of a request's body", default=32 * MIB)
    rate: Limit = Field(description="requests of each client per minute, or none", default=NONE)
    concurrency: Limit = Field(description="requests of each client at the same time, or none", default=NONE)


class Route(Value):
    """A rule that sends some requests to one engine or remote endpoint, whichever engine is active.

    All conditions that are given must hold.
    """

    name: RouteName | None = Field(description="what it is called in status and logs", default=None)
    priority: int = Field(
        description="rules of a higher one are looked at first", default=0, ge=-1_000_000, le=1_000_000
    )
    header: dict[HeaderName, HeaderPattern] = Field(
        description="headers and their values; `*` in a value stands for any characters", default={}
    )
    path: Path | None = Field(description="the whole path, without its domain", default=None)
    path_prefix: Path | None = Field(description="what the path begins with", default=None)
    path_pattern: PathPattern | None = Field(
        description="the path, where `*` stands for any characters, / as well", default=None
    )
    method: Method | None = Field(description="the HTTP method", default=None)
    domain: Domain | None = Field(description="the domain: the first part of /finance/v1/…", default=None)
    to: EngineName = Field(description="an engine of `engines`, or a name of `gateway.remotes`")


class RemoteEndpoint(Value):
    """An endpoint elsewhere that speaks OpenAI's API, for routes; as active engine: the engine `openai`."""

    name: EngineName = Field(description="its name, for routes and status")
    base_url: Line = Field(description="URL of its API, as https://api.example.com/v1", min_length=1)
    model: Line = Field(description="the model that it serves", min_length=1)
    orchestrator_model: Line | None = Field(
        description="the model for orchestration, for clients that ask; default: `model`", default=None
    )
    credential: CredentialName | None = Field(
        description="credential that holds its API key; default: no key is sent", default=None
    )
    ca: Line | None = Field(
        description="file with the certificates (PEM) that its own is verified with, relative to the spec; "
        "default: those of Debian's ca-certificates",
        default=None,
        min_length=1,
    )
    timeout: int = Field(description="seconds that it may say nothing", default=600, ge=1, le=86400)


class Guardrails(Value):
    """A service that looks at chat requests before the engine does."""

    url: Line = Field(description="its URL, up to what comes before /v1/chat/completions", min_length=1)
    port: Port = Field(description="port on loopback where it reaches the engine, past itself", default=7002)


class Gateway(Value):
    """The one listener that is reachable from outside."""

    port: Port = Field(description="port of the gateway, on every address", default=7001)
    tls: bool | None = Field(
        description="whether it speaks TLS, with a key made at boot; default: true in production, else false",
        default=None,
    )
    tokens: Many[Token] = Field(
        description="tokens that are accepted; none: a debug image asks for none", default=()
    )
    limits: Limits = Field(description="what one client may ask of it", default=Limits())
    routes: Many[Route] = Field(
        description="requests that go elsewhere than to the active engine", default=()
    )
    remotes: Many[RemoteEndpoint] = Field(description="endpoints elsewhere, for routes", default=())
    guardrails: Guardrails | None = Field(
        description="a service that chat requests pass through first", default=None
    )

    def rate(self, token: Token) -> int | None:
        """Requests per minute that a token may make; None: any number."""
        return bound(self.limits.rate if token.rate is None else token.rate)

    def concurrency(self, token: Token) -> int | None:
        """Requests that a token may have open; None: any number."""
        return bound(self.limits.concurrency if token.concurrency is None else token.concurrency)


def bound(limit: int | str) -> int | None:
    """A limit as a number; None where there is none."""
    return limit if isinstance(limit, int) else None


def tls(gateway: Gateway, variant: str) -> bool:
    """Whether the gateway speaks TLS."""
    return variant == "production" if gateway.tls is None else gateway.tls


CONDITIONS = ("header", "path", "path_prefix", "path_pattern", "method", "domain")
"""What a rule may ask of a request."""
