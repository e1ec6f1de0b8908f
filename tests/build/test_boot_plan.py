"""Deciding how to boot: a function of the spec, the build and the user's wishes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from hal.build import MANIFEST
from hal.errors import HalError, UsageError
from hal.machine import boot
from hal.machine.boot import Wishes, command, host_accelerator, plan
from hal.machine.command import Accelerator, Tee
from hal.sandbox import Sandbox
from hal.spec.loading import load_spec, parse_spec

TOOLS = Sandbox(Path("/cache/tools"), 1700000000)
PRODUCTION = """\
appliance: {name: service, version: 1.0.0}
variant: production
engines: [llamacpp]
models: [smollm2-135m]
gateway:
  tokens: [{name: a, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """As much of a build as planning looks at."""
    directory = tmp_path / "starter"
    directory.mkdir()
    (directory / MANIFEST).write_text(json.dumps({"cmdline": "ro hal.root=x"}))
    return directory


def planned(built: Path, accelerator: Accelerator = Accelerator.TCG, **wishes: object) -> boot.Plan:
    return plan(load_spec("starter").spec, built, Wishes(**wishes), accelerator)  # type: ignore[arg-type]


def test_the_kernel_is_booted_directly(built: Path) -> None:
    decided = planned(built)
    assert decided.files.kernel == built / "vmlinuz"
    assert decided.files.initrd == built / "initrd"
    assert decided.files.cmdline == "ro hal.root=x"
    assert decided.files.firmware is None
    assert decided.url == "http://127.0.0.1:7001"
    assert decided.run_directory == built.with_name("starter.run")
    assert decided.files.disk == decided.run_directory / "disk.img", "the build's own disk is not written to"
    text = " ".join(command(decided, TOOLS))
    assert f"-kernel {built}/vmlinuz" in text
    assert "127.0.0.1:7001-" in text
    assert f"--ro-bind {built} {built}" in text
    assert f"--bind {decided.run_directory} {decided.run_directory}" in text
    assert "--unshare-net" not in text
    assert not decided.run_directory.exists(), "planning touches nothing"


def test_the_disks_of_models_are_attached_unless_told_otherwise(built: Path) -> None:
    packs = [
        {"name": "llamacpp", "disk": "disk.img"},
        {"name": "large", "disk": "pack-large.img"},
        {"name": "larger", "disk": "pack-larger.img"},
    ]
    (built / MANIFEST).write_text(json.dumps({"cmdline": "ro hal.root=x", "packs": packs}))
    decided = planned(built)
    assert decided.files.extra_disks == (built / "pack-large.img", built / "pack-larger.img")
    assert f"readonly=on,file={built}/pack-large.img" in " ".join(command(decided, TOOLS))
    assert planned(built, without_disks=("large",)).files.extra_disks == (built / "pack-larger.img",)
    with pytest.raises(UsageError, match="--without-disk small: this appliance has no disk of that model"):
        planned(built, without_disks=("small",))


def test_firmware_boots_the_disk_itself(built: Path) -> None:
    decided = planned(built, firmware="ovmf")
    assert decided.files.kernel is None
    assert decided.files.cmdline == ""
    text = " ".join(command(decided, TOOLS))
    assert "OVMF_CODE_4M.fd" in text
    assert "-kernel" not in text


def test_firmware_of_the_user(built: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.fd"
    own.write_text("")
    text = " ".join(command(planned(built, firmware=str(own)), TOOLS))
    assert f"--ro-bind {own} {own}" in text
    with pytest.raises(UsageError, match="there is no such file"):
        planned(built, firmware=str(tmp_path / "none.fd"))


def test_a_confidential_machine_needs_its_own_firmware(built: Path, tmp_path: Path) -> None:
    for tee in ("sev-snp", "tdx"):
        for firmware in (None, "ovmf"):
            with pytest.raises(UsageError, match=f"a {tee} machine needs firmware made for it"):
                planned(built, Accelerator.KVM, tee=tee, firmware=firmware)
    own = tmp_path / "snp.fd"
    own.write_text("")
    decided = planned(built, Accelerator.KVM, tee="sev-snp", firmware=str(own))
    assert decided.machine.tee is Tee.SEV_SNP
    assert decided.files.kernel is not None, "its firmware checks the kernel's hash: it is booted directly"
    text = " ".join(command(decided, TOOLS))
    assert "sev-snp-guest" in text
    assert "--dev-bind /dev/sev /dev/sev" in text
    assert "--dev-bind /dev/kvm /dev/kvm" in text


def test_a_confidential_machine_cannot_be_emulated(built: Path, tmp_path: Path) -> None:
    own = tmp_path / "snp.fd"
    own.write_text("")
    with pytest.raises(UsageError, match=r"(?i)kvm"):
        command(planned(built, Accelerator.TCG, tee="sev-snp", firmware=str(own)), TOOLS)


def test_only_a_debug_image_has_a_port_for_ssh(built: Path, tmp_path: Path) -> None:
    spec = parse_spec(PRODUCTION, tmp_path / "p.yaml").spec
    assert plan(spec, built, Wishes(), Accelerator.TCG).ssh_port is None
    decided = planned(built)
    assert decided.ssh_port
    assert f"127.0.0.1:{decided.ssh_port}-" in " ".join(command(decided, TOOLS))


def test_wishes_win_over_the_spec(built: Path) -> None:
    decided = planned(built, cpus=3, port=0, tpm=True)
    assert decided.machine.cpus == 3
    assert decided.port not in (0, 7001)
    assert decided.tpm


def test_without_kvm_the_machine_is_emulated_and_says_so(
    monkeypatch: pytest.MonkeyPatch, built: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert host_accelerator() is Accelerator.TCG
    assert "emulation" in Accelerator.TCG.summary and "/dev/kvm" in Accelerator.TCG.summary
    assert "emulated" in boot.EXPECTED_ANSWER[Accelerator.TCG]
    text = " ".join(command(planned(built), TOOLS))
    assert "/dev/kvm" not in text
    assert "tcg" in text


def test_a_taken_port_is_noticed_before_anything_is_made(built: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        decided = planned(built, port=listener.getsockname()[1])
        with pytest.raises(HalError, match="is taken on this host") as caught:
            boot.run(decided, TOOLS, fresh=False, wait=False, as_json=False)
    assert caught.value.exit_code == 1
    assert caught.value.hint is not None and "--port" in caught.value.hint
    assert not decided.run_directory.exists()
