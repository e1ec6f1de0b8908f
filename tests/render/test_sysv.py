"""`init: sysv`: what is in the init scripts, and that shellcheck and the shells accept them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hal.engines import Engine, available_engines, load_any_engine, load_engine
from hal.image.root import write_files
from hal.profiles import profile_names
from hal.render import Rendered, render
from hal.render.sysv import engine_service, quoted
from hal.spec.loading import LoadedSpec, load_spec
from tests.render.conftest import PACKS, Tool, checked_haproxy

SHELL = "#!/bin/sh\n"


@pytest.fixture(scope="session", params=["starter", "production"])
def sysv(request: pytest.FixtureRequest) -> LoadedSpec:
    """The specs of the other tests, with `init: sysv`."""
    found: LoadedSpec = request.getfixturevalue(request.param)
    spec = found.spec.model_copy(update={"init": "sysv"})
    return LoadedSpec(spec, found.path, found.engines, found.models)


@pytest.fixture(scope="session")
def sysv_files(sysv: LoadedSpec) -> Rendered:
    return render(sysv, PACKS)


def scripts(files: Rendered) -> dict[str, str]:
    """Every rendered file that the shell reads, by path."""
    return {path: file.content for path, file in files.items() if file.content.startswith(SHELL)}


def with_engine(loaded: LoadedSpec, name: str, directory: Path | None = None) -> LoadedSpec:
    """The same appliance with another engine in place of its own."""
    choice = loaded.spec.engines[0].model_copy(update={"name": name, "port": None, "settings": {}})
    spec = loaded.spec.model_copy(update={"engines": (choice,)})
    return LoadedSpec(spec, loaded.path, (load_engine(name, directory),), loaded.models)


def shellcheck(*paths: Path) -> None:
    """Fail with what shellcheck says of the scripts."""
    beside = Path(sys.executable).parent
    found = shutil.which("shellcheck", path=f"{beside}:/usr/bin")
    if found is None:
        pytest.skip("shellcheck is not installed: `scripts/bootstrap --dev` brings it")
    done = subprocess.run([found, "--shell=sh", *map(str, paths)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def test_shellcheck_finds_nothing(sysv_files: Rendered, tmp_path: Path) -> None:
    write_files(sysv_files, tmp_path)
    paths = [tmp_path / path.lstrip("/") for path in scripts(sysv_files)]
    assert len(paths) >= 10
    shellcheck(*paths)


@pytest.mark.parametrize("profile", [name for name in profile_names() if name.endswith("sysv")])
def test_profiles_have_a_script_for_each_engine(profile: str, tmp_path: Path) -> None:
    loaded = load_spec(f"profiles/{profile}")
    files = render(loaded, [])
    for engine in loaded.engines:
        assert f"/etc/init.d/S96{engine.name}" in files
    write_files(files, tmp_path)
    shellcheck(*(tmp_path / path.lstrip("/") for path in scripts(files)))


def test_every_script_is_a_program_with_its_interpreter_on_the_first_line(sysv_files: Rendered) -> None:
    found = {path for path in sysv_files if path.startswith("/etc/init.d/")}
    assert found == {path for path in scripts(sysv_files) if path.startswith("/etc/init.d/")}
    for path in scripts(sysv_files):
        assert sysv_files[path].mode == 0o755, path


def test_the_scripts_are_named_by_their_order(sysv: LoadedSpec, sysv_files: Rendered) -> None:
    names = [
        path.removeprefix("/etc/init.d/") for path in sysv_files if re.match(r"/etc/init\.d/S\d\d", path)
    ]
    wanted = ["S01syslogd", "S02klogd", "S40network", "S60hal-gateway", "S65hal-control", "S70hal-selector"]
    wanted += ["S96llamacpp", "S97hal-attestor"]
    assert names == wanted + (["S99hal-ssh"] if sysv.spec.variant == "debug" else [])


def test_nothing_of_systemd_is_rendered(sysv_files: Rendered) -> None:
    assert not [path for path in sysv_files if "systemd" in path or path.endswith((".service", ".mount"))]


def test_no_line_of_inittab_starts_a_shell(sysv_files: Rendered) -> None:
    actions = [
        line.split(":")
        for line in sysv_files["/etc/inittab"].content.splitlines()
        if not line.startswith("#")
    ]
    assert {action for _, _, action, _ in actions} == {"sysinit", "ctrlaltdel", "shutdown"}


def test_production_has_no_ssh(sysv: LoadedSpec, sysv_files: Rendered) -> None:
    assert bool([path for path in sysv_files if "ssh" in path]) == (sysv.spec.variant == "debug")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("/opt/x/bin/serve", "/opt/x/bin/serve"),
        ("${PORT}", '"${PORT}"'),
        ("--at=${HOST}:${PORT}", '"--at=${HOST}:${PORT}"'),
        ("two words", '"two words"'),
        ("", '""'),
        ("$MORE", "$MORE"),
        ('a"b\\c$d`e', '"a\\"b\\\\c\\$d\\`e"'),
    ],
)
def test_arguments_are_quoted_for_the_shell(argument: str, text: str) -> None:
    assert quoted(argument) == text


@pytest.mark.parametrize(
    "argument", ["$HOME.", "`id`", "$(id)", "a b", "'", '"', "\\", "*", "a;b", "-e", "é"]
)
def test_the_shell_takes_quoted_arguments_as_they_are(argument: str) -> None:
    done = subprocess.run(["sh", "-c", f"printf %s {quoted(argument)}"], capture_output=True, text=True)
    assert done.stdout == argument


ENGINES = [name for name in available_engines() if isinstance(load_any_engine(name), Engine)]


@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_has_a_script_out_of_its_file(starter: LoadedSpec, tmp_path: Path, name: str) -> None:
    loaded = with_engine(starter, name)
    spec = loaded.spec.model_copy(update={"init": "sysv"})
    files = render(LoadedSpec(spec, loaded.path, loaded.engines, loaded.models), PACKS)
    text = files[f"/etc/init.d/S96{name}"].content
    engine = loaded.engines[0]
    assert f"--reuid {engine.user} --regid {engine.group} --clear-groups" in text
    assert f"STOP_SECONDS={engine.stop_timeout}\n" in text
    assert f". /etc/hal/engines/{name}.env" in text
    (tmp_path / name).write_text(text)
    shellcheck(tmp_path / name)


def test_a_new_engine_is_one_yaml_file(starter: LoadedSpec, tmp_path: Path) -> None:
    (tmp_path / "sglang.yaml").write_text(
        """\
