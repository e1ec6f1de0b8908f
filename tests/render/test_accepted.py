"""The programs that will read the rendered files accept them: systemd-analyze, systemd-sysusers, haproxy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hal.image.root import write_files
from hal.profiles import profile_names
from hal.render import Rendered, render
from hal.run import Completed
from hal.spec.loading import load_spec, parse_spec
from tests.render.conftest import checked_haproxy

Tool = Callable[..., Completed]

UNITS = "usr/lib/systemd/system"
STOCK_UNITS = (
    *("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"),
    *("systemd-networkd.service", "systemd-networkd.socket", "systemd-tmpfiles-setup.service"),
    *("shutdown.target", "umount.target", "network.target", "network-pre.target", "sysinit.target"),
)
PROGRAMS = (
    "usr/sbin/haproxy",
    "usr/bin/openssl",
    "usr/sbin/sshd",
    "usr/bin/ssh-keygen",
    "opt/llamacpp/bin/hal-llamacpp",
)

MOST_EXPOSED = 2.5
UNCONFINED = {"hal-ssh@.service": "debug images only: a root shell to see and touch everything"}


@pytest.fixture
def root(files: Rendered, tmp_path: Path) -> Path:
    """The rendered files as a root tree, with empty programs and stand-ins for systemd's own units."""
    write_files(files, tmp_path)
    for program in PROGRAMS:
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    for unit in STOCK_UNITS:
        body = "[Service]\nExecStart=/usr/sbin/haproxy\n" if unit.endswith("service") else ""
        body = "[Socket]\nListenStream=/run/x\n" if unit.endswith("socket") else body
        (tmp_path / UNITS / unit).write_text(f"[Unit]\nDefaultDependencies=no\n{body}")
    return tmp_path


def ours(root: Path) -> list[str]:
    return sorted(path.name for path in (root / UNITS).iterdir() if path.name not in STOCK_UNITS)


def test_systemd_accepts_every_unit(root: Path, tool: Tool) -> None:
    units = [name.replace("@.", "@x.") for name in ours(root)]
    done = tool(["systemd-analyze", "verify", "--man=no", "--generators=no", f"--root={root}", *units], root)
    assert done.returncode == 0
    assert done.stderr == "", "systemd-analyze verify warns"


def test_systemd_would_see_a_mistake(root: Path, tool: Tool) -> None:
    unit = root / UNITS / "hal-gateway.service"
    unit.write_text(unit.read_text().replace("PrivateTmp=disconnected", "PrivateTmp=sideways"))
    done = tool(["systemd-analyze", "verify", "--man=no", f"--root={root}", unit.name], root)
    assert "sideways" in done.stderr


def test_every_service_is_sandboxed(root: Path, tool: Tool) -> None:
    services = [name for name in ours(root) if name.endswith(".service") and name not in UNCONFINED]
    assert {"hal-gateway.service", "hal-selector.service", "llamacpp.service"} <= set(services)
    for service in services:
        command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--root={root}", service]
        done = tool(command, root)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found, done.stdout + done.stderr
        assert float(found[1]) <= MOST_EXPOSED, f"{service}: {found[0]}"


def test_accounts_have_their_fixed_numbers(root: Path, tool: Tool) -> None:
    done = tool(["systemd-sysusers", f"--root={root}", "hal.conf"], root)
    assert done.returncode == 0, done.stderr
    accounts = {
        line.split(":")[0]: line.split(":")[2:4] for line in (root / "etc/passwd").read_text().splitlines()
    }
    assert accounts["hal-gateway"] == ["901", "901"]
    assert accounts["hal-selector"] == ["902", "902"]
    assert accounts["hal-attestor"] == ["904", "904"]
    assert accounts["llamacpp"] == ["911", "911"]


def test_haproxy_accepts_its_configuration(files: Rendered, tool: Tool, tmp_path: Path) -> None:
    done = checked_haproxy(files, tmp_path, tool)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr


@pytest.mark.parametrize("profile", profile_names())
def test_haproxy_accepts_every_profile(profile: str, tool: Tool, tmp_path: Path) -> None:
    done = checked_haproxy(render(load_spec(profile), []), tmp_path, tool)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr


FULL = f"""\
appliance: {{name: full, version: 1.0.0}}
variant: VARIANT
init: INIT
engines:
  llamacpp:
  ollama:
  openai: {{settings: {{base_url: https://api.example.com/openai/v1, model: m, credential: key}}}}
models: [smollm2-135m]
disk: {{state: 1G}}
network: {{dns: [127.0.0.1]}}
gateway:
  tokens:
    - {{name: a, sha256: {"a" * 64}, domains: [x], rate: 5}}
    - {{name: b, sha256: {"b" * 64}, concurrency: 5}}
  limits: {{body: 1M, rate: 10, concurrency: 3}}
  routes:
    - {{header: {{X-Team: "re*"}}, path_prefix: /v1/chat, priority: 5, to: other}}
    - {{domain: finance, to: llamacpp}}
    - {{path_pattern: "/v1/*/x", method: POST, priority: 3, to: openai}}
  remotes:
    - {{name: other, base_url: "https://192.0.2.7:8443", model: m, timeout: 30, credential: key}}
  guardrails: {{url: http://127.0.0.1:8100/rails}}
"""


@pytest.mark.parametrize("init", ["systemd", "sysv"])
@pytest.mark.parametrize("variant", ["debug", "production"])
def test_haproxy_accepts_everything_at_once(init: str, variant: str, tool: Tool, tmp_path: Path) -> None:
    spec = FULL.replace("VARIANT", variant).replace("INIT", init)
    done = checked_haproxy(render(parse_spec(spec, Path("full.yaml")), []), tmp_path, tool)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr


def test_debug_sshd_config_is_short_of_passwords(files: Rendered) -> None:
    found = files.get("/etc/hal/ssh/sshd_config")
    if found is None:
        assert "hal-ssh" not in files["/usr/lib/systemd/system/appliance.target"].content
    else:
        assert "PasswordAuthentication no" in found.content
        assert "PermitRootLogin prohibit-password" in found.content
