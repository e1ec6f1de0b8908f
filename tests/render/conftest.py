"""Rendered appliances, and the programs that judge them: from hal's tools tree, or the host's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hal.image.root import write_files
from hal.packs.reference import PackRef
from hal.render import Rendered, render
from hal.run import Completed
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, load_spec, parse_spec
from hal.spec.remotes import SYSTEM_CERTIFICATES

PACKS = (
    PackRef("engine", "llamacpp", "e-llamacpp-0123456789abcdef", 9, "aa" * 32, "bb" * 32, "/opt/llamacpp"),
    PackRef(
        "model", "smollm2-135m", "m-smollm2-135m-0123", 8, "aa" * 32, "cc" * 32, "/srv/models/smollm2-135m"
    ),
)

PRODUCTION = """\
appliance: {name: prod, version: 2.0.0}
variant: production
engines:
  - llamacpp: {port: 8099, settings: {threads: 3}}
models: [smollm2-135m]
gateway:
  port: 7443
  tokens: [{name: alice, sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]
network: {dhcp: false, address: 192.0.2.10/24, gateway: 192.0.2.1, dns: [192.0.2.53]}
"""

Tool = Callable[..., Completed]


@pytest.fixture(scope="session")
def starter() -> LoadedSpec:
    return load_spec("profiles/starter")


@pytest.fixture(scope="session")
def production() -> LoadedSpec:
    return parse_spec(PRODUCTION, Path("prod.yaml"))


@pytest.fixture(scope="session", params=["starter", "production"])
def loaded(request: pytest.FixtureRequest) -> LoadedSpec:
    found: LoadedSpec = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def files(loaded: LoadedSpec) -> Rendered:
    return render(loaded, PACKS)


@pytest.fixture(scope="session")
def tool(tools: Sandbox) -> Tool:
    """Runs a program of the tools tree; it sees `directory`."""

    def run_tool(argv: Sequence[str], directory: Path) -> Completed:
        return tools.run(argv, writable=[directory], check=False)

    return run_tool


def checked_haproxy(rendered: Rendered, directory: Path, tool: Tool) -> Completed:
    """HAProxy's word on its configuration, with all paths below `directory` and the key for TLS made."""
    write_files(rendered, directory)
    config, make_key = directory / "etc/hal/gateway/haproxy.cfg", directory / "usr/lib/hal/gateway-key"
    for path in (config, make_key):
        if path.exists():
            text = path.read_text().replace("/run/hal/gateway", str(directory))
            # The tools tree is never configured, so that it has no bundle of all certificates.
            text = text.replace(SYSTEM_CERTIFICATES, f"{directory}/ca.pem")
            path.write_text(text.replace("/etc/hal", f"{directory}/etc/hal").replace("/run/hal", "/tmp"))
    new = ["openssl", "req", "-x509", "-quiet", "-nodes", "-newkey", "ed25519", "-subj", "/CN=ca"]
    assert tool([*new, "-keyout", "/dev/null", "-out", f"{directory}/ca.pem"], directory).returncode == 0
    if make_key.exists():
        assert tool(["sh", str(make_key)], directory).returncode == 0
    return tool(["haproxy", "-c", "-f", str(config)], directory)
