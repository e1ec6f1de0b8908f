"""Every file of a remote engine, hal's and one that nobody has heard of, gets what it needs and no more.

A new one is covered by adding its YAML.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hal.build import package_sets
from hal.engines import DIRECTORY, RemoteEngine, available_engines, load_any_engine, load_engine
from hal.image.root import write_files
from hal.render import Rendered, render
from hal.run import Completed
from hal.spec.loading import LoadedSpec, SpecError, parse_spec
from hal.spec.remotes import SYSTEM_CERTIFICATES, remotes

Tool = Callable[..., Completed]

REMOTE = tuple(name for name in available_engines() if isinstance(load_any_engine(name), RemoteEngine))

SPEC = """\
appliance: {name: one, version: '1'}
variant: debug
init: INIT
engines:
  - llamacpp
  - NAME: {settings: {base_url: "https://10.0.0.1:8443/their/v1", model: theirs, credential: key}}
models: [smollm2-135m]
gateway:
  routes: [{domain: law, to: NAME}]
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hal's engine files, and a copy of openai's under another name."""
    folder = tmp_path_factory.mktemp("engines")
    for file in DIRECTORY.glob("*.yaml"):
        shutil.copy(file, folder)
    text = (folder / "openai.yaml").read_text()
    (folder / "elsewhere.yaml").write_text(text.replace("name: openai", "name: elsewhere"))
    return folder


def spec_of(name: str, init: str, plugins: Path) -> LoadedSpec:
    text = SPEC.replace("NAME", name).replace("INIT", init)
    return parse_spec(text, Path("one.yaml"), engines=plugins)


@pytest.fixture(scope="module", params=[*REMOTE, "elsewhere"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["systemd", "sysv"])
def loaded(request: pytest.FixtureRequest, name: str, plugins: Path) -> LoadedSpec:
    return spec_of(name, request.param, plugins)


@pytest.fixture(scope="module")
def files(loaded: LoadedSpec) -> Rendered:
    return render(loaded, [])


def test_there_is_one() -> None:
    assert "openai" in REMOTE


def test_nothing_of_it_runs_here(name: str, loaded: LoadedSpec, files: Rendered) -> None:
    assert [engine.name for engine in loaded.engines] == ["llamacpp"]
    assert not [path for path in files if f"/{name}." in path or path.endswith(f"S96{name}")]
    assert f" {name} " not in files["/usr/lib/sysusers.d/hal.conf"].content
    assert package_sets(loaded) == package_sets(spec_of("openai", loaded.spec.init, DIRECTORY))
    with pytest.raises(SpecError, match="runs elsewhere"):
        load_engine("openai")


def test_the_gateway_reaches_it_and_the_selector_knows_it(
    name: str, loaded: LoadedSpec, files: Rendered
) -> None:
    (remote,) = remotes(loaded)
    gateway = files["/etc/hal/gateway/haproxy.cfg"].content
    assert f"    server {name} unix@{remote.socket} disabled\n" in gateway
    assert f"    http-request set-var(txn.to,ifnotexists) str({name}) if route_0_0\n" in gateway
    assert f"backend to-{name}\n" in gateway
    entries = {
        entry["name"]: entry for entry in json.loads(files["/etc/hal/selector.json"].content)["engines"]
    }
    entry = entries[name]
    assert list(entries) == ["llamacpp", name]
    assert (entry["managed"], entry["host"], entry["port"]) == (False, f"unix:{remote.socket}", 0)
    assert (entry["server"], entry["model"]) == (f"engines/{name}", "theirs")
    assert entry["health_path"] == entry["models_path"] == "/v1/models"
    assert entry["base_url"] == "https://10.0.0.1:8443/their/v1"


def test_its_routes_are_in_the_image(name: str, files: Rendered) -> None:
    data = json.loads(files["/etc/hal/routes.json"].content)
    assert data["targets"] == ["llamacpp", name]
    assert data["rules"] == [{"line": 9, "priority": 0, "domain": "law", "to": name}]


def test_haproxy_accepts_it(files: Rendered, tool: Tool, tmp_path: Path) -> None:
    write_files({path: file for path, file in files.items() if path.startswith("/etc/hal/")}, tmp_path)
    config = tmp_path / "etc/hal/gateway/haproxy.cfg"
    authority = tmp_path / "authority.pem"
    asked = (
        "-x509",
        "-quiet",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=a",
    )
    made = tool(["openssl", "req", *asked, "-keyout", f"{tmp_path}/key", "-out", str(authority)], tmp_path)
    assert made.returncode == 0, made.stderr
    text = config.read_text().replace("/etc/hal", f"{tmp_path}/etc/hal")
    assert SYSTEM_CERTIFICATES in text
    config.write_text(text.replace(SYSTEM_CERTIFICATES, str(authority)))
    done = tool(["haproxy", "-c", "-f", str(config)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "far"}, "kind: must be local, not 'far'"),
        ({"kind": "remote", "port": 8000}, "port: unknown key"),
        ({"kind": "remote", "command": ["/x"]}, "command: unknown key"),
        ({"kind": "remote", "dialects": ["ollama"]}, "dialects[0]: must be openai, not 'ollama'"),
    ],
)
def test_a_file_that_is_half_of_each(change: dict[str, object], problem: str, tmp_path: Path) -> None:
    import yaml

    raw = yaml.safe_load((DIRECTORY / "openai.yaml").read_text())
    (tmp_path / "openai.yaml").write_text(yaml.safe_dump({**raw, **change}))
    with pytest.raises(SpecError) as raised:
        load_any_engine("openai", tmp_path)
    assert any(problem in line for line in raised.value.details), raised.value.details
