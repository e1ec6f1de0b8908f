"""Every engine file, those of hal and one that nobody has heard of, gets all that an engine needs.

A new engine is covered by adding its YAML.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.engines import DIRECTORY, Engine, available_engines, load_any_engine, load_engine
from hal.engines.gpu import gpu_of
from hal.image.root import write_files
from hal.packs.build import IMAGE, engine_pack
from hal.render import Rendered, render
from hal.run import Completed
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, parse_spec
from tests.render.test_accepted import MOST_EXPOSED, STOCK_UNITS, UNITS

Tool = Callable[..., Completed]

ENGINES = tuple(name for name in available_engines() if isinstance(load_any_engine(name), Engine))
"""Those that run in the appliance: an endpoint elsewhere has no unit."""
MODELS = {"gguf": "smollm2-135m", "safetensors": "smollm2-135m-safetensors"}

SGLANG = """\
name: sglang
summary: SGLang, imaginary here
dialects: [openai]
user: sglang
group: sglang
uid: 939
state_directory: hal/sglang
port: 30000
environment: {SGLANG_MODEL: "{model_path}", SGLANG_PORT: "{port}", SGLANG_EXTRA: "{extra}"}
settings: {extra: {type: str, default: "--mem-fraction 0.8", summary: further arguments}}
command: [/opt/sglang/bin/serve, --port, "${SGLANG_PORT}", --model, "${SGLANG_MODEL}", $SGLANG_EXTRA]
readiness: {path: /health_generate, status: 200, models_path: /v1/models}
start_timeout: 900
stop_timeout: 45
resources: {gpu: required, memory: 512M}
binds_models: start
formats: [gguf]
files: [{source: SOURCE, path: bin/serve, mode: "0755"}]
sandbox: {MemoryDenyWriteExecute: {value: "no", reason: it compiles its kernels as it runs}}
"""


def spec_of(engine: Engine, init: str, engines: Path) -> LoadedSpec:
    """A debug appliance with one engine and a model that it reads."""
    models = [MODELS[kind] for kind in engine.formats if kind in MODELS][:1]
    text = (
        f"appliance: {{name: one, version: '1'}}\nvariant: debug\ninit: {init}\nengines: [{engine.name}]\n"
        f"models: [{', '.join(models)}]\nmachine: {{memory: 64G}}\ndisk: {{state: 8G}}\n"
    )
    return parse_spec(text, Path("one.yaml"), engines=engines)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """hal's engine files, and SGLang's, in a folder of their own."""
    folder = tmp_path_factory.mktemp("engines")
    for file in DIRECTORY.glob("*.yaml"):
        shutil.copy(file, folder)
    program = folder / "serve"
    program.write_text("#!/bin/sh\necho imaginary\n")
    (folder / "sglang.yaml").write_text(SGLANG.replace("SOURCE", str(program)))
    yield folder


@pytest.fixture(scope="module", params=[*ENGINES, "sglang"])
def engine(request: pytest.FixtureRequest, plugins: Path) -> Engine:
    return load_engine(request.param, plugins)


@pytest.fixture(scope="module")
def loaded(engine: Engine, plugins: Path) -> LoadedSpec:
    return spec_of(engine, "systemd", plugins)


@pytest.fixture(scope="module")
def files(loaded: LoadedSpec) -> Rendered:
    return render(loaded, [])


def test_it_has_a_unit_that_systemd_accepts_and_that_is_confined(
    engine: Engine, loaded: LoadedSpec, files: Rendered, tool: Tool, tmp_path: Path
) -> None:
    write_files(files, tmp_path)
    programs = {engine.command[0], "/usr/sbin/haproxy", "/usr/sbin/sshd", "/usr/bin/ssh-keygen"}
    for program in programs:
        path = tmp_path / program.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    for unit in STOCK_UNITS:
        if unit.endswith(".target"):
            (tmp_path / UNITS / unit).write_text("[Unit]\nDefaultDependencies=no\n")
    unit = f"{engine.name}.service"
    verified = tool(
        ["systemd-analyze", "verify", "--man=no", "--generators=no", f"--root={tmp_path}", unit], tmp_path
    )
    assert verified.returncode == 0, verified.stderr
    assert unit not in verified.stderr, verified.stderr
    security = tool(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--root={tmp_path}", unit], tmp_path
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", security.stdout)
    assert found and float(found[1]) <= MOST_EXPOSED, security.stdout[-300:] + security.stderr

    text = files[f"/{UNITS}/{unit}"].content.splitlines()
    assert f"User={engine.user}" in text and f"Group={engine.group}" in text
    assert "KillMode=control-group" in text
    assert "StartLimitIntervalSec=0" in text, "it is started again for ever"
    assert {"RestartSteps=6", "RestartMaxDelaySec=60"} <= set(text), "but later and later"
    assert f"TimeoutStopSec={engine.stop_timeout}" in text
    assert not [line for line in text if line.startswith(("ExecStartPost", "ExecStartPre"))]
    assert "Slice=engines.slice" in text, "what all engines may take is limited there"
    assert {"MemorySwapMax=0", "OOMPolicy=kill"} <= set(text)
    gpu = gpu_of(engine, loaded.choice(engine))
    assert ("LimitMEMLOCK=infinity" in text) == (gpu is not None), "a GPU's driver pins memory"
    assert ("PrivateDevices=no" in text) == (gpu is not None), "GPU nodes only when asked"
    assert [line for line in text if line.startswith("DeviceAllow=")] == (
        [f"DeviceAllow={value}" for value in gpu.allowed] if gpu else []
    )


def test_it_has_a_user_an_environment_a_server_and_a_place_in_the_target(
    engine: Engine, loaded: LoadedSpec, files: Rendered
) -> None:
    accounts = files["/usr/lib/sysusers.d/hal.conf"].content
    assert f"u! {engine.user} {engine.uid}:{engine.group} " in accounts
    variables = files[f"/etc/hal/engines/{engine.name}.env"].content
    assert all(f"\n{name}=" in variables for name in engine.environment)
    port = loaded.port(engine)
    gateway = files["/etc/hal/gateway/haproxy.cfg"].content
    assert re.search(rf"^ +server {engine.name} 127\.0\.0\.1:{port} .*disabled$", gateway, re.MULTILINE)
    assert (f"srv_is_up(engines/{engine.name})" in gateway) == ("ollama" in engine.dialects)
    assert f"Wants={engine.name}.service" in files[f"/{UNITS}/appliance.target"].content
    (selected,) = json.loads(files["/etc/hal/selector.json"].content)["engines"]
    assert (selected["name"], selected["port"]) == (engine.name, port)
    assert selected["health_path"] == engine.readiness.path


def test_it_is_launched_with_its_readiness_and_its_devices(
    engine: Engine, loaded: LoadedSpec, files: Rendered
) -> None:
    if engine.notifies:
        assert f"/etc/hal/engines/{engine.name}.json" not in files
        return
    launch = json.loads(files[f"/etc/hal/engines/{engine.name}.json"].content)
    assert launch["command"] == list(engine.command)
    assert launch["readiness"]["path"] == engine.readiness.path
    assert launch["host"] == "127.0.0.1"
    gpu = gpu_of(engine, loaded.choice(engine))
    assert launch["devices"] == (list(gpu.nodes) if gpu else [])
    assert [model["name"] for model in launch["models"]] == [model.name for model in loaded.models]


def test_it_has_an_init_script(engine: Engine, plugins: Path) -> None:
    loaded = spec_of(engine, "sysv", plugins)
    files = render(loaded, [])
    script = files[f"/etc/init.d/S96{engine.name}"]
    assert script.content.startswith("#!/bin/sh\n")
    assert script.mode == 0o755
    assert f"/{UNITS}/{engine.name}.service" not in files
    assert f"\nGROUP=engines/{engine.name}\n" in script.content
    assert ("ulimit -l unlimited" in script.content) == (gpu_of(engine, loaded.choice(engine)) is not None)
    for word in ("start", "stop", "restart", "reload", "status"):
        assert re.search(rf"^{word} \||\b{word}\)|{word}\(\)", script.content, re.MULTILINE), word


def test_sglangs_tree_is_made_from_its_file(plugins: Path, tools: Sandbox, tmp_path: Path) -> None:
    pack = engine_pack(load_engine("sglang", plugins), (), tools, Cache(tmp_path / "cache"))
    assert (pack.ref.kind, pack.ref.name, pack.ref.mountpoint) == ("engine", "sglang", "/opt/sglang")
    assert pack.path.name == IMAGE
    shown = tools.run(["dump.erofs", "--path=/bin/serve", "--cat", str(pack.path)], readable=[pack.path])
    assert shown.stdout == "#!/bin/sh\necho imaginary\n"


def test_a_pack_without_its_program_is_refused(plugins: Path, tools: Sandbox, tmp_path: Path) -> None:
    from hal.errors import HalError

    engine = load_engine("sglang", plugins).model_copy(update={"files": ()})
    with pytest.raises(HalError, match="the pack of sglang has no program bin/serve"):
        engine_pack(engine, (), tools, Cache(tmp_path / "cache"))
