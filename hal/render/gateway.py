"""The gateway's files: HAProxy's configuration and all that it reads.

What goes where is in templates/haproxy.cfg.j2; refusals.py has the answers, guard.py the tokens, upstream.py
what lies elsewhere.
"""

from __future__ import annotations

from hal.render import attestor, guard
from hal.render.files import PROGRAM, RenderedFile, text
from hal.render.refusals import BY_HAPROXY, OLLAMA, OPENAI, REFUSALS, WHY, not_ready, too_large
from hal.render.selector import ADMIN_SOCKET, BACKEND, HOPELESS, METRICS_SOCKET, SERVING, STATUS_SOCKET
from hal.render.upstream import Target, Upstream, guardrails, local_address, targets, upstream
from hal.spec.loading import LoadedSpec
from hal.spec.remotes import remotes
from hal.spec.routes import haproxy_lines, unrouted

DIRECTORY = "/etc/hal/gateway"
KEY = "/run/hal/gateway/tls.pem"
"""The gateway's own key and certificate for TLS, made at boot; in memory."""

CERTIFICATE = "/run/hal/gateway/certificate.pem"
"""The certificate alone, for the attestor: evidence binds its key."""

MOST_CONNECTIONS = 4000
"""Of clients, all together: streams and those that wait."""

USUAL = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
"""Paths without anything that the rules for paths look for."""

MAKE_KEY = "/usr/lib/hal/gateway-key"

SERVE = "/usr/lib/hal/gateway"
"""What an init script starts: the key first, then HAProxy."""

CREDENTIALS = {"systemd": "/run/credentials/hal-gateway.service", "sysv": "/run/hal/credentials"}
"""Where the keys of endpoints elsewhere lie: each in a file of its own."""

NAMED = (
    *("400", "401", "403-domain", "403-guardrails", "404", "404-ollama", "405", "411", "413"),
    *("429-concurrency", "503", "503-hopeless", "503-queue"),
)
"""Refusals that the rules of the gateway come to."""

TOWARDS_ENGINES = """\
    # The engine's own idea of which web pages may call it is not the gateway's.
    http-response del-header Access-Control-Allow-Origin
    http-response del-header Server
    http-response del-header {why}
    # Engines that check which host was meant, or which page asks, know neither the appliance nor its users.
    http-request set-header Host localhost
    http-request del-header Origin"""


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """HAProxy's configuration with all it reads."""
    elsewhere = [upstream(loaded, remote) for remote in remotes(loaded)]
    routed = targets(loaded)
    found = {
        f"{DIRECTORY}/haproxy.cfg": configuration(loaded, elsewhere, routed),
        f"{DIRECTORY}/wait.lua": text("wait.lua", loaded),
        f"{DIRECTORY}/tokens.map": text(
            "tokens.map",
            loaded,
            lines=[guard.token_line(loaded.spec.gateway, token) for token in loaded.spec.gateway.tokens],
        ),
        f"{DIRECTORY}/scopes.map": text("scopes.map", loaded, lines=guard.scope_lines(loaded.spec.gateway)),
    }
    if credentials(loaded):
        found[f"{DIRECTORY}/credentials.lua"] = text("credentials.lua", loaded)
    if loaded.spec.tls:
        found[MAKE_KEY] = RenderedFile(
            text("gateway-key", loaded, key=KEY, certificate=CERTIFICATE).content, PROGRAM
        )
        if loaded.spec.init == "sysv":
            found[SERVE] = RenderedFile(text("gateway-start", loaded, make_key=MAKE_KEY).content, PROGRAM)
    for remote in remotes(loaded):
        if remote.ca is not None:
            found[remote.certificates] = RenderedFile(remote.ca.read_text())
    refusals = REFUSALS | {"413": too_large(loaded.spec.gateway.limits.body)}
    refusals |= {f"to-{target.name}": not_ready(target.name) for target in routed}
    for name, refusal in refusals.items():
        found[f"{DIRECTORY}/errors/{name}.http"] = RenderedFile(refusal.answer())
        found[f"{DIRECTORY}/errors/ollama/{name}.http"] = RenderedFile(refusal.answer(OLLAMA))
    return found


def credentials(loaded: LoadedSpec) -> tuple[str, ...]:
    """The names of the credentials that the gateway needs, each once, in order."""
    return tuple(sorted({remote.credential for remote in remotes(loaded) if remote.credential}))


def configuration(loaded: LoadedSpec, elsewhere: list[Upstream], routed: list[Target]) -> RenderedFile:
    """HAProxy's configuration."""
    spec = loaded.spec
    ollamas = [engine.name for engine in loaded.engines if "ollama" in engine.dialects]
    local = [(engine.name, local_address(loaded, engine)) for engine in loaded.engines]
    remote = [
        (engine.name, f"unix@{place.socket}")
        for engine in loaded.remote_engines
        for place in elsewhere
        if place.name == engine.name
    ]
    rate, concurrency = guard.address_limits(spec.gateway)
    guarded = bool(spec.gateway.tokens) or spec.variant == "production"
    limited = not guarded and bool(rate or concurrency)
    # Guardrails must see every chat; limits by address count every request.
    detour = limited or guardrails(loaded) is not None
    straight_paths, routed_tests = ([], []) if detour else unrouted(loaded, "POST", USUAL)
    return text(
        "haproxy.cfg",
        loaded,
        directory=DIRECTORY,
        admin_socket=ADMIN_SOCKET,
        status_socket=STATUS_SOCKET,
        metrics_socket=METRICS_SOCKET,
        attestor_socket=attestor.SOCKET,
        questions=attestor.QUESTIONS,
        serving=SERVING,
        hopeless=HOPELESS,
        backend=BACKEND,
        servers=local + remote,
        targets=routed,
        remotes=elsewhere,
        resolved=any(place.by_name for place in elsewhere),
        routes=haproxy_lines(loaded),
        usual=" ".join(USUAL),
        straight_paths=" ".join(straight_paths),
        routed_tests=routed_tests,
        # So many digits are surely no length above the limit.
        small_digits=len(str(spec.gateway.limits.body)) - 1,
        ollamas=ollamas,
        # The `ollama` program asks for / to see whether a server is there.
        ollama_paths="/ /api" if ollamas else "/api",
        statuses=BY_HAPROXY,
        refusals=REFUSALS,
        named=NAMED,
        why=WHY,
        towards_engines=TOWARDS_ENGINES.format(why=WHY),
        rate_limited=[(shape, guard.rate_limited(shape)) for shape in (OLLAMA, OPENAI)],
        most_connections=MOST_CONNECTIONS,
        largest_body=spec.gateway.limits.body,
        guarded=guarded,
        limited=limited,
        address_rate=rate,
        address_concurrency=concurrency,
        credentials=credentials(loaded),
        credential_directory=CREDENTIALS[spec.init],
        guardrails=guardrails(loaded),
        chats=" ".join(guard.CHATS),
        plain_posts=" ".join(guard.PLAIN_POSTS),
        tls=f" ssl crt {KEY} alpn http/1.1" if spec.tls else "",
        # One is made each second (HAProxy waits so long before it asks the same server again).
        retries=max(1, spec.selector.wait),
    )