name: sglang
summary: SGLang
dialects: [openai]
user: sglang
group: sglang
uid: 915
state_directory: hal/sglang
port: 30000
environment: {SGLANG_MODEL: "{model_path}", SGLANG_MODE: "two words"}
notifies: true
command: [/opt/sglang/bin/serve, --model, "${SGLANG_MODEL}", --banner, "a b", $SGLANG_MODE]
readiness: {path: /health_generate, status: 200, models_path: /v1/models}
stop_timeout: 90
resources: {gpu: none, memory: 1G}
binds_models: start
formats: [gguf]
"""
    )
    loaded = with_engine(starter, "sglang", tmp_path)
    spec = loaded.spec.model_copy(update={"init": "sysv"})
    text = render(LoadedSpec(spec, loaded.path, loaded.engines, loaded.models), [])[
        "/etc/init.d/S96sglang"
    ].content
    assert '/opt/sglang/bin/serve --model "${SGLANG_MODEL}" --banner "a b" $SGLANG_MODE' in text
    assert "install -d -o sglang -g sglang -m 0700 /var/lib/hal/sglang" in text
    assert "STOP_SECONDS=90\n" in text
    (tmp_path / "script").write_text(text)
    shellcheck(tmp_path / "script")


def test_an_environment_file_means_the_same_to_the_shell(production: LoadedSpec, tmp_path: Path) -> None:
    """systemd reads it as `EnvironmentFile=`, an init script by `.` with `set -a`."""
    write_files(render(production, []), tmp_path)
    file = tmp_path / "etc/hal/engines/llamacpp.env"
    script = f"set -a; . {file}; exec env"
    done = subprocess.run(["env", "-i", "/bin/sh", "-c", script], capture_output=True, text=True)
    values = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert values["LLAMACPP_ALIAS"] == "smollm2-135m"
    assert values["LLAMACPP_PORT"] == "8099"


def test_an_engine_writes_only_below_its_own_directories() -> None:
    service = engine_service(load_engine("llamacpp"), None)
    own = ("/var/lib/hal/llamacpp", "/var/cache/hal/llamacpp", "/run/hal/engines/llamacpp")
    assert service.writable == (*own, "/tmp", "/var/tmp")
    assert service.capabilities == ()


def test_haproxy_accepts_its_configuration(sysv_files: Rendered, tool: Tool, tmp_path: Path) -> None:
    done = checked_haproxy(sysv_files, tmp_path, tool)
    assert done.returncode == 0, done.stderr


def test_the_gateway_has_its_key_before_it_starts(sysv_files: Rendered) -> None:
    script = sysv_files["/etc/init.d/S60hal-gateway"].content
    if "/usr/lib/hal/gateway-key" in sysv_files:
        assert "/usr/lib/hal/gateway -db -f" in script
        start = sysv_files["/usr/lib/hal/gateway"]
        assert start.mode == 0o755 and "/usr/lib/hal/gateway-key\nexec /usr/sbin/haproxy" in start.content
    else:
        assert "/usr/sbin/haproxy -db -f" in script
