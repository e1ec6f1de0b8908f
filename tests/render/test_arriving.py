"""Models that are not in the image: what brings them in, who waits for them, and name servers from DHCP."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hal.build import base_sets
from hal.image.root import write_files
from hal.render import Rendered, render
from hal.render.sysv import services
from hal.spec.loading import LoadedSpec, load_spec, parse_spec
from services.selector.config import parse
from tests.render.test_sysv import shellcheck

UNITS = "/usr/lib/systemd/system"
TARGET = f"{UNITS}/appliance.target"
SPEC = """\
appliance: {{name: arriving, version: '1'}}
variant: debug
init: {init}
engines:
  - vllm: {{settings: {{device: cpu}}}}
  - ollama
models:
  - {{name: smollm2-135m-safetensors, delivery: {delivery}}}
  - {{name: smollm2-135m, delivery: image}}
disk: {{state: 2G}}
machine: {{memory: 4G}}
provision: {{huggingface_credential: hub}}
"""


def spec_of(init: str = "systemd", delivery: str = "network", more: str = "") -> LoadedSpec:
    return parse_spec(SPEC.format(init=init, delivery=delivery) + more, Path("arriving.yaml"))


@pytest.fixture(scope="module", params=["network", "import"])
def loaded(request: pytest.FixtureRequest) -> LoadedSpec:
    return spec_of(delivery=request.param)


@pytest.fixture(scope="module")
def files(loaded: LoadedSpec) -> Rendered:
    return render(loaded, [])


def test_nothing_of_it_is_in_an_image_that_has_all_its_models() -> None:
    for loaded in (load_spec("starter"), load_spec("starter-sysv"), spec_of(delivery="image")):
        files = render(loaded, [])
        assert not [path for path in files if "hal-provision" in path or "resolver" in path]
        assert not [name for name in base_sets(loaded) if "provision" in name]
        assert files["/etc/resolv.conf"].kind == "file"
        assert "hal-provision" not in files["/usr/lib/sysusers.d/hal.conf"].content


def test_the_unit(files: Rendered) -> None:
    unit = files[f"{UNITS}/hal-provision.service"].content
    lines = set(unit.splitlines())
    assert {"Type=notify", "User=hal-provision", "Restart=always", "WatchdogSec=120"} <= lines
    assert {"ReadWritePaths=/var/lib/hal", "ProtectSystem=strict"} <= lines
    directories = files["/usr/lib/tmpfiles.d/hal.conf"].content
    assert "d /var/lib/hal/models 0755 hal-provision hal-provision -\n" in directories
    assert "d /var/lib/hal/provisioner 0700 hal-provision hal-provision -\n" in directories
    assert "ImportCredential=hub" in lines
    assert {"IPAddressDeny=", "ProtectSystem=strict", "CapabilityBoundingSet="} <= lines
    assert "network-online" not in unit and "network.target" not in unit, "boot waits for no network"
    assert "Wants=hal-provision.service" in files[TARGET].content
    assert 'u! hal-provision 903 "hal provision"' in files["/usr/lib/sysusers.d/hal.conf"].content
    assert files["/usr/bin/hal-provision"].mode == 0o755


def test_engines_find_it_where_packs_are(files: Rendered) -> None:
    link = files["/srv/models/smollm2-135m-safetensors"]
    assert (link.kind, link.content) == ("symlink", "/var/lib/hal/models/smollm2-135m-safetensors")
    assert "/srv/models/smollm2-135m" not in files
    mounts = "RequiresMountsFor=/opt/vllm /var/lib/hal/models\n"
    assert mounts in files[f"{UNITS}/vllm.service"].content


def test_who_waits_for_it(loaded: LoadedSpec, files: Rendered) -> None:
    marker = "/run/hal/models/smollm2-135m-safetensors"
    data = json.loads(files["/etc/hal/selector.json"].content)
    assert data["provision_status"] == "/run/hal/provisioner/status.json"
    awaits = {engine["name"]: engine.get("awaits", []) for engine in data["engines"]}
    assert awaits == {"vllm": [{"model": "smollm2-135m-safetensors", "marker": marker}], "ollama": []}
    parse(files["/etc/hal/selector.json"].content)
    launch = json.loads(files["/etc/hal/engines/vllm.json"].content)
    assert [model["marker"] for model in launch["models"]] == [marker]
    target = files[TARGET].content
    assert "Wants=ollama.service" in target, "its model is in the image"
    assert "vllm.service" not in target, "the selector starts it when its model has come"


def test_ollama_starts_with_the_machine_whatever_is_missing() -> None:
    text = SPEC.replace("name: smollm2-135m, delivery: image", "name: smollm2-135m, delivery: import")
    loaded = parse_spec(text.format(init="systemd", delivery="import"), Path("arriving.yaml"))
    files = render(loaded, [])
    assert "Wants=ollama.service" in files[TARGET].content
    launch = json.loads(files["/etc/hal/engines/ollama.json"].content)
    assert launch["binds_models"] == "runtime"
    assert launch["registration"]["store"] == "OLLAMA_MODELS"
    assert [(model["name"], model["marker"]) for model in launch["models"]] == [
        ("smollm2-135m", "/run/hal/models/smollm2-135m")
    ]


def test_llamacpp_is_told_its_marker() -> None:
    text = SPEC.replace("  - ollama", "  - llamacpp").replace("delivery: image", "delivery: import")
    files = render(parse_spec(text.format(init="systemd", delivery="import"), Path("arriving.yaml")), [])
    assert "LLAMACPP_MARKER=/run/hal/models/smollm2-135m\n" in files["/etc/hal/engines/llamacpp.env"].content


def test_the_init_script(tmp_path: Path) -> None:
    loaded = spec_of("sysv")
    files = render(loaded, [])
    service = next(service for service in services(loaded) if service.name == "hal-provision")
    script = files["/etc/init.d/S80hal-provision"].content
    assert service.user == "hal-provision" and service.exemptions is not None
    assert "install -d -o hal-provision -g hal-provision -m 0700 /var/lib/hal/provisioner" in script
    assert "install -d -o hal-provision -g hal-provision -m 0755 /var/lib/hal/models" in script
    assert "/usr/lib/hal/filters/hal-provision.json" in files
    assert "path-beneath:$WRITE:/var/lib/hal/models" in script
    network = files["/usr/lib/hal/network"].content
    assert "uidrange 902-902" in network and "uidrange 904-999" in network, "903 gets out"
    fetch = files["/usr/lib/hal/credentials-provision"].content
    assert "for name in hub;" in fetch and "OWNER:-root:hal-provision" in fetch
    assert "\n/usr/lib/hal/credentials-provision\n" in files["/etc/init.d/rcS"].content
    assert base_sets(loaded) == ("sysv", "sysv-debug", "sysv-provision")
    write_files(files, tmp_path)
    shellcheck(*(tmp_path / name for name in ("usr/lib/hal/udhcpc", "usr/lib/hal/credentials-provision")))


def test_name_servers_from_networkd(files: Rendered, tmp_path: Path) -> None:
    assert (files["/etc/resolv.conf"].kind, files["/etc/resolv.conf"].content) == (
        "symlink",
        "/run/hal/resolver/resolv.conf",
    )
    assert "Wants=hal-resolver.path" in files[TARGET].content
    write_files(files, tmp_path)
    program = tmp_path / "usr/lib/hal/resolver"
    shellcheck(program)
    state = tmp_path / "state"
    state.write_text("# private\nOPER_STATE=routable\nDNS=192.0.2.1 2001:db8::1#dns.example\nNTP=\n")
    where = {**os.environ, "STATE": str(state), "FILE": str(tmp_path / "resolv.conf")}
    subprocess.run([program], env=where, check=True)
    found = (tmp_path / "resolv.conf").read_text()
    assert found == "nameserver 192.0.2.1\nnameserver 2001:db8::1\n"
    state.write_text("OPER_STATE=degraded\n")
    subprocess.run([program], env=where, check=True)
    assert (tmp_path / "resolv.conf").read_text() == ""


def test_name_servers_from_udhcpc(tmp_path: Path) -> None:
    files = render(spec_of("sysv", more="network: {dns: [192.0.2.53]}\n"), [])
    script = files["/usr/lib/hal/udhcpc"].content.replace("/run/hal/resolver", str(tmp_path))
    (tmp_path / "ip").write_text("#!/bin/sh\n")
    (tmp_path / "ip").chmod(0o755)
    lease = {"ip": "10.0.2.15", "mask": "24", "interface": "eth0", "dns": "10.0.2.3 10.0.2.4"}
    where = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **lease}
    subprocess.run(["sh", "-c", script, "udhcpc", "bound"], env=where, check=True)
    found = (tmp_path / "resolv.conf").read_text()
    assert found == "nameserver 192.0.2.53\nnameserver 10.0.2.3\nnameserver 10.0.2.4\n"


def test_a_fixed_address_has_the_name_servers_of_the_spec() -> None:
    more = "network: {dhcp: false, address: 192.0.2.9/24, dns: [192.0.2.53]}\n"
    files = render(spec_of(more=more), [])
    assert files["/etc/resolv.conf"].content.endswith("\nnameserver 192.0.2.53\n")
    assert f"{UNITS}/hal-resolver.path" not in files
