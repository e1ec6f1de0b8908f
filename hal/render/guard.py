"""The guard's data: who may do what, as maps that HAProxy reads and the selector may replace while it runs.

tokens.map: SHA-256 of a token in capitals, as HAProxy's `hex` writes it, and its record,
`NAME:RATE:CONCURRENCY:SCOPE`. RATE is in requests per minute, 0 where a limit is none; SCOPE is `all`, or
`domains` where scopes.map has a line `NAME/DOMAIN 1` for each domain that the token opens.
"""

from __future__ import annotations

from hal.render.refusals import OLLAMA, OPENAI, RATE_LIMITED, Refusal
from hal.spec.gateway import bound
from hal.spec.loading import Gateway, Token

PLAIN_POSTS = (
    *("/v1/embeddings", "/v1/rerank", "/v1/score", "/v1/pooling", "/v1/classify", "/v1/moderations"),
    *("/v1/tokenize", "/v1/detokenize", "/v1/messages/count_tokens"),
    *("/api/embed", "/api/embeddings", "/api/show", "/api/pull", "/api/push", "/api/create", "/api/copy"),
)
"""What may be POSTed past the guardrails, as it makes no text; whatever else there is or will be may not."""

CHATS = ("/v1/chat/completions", "/api/chat")
"""What goes through the guardrails."""


def token_line(gateway: Gateway, token: Token) -> str:
    """A token's line of tokens.map."""
    rate, concurrency = gateway.rate(token) or 0, gateway.concurrency(token) or 0
    scope = "domains" if token.domains else "all"
    return f"{token.sha256.upper()} {token.name}:{rate}:{concurrency}:{scope}"


def scope_lines(gateway: Gateway) -> list[str]:
    """The lines of scopes.map."""
    return [f"{token.name}/{domain} 1" for token in gateway.tokens for domain in token.domains]


def address_limits(gateway: Gateway) -> tuple[int, int]:
    """Requests per minute and at the same time that an address may make where there are no tokens; 0: any."""
    return bound(gateway.limits.rate) or 0, bound(gateway.limits.concurrency) or 0


def rate_limited(shape: str) -> str:
    """The body of the answer whose Retry-After HAProxy computes, quoted for its configuration."""
    return quoted(RATE_LIMITED, shape)


def quoted(refusal: Refusal, shape: str) -> str:
    """A refusal's body in single quotes (configuration manual, chapter 2.2), which know no escape."""
    body = refusal.body(shape)
    assert "'" not in body, body
    assert shape in (OPENAI, OLLAMA)
    return f"'{body}'"
