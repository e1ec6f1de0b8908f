"""What the attestor gets in an image: a device or a directory, a socket of the gateway's, no network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hal.render import Rendered, render
from hal.render.attestor import ACCESS, SOCKET
from hal.render.gateway import CERTIFICATE
from hal.render.manifest import PATH
from hal.spec.loading import LoadedSpec, parse_spec
from services.attestor.machine import Places

UNITS = "/usr/lib/systemd/system"
CONFIG = "/etc/hal/gateway/haproxy.cfg"
SPEC = """\
appliance: {{name: a, version: 1.0.0}}
engines: [llamacpp]
models: [smollm2-135m]
tee: {tee}
init: {init}
"""


def files_of(tee: str = "none", init: str = "systemd") -> Rendered:
    return render(parse_spec(SPEC.format(tee=tee, init=init), Path("a.yaml")), [])


def test_the_attestor_looks_where_everything_is(files: Rendered) -> None:
    found = Places()
    assert found.manifest == PATH
    assert found.certificate == CERTIFICATE
    assert found.socket == SOCKET
    assert f"server attestor unix@{SOCKET} " in files[CONFIG].content
    assert f"ListenStream={SOCKET}\n" in files[f"{UNITS}/hal-attestor.socket"].content
    assert found.tpm in files[ACCESS].content
    # What root opens to it in an image for a TEE is what it reads.
    access = files_of("sev-snp")[ACCESS].content
    assert f"entry={found.tsm}\n" in access
    assert found.tdx_event_log in access
    assert found.tpm_event_log.removeprefix("/sys/kernel/security/") in access


def test_only_the_gateway_may_ask(files: Rendered) -> None:
    unit = files[f"{UNITS}/hal-attestor.socket"].content
    assert "SocketUser=hal-gateway\n" in unit
    assert "SocketMode=0600\n" in unit


def test_it_has_the_tpm_and_no_network(files: Rendered) -> None:
    lines = files[f"{UNITS}/hal-attestor.service"].content.splitlines()
    for line in (
        "DeviceAllow=/dev/tpmrm0 rw",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX",
        "UMask=0077",
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("DeviceAllow=")] == ["DeviceAllow=/dev/tpmrm0 rw"]
    assert not [line for line in lines if line.startswith("ReadWritePaths=")]


@pytest.mark.parametrize("tee", ["sev-snp", "tdx"])
def test_an_image_for_a_tee_has_configfs(tee: str) -> None:
    found = files_of(tee)
    assert "ReadWritePaths=-/sys/kernel/config/tsm/report\n" in found[f"{UNITS}/hal-attestor.service"].content
    assert "After=sys-kernel-config.mount\n" in found[f"{UNITS}/hal-attestor.service"].content
    assert "mount -t configfs" in found[ACCESS].content
    assert "mount -t configfs" not in files_of()[ACCESS].content


def test_evidence_comes_before_the_token(production: LoadedSpec) -> None:
    lines = render(production, [])[CONFIG].content.splitlines()
    evidence = lines.index("    http-request allow if !is_usual is_attestation")
    token = next(number for number, line in enumerate(lines) if "str(401)" in line)
    evil = max(number for number, line in enumerate(lines) if "str(400)" in line and number < token)
    stripped = lines.index("    http-request del-header Authorization")
    assert max(evil, stripped) < evidence < token


def test_an_init_script_lets_root_prepare() -> None:
    script = files_of(init="sysv")["/etc/init.d/S97hal-attestor"].content
    assert script.index(f"\t{ACCESS}\n") < script.index("\tlaunch\n")
    assert "install -d -o hal-attestor -g hal-gateway -m 2750 /run/hal/attestor" in script
    assert '"path-beneath:$WRITE:/sys"' not in script
    assert '"path-beneath:$WRITE:/sys"' in files_of("tdx", "sysv")["/etc/init.d/S97hal-attestor"].content


def test_root_opens_what_there_is(tmp_path: Path) -> None:
    """On this machine, with other paths: what is missing is no failure, and no other mode changes."""
    script = files_of("sev-snp")[ACCESS].content
    script = script.replace("/sys/", f"{tmp_path}/sys/").replace("/dev/", f"{tmp_path}/dev/")
    script = script.replace("chgrp hal-attestor", "chgrp 0").replace(
        "2>" + f"{tmp_path}/dev/null", "2>/dev/null"
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    (tmp_path / "sys/kernel/security/tpm0").mkdir(parents=True)
    (tmp_path / "access").write_text(script)

    def run() -> None:
        done = subprocess.run(["sh", tmp_path / "access"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    run()
    entry = tmp_path / "sys/kernel/config/tsm/report/hal"
    wanted = {
        tmp_path / "dev/tpmrm0": 0o660,
        tmp_path / "sys/kernel/security/tpm0/binary_bios_measurements": 0o440,
        entry / "inblob": 0o220,
        entry / "outblob": 0o440,
        entry / "provider": 0o400,
    }
    for file in wanted:
        file.touch()
        file.chmod(0o400)
    run()
    assert {file: file.stat().st_mode & 0o777 for file in wanted} == wanted
