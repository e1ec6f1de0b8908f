"""The gateway's part of appliance files: what is right, every way to be wrong, and the lines that tell it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.spec.loading import LoadedSpec, SpecError, parse_spec
from hal.spec.remotes import parse_url, remotes
from hal.spec.routes import haproxy_lines, loaded_json

HEAD = "appliance: {name: a, version: 1.0.0}\n"
LOCAL = "engines: [llamacpp]\nmodels: [smollm2-135m]\n"
SHA, OTHER = "a" * 64, "b" * 64
DEBUG = HEAD + LOCAL + "variant: debug\n"
DNS = "network: {dns: [192.0.2.53]}\n"
TOKEN = f"tokens: [{{name: a, sha256: {SHA}}}]"
PRODUCTION = HEAD + LOCAL + "variant: production\n" + DNS
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def gateway(text: str, *, head: str = DEBUG) -> str:
    """A spec whose part for the gateway stands on line 6 (in production on line 7)."""
    return f"{head}gateway:\n  {text}\n"


def elsewhere(settings: str, more: str = "") -> str:
    return HEAD + f"variant: debug\n{more}engines:\n  openai:\n    settings: {{{settings}}}\n"


def remote(url: str, more: str = "") -> str:
    return gateway(f'remotes: [{{name: far, base_url: "{url}", model: m{more}}}]')


CLEAR = "http:// would send prompts and answers over the network in clear, and this is a production image"
NAMELESS = "is a name, and the appliance has no name server (`network.dns`)"
SCHEME = "must be a URL that begins with https:// (or http://, on loopback)"
PASSWORD = "must not hold a user or a password: an API key comes as a `credential`"
LIMIT = "must be a whole number from 1 to 1000000, or none, not"
CERTIFICATES = "certificates are for https://, and `base_url` begins with http://"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NO_TWO = "needs two engines that run in the appliance, and there is llamacpp: leave it out"
PATH = "its path may have letters, digits and . _ ~ - between slashes"
URL_PATH = "must be a path that begins with /, in a URL's characters, without `*`"
DOMAIN = (
    "must be a domain, the first part of a path as in /finance/v1/: letters, digits, dots, hyphens and "
    "underscores, and none of v1, api, health, metrics, attestation"
)

TABLE: dict[str, tuple[str, list[str]]] = {
    # tokens
    "tokens of the same name": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}}}, {{name: a, sha256: {OTHER}}}]"),
        ["6: gateway.tokens[1].name: the token a is there twice"],
    ),
    "the same token twice": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}}}, {{name: b, sha256: {SHA}}}]"),
        ["6: gateway.tokens[1].sha256: is the token of a as well"],
    ),
    "the digest of nothing": (
        gateway(f"tokens: [{{name: a, sha256: {EMPTY}}}]"),
        ["6: gateway.tokens[0].sha256: is the digest of an empty text: nothing was hashed"],
    ),
    "a domain that is none": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}, domains: [a/b]}}]"),
        [f"6: gateway.tokens[0].domains[0]: {DOMAIN}"],
    ),
    "a domain that is the gateway's": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}, domains: [law, api]}}]"),
        [f"6: gateway.tokens[0].domains[1]: {DOMAIN}"],
    ),
    "a domain twice": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}, domains: [law, law]}}]"),
        ["6: gateway.tokens[0].domains[1]: the domain law is there twice"],
    ),
    "a rate that is none": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}, rate: 0}}]"),
        [f"6: gateway.tokens[0].rate: {LIMIT} 0"],
    ),
    "a concurrency that is none": (
        gateway(f"tokens: [{{name: a, sha256: {SHA}, concurrency: true}}]"),
        [f"6: gateway.tokens[0].concurrency: {LIMIT} true"],
    ),
    # limits
    "limits": (
        gateway("limits: {rate: 10/s, concurrency: -1, bdoy: 1M}"),
        [
            "6: gateway.limits.bdoy: unknown key (did you mean body?)",
            f"6: gateway.limits.concurrency: {LIMIT} -1",
            f"6: gateway.limits.rate: {LIMIT} '10/s'",
        ],
    ),
    "no body": (
        gateway("limits: {body: 10}"),
        ["6: gateway.limits.body: must be from 1K to 4G, not 10"],
    ),
    "any body": (gateway("limits: {body: 5G}"), ["6: gateway.limits.body: must be from 1K to 4G, not 5G"]),
    # selector
    "exclusive with one engine": (
        DEBUG + "selector: {exclusive: true}\n",
        [f"5: selector.exclusive: {NO_TWO}"],
    ),
    "exclusive what": (
        DEBUG + "selector: {exclusive: sometimes}\n",
        ["5: selector.exclusive: must be auto, true or false, not 'sometimes'"],
    ),
    "a policy that is no engine": (
        DEBUG + "selector: {policy: vllm}\n",
        ["5: selector.policy: the engine vllm is not in `engines`; it can be auto, llamacpp"],
    ),
    "waits": (
        DEBUG + "selector: {drain: -1, queue: 4000, wait: 1h}\n",
        [
            "5: selector.drain: must be at least 0, not -1",
            "5: selector.queue: must be at most 3500, not 4000",
            "5: selector.wait: must be a whole number, not '1h'",
        ],
    ),
    # openai
    "openai without settings": (
        HEAD + "engines: [openai]\n",
        [
            "2: engines[0].settings.base_url: is required: where openai is, as https://api.example.com/v1",
            "2: engines[0].settings.model: is required: the model that openai serves",
        ],
    ),
    "openai here": (
        HEAD + DNS + "engines: {openai: {port: 8000, settings: {base_url: 'https://a.b/v1', model: m}}}\n",
        ["3: engines.openai.port: openai runs elsewhere: its settings say where (`base_url`)"],
    ),
    "no URL": (
        elsewhere("base_url: api.example.com, model: m"),
        [f"5: engines.openai.settings.base_url: {SCHEME}"],
    ),
    "another scheme": (
        elsewhere("base_url: 'ftp://api.example.com', model: m"),
        [f"5: engines.openai.settings.base_url: {SCHEME}"],
    ),
    "a password": (
        elsewhere("base_url: 'https://me:pass@10.0.0.1/v1', model: m"),
        [f"5: engines.openai.settings.base_url: {PASSWORD}"],
    ),
    "a query": (
        elsewhere("base_url: 'https://10.0.0.1/v1?key=x', model: m"),
        ["5: engines.openai.settings.base_url: must end with its path, without ? and #"],
    ),
    "no host": (
        elsewhere("base_url: 'https:///v1', model: m"),
        ["5: engines.openai.settings.base_url: names no host"],
    ),
    "no port": (
        elsewhere("base_url: 'https://a:99999/v1', model: m"),
        ["5: engines.openai.settings.base_url: is no URL: its host or its port is malformed"],
    ),
    "half an address": (
        elsewhere("base_url: 'https://10.0.0/v1', model: m", DNS),
        ["6: engines.openai.settings.base_url: its host is neither a name nor an IP address"],
    ),
    "a path that leads up": (
        elsewhere("base_url: 'https://10.0.0.1/a/../v1', model: m"),
        [
            f"5: engines.openai.settings.base_url: {PATH}"
        ],
    ),
    "a name without a name server": (
        elsewhere("base_url: 'https://api.example.com/v1', model: m"),
        [f"5: engines.openai.settings.base_url: api.example.com {NAMELESS}"],
    ),
    "a key in the place of its name": (
        elsewhere("base_url: 'https://10.0.0.1/v1', model: m, credential: 'sk a/b'"),
        [
            ("5: engines.openai.settings.credential: must be a credential's name: letters, digits and . _ -; "
             "the key itself never stands in a spec")
        ],
    ),
    "the gateway itself": (
        elsewhere("base_url: 'http://127.0.0.1:7001/v1', model: m"),
        ["5: engines.openai.settings.base_url: port 7001 on loopback is this appliance's own gateway"],
    ),
    "unknown setting": (
        elsewhere("base_url: 'https://10.0.0.1/v1', modle: m"),
        [
            "5: engines.openai.settings.model: is required: the model that openai serves",
            "5: engines.openai.settings.modle: unknown key (did you mean model?)",
        ],
    ),
    "in clear": (
        gateway(
            f"{TOKEN}\n  remotes: [{{name: far, base_url: 'http://10.0.0.1/v1', model: m}}]", head=PRODUCTION
        ),
        [f"8: gateway.remotes[0].base_url: {CLEAR}"],
    ),
    "the engine in clear": (
        HEAD + "engines:\n  openai: {settings: {base_url: 'http://10.0.0.1/v1', model: m}}\n"
        f"gateway: {{{TOKEN}}}\n",
        [f"3: engines.openai.settings.base_url: {CLEAR}"],
    ),
    # remotes
    "no model": (
        gateway("remotes: [{name: far, base_url: 'https://10.0.0.1/v1'}]"),
        ["6: gateway.remotes[0].model: is required"],
    ),
    "remotes of the same name": (
        gateway(
            "remotes:\n  - &a {name: far, base_url: 'https://10.0.0.1/v1', model: m}\n".replace("&a ", "")
            + "  - {name: far, base_url: 'https://10.0.0.2/v1', model: m}"
        ),
        ["8: gateway.remotes[1].name: the remote far is there twice"],
    ),
    "a remote that is named as an engine": (
        gateway("remotes: [{name: llamacpp, base_url: 'https://10.0.0.1/v1', model: m}]"),
        ["6: gateway.remotes[0].name: llamacpp is the name of an engine: give it another"],
    ),
    "a remote by name": (
        remote("https://api.example.com/v1"),
        [f"6: gateway.remotes[0].base_url: api.example.com {NAMELESS}"],
    ),
    "a credential's name": (
        remote("https://10.0.0.1/v1", ", credential: ../key"),
        ["6: gateway.remotes[0].credential: must be a credential's name: letters, digits and . _ -"],
    ),
    "no file": (
        remote("https://10.0.0.1/v1", ", ca: none.pem"),
        ["6: gateway.remotes[0].ca: FOLDER/none.pem: No such file or directory"],
    ),
    "a folder": (
        remote("https://10.0.0.1/v1", ", ca: ."),
        ["6: gateway.remotes[0].ca: FOLDER: Is a directory"],
    ),
    "no certificate": (
        remote("https://10.0.0.1/v1", ", ca: text.pem"),
        [
            ("6: gateway.remotes[0].ca: FOLDER/text.pem: holds no certificate in PEM form "
             "(-----BEGIN CERTIFICATE-----)")
        ],
    ),
    "a key beside the certificate": (
        remote("https://10.0.0.1/v1", ", ca: key.pem"),
        [
            ("6: gateway.remotes[0].ca: FOLDER/key.pem: holds a private key, which has no place in an image: "
             "give the certificates alone")
        ],
    ),
    "certificates for http": (
        remote("http://10.0.0.1/v1", ", ca: ca.pem"),
        [f"6: gateway.remotes[0].ca: {CERTIFICATES}"],
    ),
    "the engine's certificates": (
        elsewhere("base_url: 'https://10.0.0.1/v1', model: m, ca: none.pem"),
        ["5: engines.openai.settings.ca: FOLDER/none.pem: No such file or directory"],
    ),
    # guardrails
    "guardrails in clear": (
        gateway("guardrails: {url: 'http://10.0.0.1:8000'}"),
        [
            ("6: gateway.guardrails.url: must be on loopback, or begin with https://: "
                "prompts would cross the network in clear")
        ],
    ),
    "guardrails by name": (
        gateway("guardrails: {url: 'https://rails.example'}"),
        [f"6: gateway.guardrails.url: rails.example {NAMELESS}"],
    ),
    "guardrails without a URL": (
        gateway("guardrails: {url: 'rails:8000'}"),
        [f"6: gateway.guardrails.url: {SCHEME}"],
    ),
    "guardrails that ask themselves": (
        gateway("guardrails: {url: 'http://127.0.0.1:7002'}"),
        ["6: gateway.guardrails.url: port 7002 is where the guardrails reach the engine (`port`)"],
    ),
    "guardrails on the engine's port": (
        gateway("guardrails: {url: 'http://127.0.0.1:9000', port: 8080}"),
        [
            "2: engines[0].port: llamacpp and the guardrails' listener cannot both listen on port 8080",
        ],
    ),
    "guardrails on the gateway's port": (
        gateway("guardrails: {url: 'http://127.0.0.1:9000', port: 7001}"),
        ["6: gateway.guardrails.port: the guardrails and the gateway cannot both listen on port 7001"],
    ),
    # routes
    "a route to nowhere": (
        gateway("routes:\n    - path: /v1/x\n      to: lamacpp"),
        [
            ("8: gateway.routes[0].to: there is no engine or remote 'lamacpp' (did you mean llamacpp?); "
             "it can be llamacpp")
        ],
    ),
    "a route without conditions": (
        gateway("routes: [{to: llamacpp}]"),
        [
            ("6: gateway.routes[0]: asks for nothing and would take every request: `selector.policy` says "
             "which engine serves")
        ],
    ),
    "routes in conflict": (
        gateway(
            "remotes: [{name: far, base_url: 'https://10.0.0.1/v1', model: m}]\n"
            "  routes:\n    - {path_prefix: /v1/emb, to: llamacpp}\n    - method: POST\n      to: far"
        ),
        [
            ("9: gateway.routes[1].priority: is in conflict with the rule of line 8, which goes to llamacpp: "
             "both take POST /v1/embeddings; give one of them a higher priority")
        ],
    ),
    "a route that is never reached": (
        gateway(
            "routes:\n    - {path: /v1/embeddings, to: llamacpp}\n"
            "    - {path_prefix: /v1/, priority: 1, to: llamacpp}"
        ),
        ["7: gateway.routes[0]: is never reached: that of line 8 takes every request that it would"],
    ),
    "values of routes": (
        gateway(
            "routes:\n    - {path: v1, method: post, domain: api, to: llamacpp}\n"
            "    - {header: {'a b': c}, to: llamacpp}\n"
            "    - {header: {a: ' c'}, path_prefix: /*, to: llamacpp}\n"
            "    - {header: {a: \"c\\nd\"}, to: llamacpp}"
        ),
        [
            f"7: gateway.routes[0].domain: {DOMAIN}",
            ("7: gateway.routes[0].method: must be one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, "
             "not 'post'"),
            f"7: gateway.routes[0].path: {URL_PATH}",
            "8: gateway.routes[1].header.a b: must be the name of a header",
            "9: gateway.routes[2].header.a: must be one line of ASCII without spaces at its ends",
            f"9: gateway.routes[2].path_prefix: {URL_PATH}",
            "10: gateway.routes[3].header.a: must be one line of ASCII without spaces at its ends",
        ],
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(CERTIFICATE + "-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "text.pem").write_text("hello\n")
    return tmp_path


def parsed(text: str, folder: Path = Path()) -> LoadedSpec:
    return parse_spec(text, folder / "spec.yaml")


@pytest.mark.parametrize("name", TABLE)
def test_every_mistake_has_its_line_and_its_key(name: str, folder: Path) -> None:
    text, expected = TABLE[name]
    with pytest.raises(SpecError) as raised:
        parsed(text, folder)
    told = [
        line.removeprefix(f"{folder}/spec.yaml:").replace(str(folder), "FOLDER")
        for line in raised.value.details
    ]
    assert told == expected


def test_a_mistake_in_clear_says_how_to_mend_it(folder: Path) -> None:
    with pytest.raises(SpecError) as raised:
        parsed(TABLE["in clear"][0], folder)
    assert raised.value.hint is not None and "https:// URL" in raised.value.hint


def test_one_mistake_of_a_remote_is_not_told_by_the_routes_too(folder: Path) -> None:
    with pytest.raises(SpecError) as raised:
        parsed(gateway("remotes: [{name: FAR, model: m}]\n  routes: [{path: /v1/x, to: far}]"), folder)
    assert [line.split(": ")[1] for line in raised.value.details] == [
        "gateway.remotes[0].base_url",
        "gateway.remotes[0].name",
    ]


def test_remotes_in_their_order(folder: Path) -> None:
    loaded = parsed(
        HEAD
        + DNS
        + "engines:\n  llamacpp:\n  openai:\n    settings: {base_url: 'https://api.example.com/openai/v1/', "
        "model: m, orchestrator_model: o, credential: key, ca: ca.pem, timeout: 30}\nmodels: [smollm2-135m]\n"
        "gateway:\n  remotes: [{name: far, base_url: 'http://[::1]:8080', model: n}]\n",
        folder,
    )
    engine, far = remotes(loaded)
    assert (engine.name, engine.engine, engine.host, engine.port) == ("openai", True, "api.example.com", 443)
    assert (engine.prefix, engine.address.authority) == ("/openai/v1", "api.example.com")
    assert (engine.model, engine.orchestrator_model, engine.timeout) == ("m", "o", 30)
    assert (engine.credential, engine.ca, engine.scheme) == ("key", folder / "ca.pem", "https")
    assert engine.certificates == "/etc/hal/gateway/ca/openai.pem"
    assert engine.socket == "/run/hal/gateway/remote-openai.sock"
    assert (far.engine, far.prefix, far.orchestrator_model, far.ca, far.credential) == (
        False,
        "",
        "n",
        None,
        None,
    )
    assert (far.address.authority, far.address.endpoint, far.timeout) == ("[::1]:8080", "[::1]:8080", 600)
    assert far.certificates == "/etc/ssl/certs/ca-certificates.crt"
    assert [engine.name for engine in loaded.engines] == ["llamacpp"]
    assert [engine.name for engine in loaded.remote_engines] == ["openai"]


def test_an_appliance_with_nothing_but_an_endpoint_elsewhere() -> None:
    loaded = parsed(elsewhere("base_url: 'https://10.0.0.1/v1', model: m"))
    assert loaded.engines == ()
    assert [remote.base_url for remote in remotes(loaded)] == ["https://10.0.0.1/v1"]


def test_tls_and_limits_by_default_and_by_wish() -> None:
    production = parsed(gateway(TOKEN, head=PRODUCTION)).spec
    assert production.tls
    assert not parsed(gateway(f"{TOKEN}\n  tls: false", head=PRODUCTION)).spec.tls
    assert not parsed(DEBUG).spec.tls
    assert parsed(gateway("tls: true")).spec.tls
    spec = parsed(
        gateway(
            f"limits: {{rate: 60, concurrency: 4}}\n  tokens: [{{name: a, sha256: {SHA}}}, "
            f"{{name: b, sha256: {OTHER}, rate: none, concurrency: 9, domains: [law]}}]"
        )
    ).spec.gateway
    one, two = spec.tokens
    assert (spec.rate(one), spec.concurrency(one)) == (60, 4)
    assert (spec.rate(two), spec.concurrency(two)) == (None, 9)
    assert two.domains == ("law",)


def test_routes_carry_the_lines_of_the_spec() -> None:
    loaded = parsed(
        gateway("routes:\n    - path: /v1/x\n      to: llamacpp\n    - {path: /v1/y, to: llamacpp}")
    )
    assert loaded.route_lines == (7, 9)
    assert '"line": 9' in loaded_json(loaded)
    assert [line for line in haproxy_lines(loaded) if line.startswith("#")] == [
        "# line 7 of the spec",
        "# line 9 of the spec",
    ]
    assert haproxy_lines(parsed(DEBUG)) == ()


@given(
    st.one_of(
        st.text(max_size=40),
        st.builds("http{}://{}".format, st.sampled_from(["", "s"]), st.text(max_size=30)),
    )
)
def test_any_text_is_an_address_or_one_line_of_what_is_wrong(text: str) -> None:
    try:
        address = parse_url(text)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    for part in (address.host, address.prefix, address.endpoint, address.authority):
        assert part.isascii() and part.isprintable() and not set(part) & set(" '\"\\#{}$%")
    assert 0 < address.port < 65536


@pytest.mark.parametrize("secret", ["hunter2", "p%40ss"])
def test_a_password_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="user or a password") as raised:
        parse_url(f"https://me:{secret}@example.com/v1")
    assert secret not in str(raised.value)
