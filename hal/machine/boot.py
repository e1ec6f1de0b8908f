"""Booting a built appliance for a person: which machine, where its state lives, and how to talk to it.

The build's own disk is never written to: the machine gets a copy beside it, in `<name>.run/`, which keeps its
state until the next build. The key for ssh to a debug image is made there, too, and reaches the guest as a
system credential, so that no key is part of an image.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from hal.build import MANIFEST
from hal.errors import HalError, UsageError
from hal.image.disk import DISK
from hal.machine import credentials
from hal.machine.command import (
    QUOTE_SERVICE,
    Accelerator,
    ApplianceFiles,
    Firmware,
    Forward,
    Machine,
    Tee,
    choose_accelerator,
    qemu_command,
)
from hal.machine.qemu import Deadline, VirtualMachine, Wrap, check_port_free, free_port, http_probe
from hal.sandbox import Sandbox
from hal.spec.loading import Spec
from hal.spec.model import is_model_file, model_stem
from hal.trees import inputs_digest

GATEWAY_PORT = 7001
SSH_PORT = 22
OVMF = Path("/usr/share/OVMF")
"""Where the tools tree has UEFI firmware for virtual machines (package ovmf)."""

OWN_FIRMWARE = "ovmf"
"""What `--firmware` without a file means: the tools tree's OVMF."""

GATEWAY_SECONDS = 20
READY_SECONDS = 60
"""How long to wait with hardware virtualisation; emulation stretches it (`Accelerator.deadline_factor`)."""

EXPECTED_ANSWER = {
    Accelerator.KVM: "The answer comes in a second or two.",
    Accelerator.TCG: "Without KVM floating point is emulated: the answer takes a minute or two.",
}


@dataclass(frozen=True)
class Wishes:
    """What a user asks of a boot beyond the spec; None and False mean the spec's or nothing."""

    port: int = GATEWAY_PORT
    firmware: str | None = None
    tee: str | None = None
    tpm: bool = False
    cpus: int | None = None
    fresh: bool = False
    credentials: tuple[str, ...] = ()
    without_disks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A boot decided on: the machine, its files, the directory of its run, and the port of the gateway.

    `secrets` are the credentials that a user gives the machine, by name.
    """

    machine: Machine
    files: ApplianceFiles
    accelerator: Accelerator
    directory: Path
    run_directory: Path
    port: int
    ssh_port: int | None
    tpm: bool
    tls: bool = False
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """The gateway's address on this host."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def ssh_key(self) -> Path:
        """The private key for root of a debug image."""
        return self.run_directory / "ssh_key"


def plan(spec: Spec, directory: Path, wishes: Wishes, accelerator: Accelerator | None = None) -> Plan:
    """Decide how to boot what `hal build` left in `directory`. Writes nothing.

    Raises:
        UsageError: the wishes cannot be had together.
    """
    directory = directory.absolute()
    run_directory = directory.with_name(f"{directory.name}.run")
    tee = Tee(wishes.tee or spec.tee)
    secrets = credentials.given(wishes.credentials, spec.variant)
    port = wishes.port or free_port()
    ssh_port = free_port() if spec.variant == "debug" else None
    forwards = [Forward(port, spec.gateway.port), *([Forward(ssh_port, SSH_PORT)] if ssh_port else [])]
    firmware = _firmware(wishes.firmware, tee, run_directory)
    manifest = json.loads((directory / MANIFEST).read_text())
    # A confidential machine boots the kernel directly: its firmware checks the kernel's hashes.
    direct = firmware is None or tee is not Tee.NONE
    files = ApplianceFiles(
        disk=run_directory / "disk.img",
        kernel=directory / "vmlinuz" if direct else None,
        initrd=directory / "initrd" if direct else None,
        cmdline=manifest["cmdline"] if direct else "",
        firmware=firmware,
        extra_disks=tuple(directory / name for name in _model_disks(manifest, wishes.without_disks)),
    )
    machine = Machine(
        memory=spec.machine.memory,
        cpus=wishes.cpus or spec.machine.cpus,
        tee=tee,
        forwards=tuple(forwards),
        keep_state=True,
        serial_log=run_directory / "serial.log",
        credential_files=credentials.paths(secrets, run_directory),
    )
    return Plan(
        machine,
        files,
        accelerator or host_accelerator(),
        directory,
        run_directory,
        port,
        ssh_port,
        wishes.tpm,
        spec.tls,
        secrets,
    )


def _model_disks(manifest: Mapping[str, Any], without: Sequence[str]) -> list[str]:
    """The disks of models that have one of their own, but for those that are to be left out."""
    disks = {
        pack["name"]: pack["disk"] for pack in manifest.get("packs", ()) if pack.get("disk", DISK) != DISK
    }
    if odd := [name for name in without if name not in disks]:
        there = f"models that have one: {', '.join(disks)}" if disks else "`delivery: disk` makes one"
        raise UsageError(f"--without-disk {odd[0]}: this appliance has no disk of that model", there)
    return [disk for name, disk in disks.items() if name not in without]


def _firmware(wish: str | None, tee: Tee, run_directory: Path) -> Firmware | None:
    if tee is not Tee.NONE:
        if wish is None or wish == OWN_FIRMWARE:
            raise UsageError(
                f"a {tee} machine needs firmware made for it, which Debian does not ship",
                "`--firmware FILE` names it: OVMF's AmdSev build for sev-snp, its IntelTdx build for tdx",
            )
    elif wish is None:
        return None
    elif wish == OWN_FIRMWARE:
        return Firmware(OVMF / "OVMF_CODE_4M.fd", run_directory / "uefi-variables.fd")
    if not Path(wish).is_file():
        raise UsageError(f"--firmware {wish}: there is no such file")
    return Firmware(Path(wish).absolute())


def host_accelerator() -> Accelerator:
    """What executes guests on this host."""
    return choose_accelerator(Path("/proc/cpuinfo").read_text(), os.access("/dev/kvm", os.R_OK | os.W_OK))


def command(plan: Plan, tools: Sandbox) -> list[str]:
    """The host command that boots this plan (what `hal boot --print` shows)."""
    argv = qemu_command(plan.machine, plan.files, plan.accelerator)
    return _wrap(plan, tools)(argv, writable=[plan.run_directory], network=True)


def prepare(plan: Plan, tools: Sandbox, *, fresh: bool = False) -> Plan:
    """Make what a run needs: its copy of the disk, UEFI variables, the ssh key; gives the plan with the key.

    The copy is made anew when the build has changed, or when `fresh` is asked for.
    """
    run_directory = plan.run_directory
    try:
        run_directory.mkdir(parents=True, exist_ok=True)
        run_directory.chmod(0o700)
        _copy_disk(plan, tools, fresh=fresh)
        if plan.files.firmware and plan.files.firmware.variables:
            source = tools.tree / str(OVMF / "OVMF_VARS_4M.fd").lstrip("/")
            shutil.copyfile(source, plan.files.firmware.variables)
    except OSError as error:
        raise HalError(f"{run_directory}: {error.strerror}", "free some space and try again") from error
    if plan.ssh_port is None:
        return plan
    if not plan.ssh_key.exists():
        tools.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hal", "-f", str(plan.ssh_key)],
            writable=[run_directory],
            what="ssh-keygen (a key for this output)",
        )
    credentials.write(plan.secrets, run_directory)
    key = plan.ssh_key.with_suffix(".pub").read_bytes()
    return replace(plan, machine=replace(plan.machine, credentials={credentials.OWN: key}))


def virtual_machine(plan: Plan, tools: Sandbox) -> VirtualMachine:
    """The machine of a prepared plan, to be used as a context."""
    return VirtualMachine(
        plan.machine,
        plan.files,
        plan.accelerator,
        serial_log=plan.run_directory / "serial.log",
        wrap=_wrap(plan, tools),
        tpm_state=plan.run_directory / "tpm" if plan.tpm else None,
    )


def run(plan: Plan, tools: Sandbox, *, fresh: bool, wait: bool, as_json: bool) -> None:
    """Boot, tell how far it is and how to talk to it, and stay until the machine ends or Ctrl-C.

    Raises:
        HalError: the port is taken, the machine ended early or was not ready in time.
    """
    check_port_free(plan.port)
    with _alone(plan.run_directory):
        try:
            plan = prepare(plan, tools, fresh=fresh)
            _run(plan, tools, wait=wait, as_json=as_json)
        finally:
            credentials.remove(plan.secrets, plan.run_directory)


def _run(plan: Plan, tools: Sandbox, *, wait: bool, as_json: bool) -> None:
    with virtual_machine(plan, tools) as vm:
        say = _events(as_json)
        say(
            "started",
            f"booting with {plan.accelerator.summary}; serial log: {plan.run_directory / 'serial.log'}",
        )
        if wait:
            any_answer = http_probe(plan.port, accepts=lambda status: True, tls=plan.tls)
            seconds = vm.wait(any_answer, Deadline.after(GATEWAY_SECONDS, plan.accelerator), "the gateway")
            say("gateway", f"the gateway answers after {seconds:.1f} s", seconds=round(seconds, 2))
            ready = http_probe(plan.port, tls=plan.tls)
            seconds = vm.wait(ready, Deadline.after(READY_SECONDS, plan.accelerator), "an engine")
            say("ready", f"an engine serves after {seconds:.1f} s", seconds=round(seconds, 2), url=plan.url)
        if not as_json:
            _explain(plan)
        try:
            while True:
                vm.check("Ctrl-C")
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("stopped", "stopping the machine")


@contextmanager
def _alone(run_directory: Path) -> Iterator[None]:
    """Be the only machine on this run's disk; the kernel ends the lock with the process."""
    try:
        run_directory.mkdir(parents=True, exist_ok=True)
        lock = (run_directory / "lock").open("w")
    except OSError as error:
        raise HalError(f"{run_directory}: {error.strerror}", "give `--out`") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HalError(
                f"this appliance is running already, with its disk in {run_directory}",
                "stop that one first, or boot from another output: `--out DIR`",
            ) from None
        yield


def _explain(plan: Plan) -> None:
    spec = json.loads((plan.directory / MANIFEST).read_text())["spec"]
    model = spec["models"] or [engine["settings"].get("model", "MODEL") for engine in spec["engines"]]
    name = model[0]["name"] if isinstance(model[0], dict) else model[0]
    name = model_stem(name) if is_model_file(name) else name
    body = json.dumps(
        {
            "model": name,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 16,
        }
    )
    click.echo(f"\nThe appliance is at {plan.url} until Ctrl-C. In another terminal:\n")
    # Its certificate is of its own making, and nobody has vouched for it yet.
    insecure = " --insecure" if plan.tls else ""
    click.echo(f"  curl -s{insecure} {plan.url}/v1/chat/completions -H 'Content-Type: application/json' \\")
    if spec["gateway"]["tokens"]:
        click.echo('    -H "Authorization: Bearer $TOKEN" \\')
    click.echo(f"    -d {shlex.quote(body)}\n")
    click.echo(EXPECTED_ANSWER[plan.accelerator])
    if plan.ssh_port:
        click.echo(
            f"\nA debug image: ssh -i {plan.ssh_key} -p {plan.ssh_port} -o UserKnownHostsFile=/dev/null"
            " -o StrictHostKeyChecking=no root@127.0.0.1"
        )


def _events(as_json: bool) -> Callable[..., None]:
    def say(event: str, text: str, **values: object) -> None:
        click.echo(json.dumps({"event": event, **values}) if as_json else text)

    return say


def _copy_disk(plan: Plan, tools: Sandbox, *, fresh: bool) -> None:
    mark = plan.run_directory / "disk.made-from"
    identity = inputs_digest((plan.directory / MANIFEST).read_bytes())
    if not fresh and plan.files.disk.exists() and mark.exists() and mark.read_text() == identity:
        return
    mark.unlink(missing_ok=True)
    source = plan.directory / "disk.img"
    tools.run(
        ["cp", "--sparse=always", "--reflink=auto", str(source), str(plan.files.disk)],
        readable=[plan.directory],
        writable=[plan.run_directory],
        what="copying the disk",
    )
    mark.write_text(identity)


def _wrap(plan: Plan, tools: Sandbox) -> Wrap:
    def wrap(argv: Sequence[str], *, writable: Sequence[Path], network: bool) -> list[str]:
        devices = [Path("/dev/kvm")] if plan.accelerator is Accelerator.KVM else []
        if plan.machine.tee is Tee.SEV_SNP:
            devices.append(Path("/dev/sev"))
        quotes = [QUOTE_SERVICE.parent] if plan.machine.tee is Tee.TDX and QUOTE_SERVICE.exists() else []
        firmware = plan.files.firmware
        own = firmware is None or firmware.code.is_relative_to(OVMF)
        return tools.command(
            argv,
            readable=[
                plan.directory,
                *([] if own or firmware is None else [firmware.code]),
                *plan.machine.credential_files,
                *quotes,
            ],
            writable=writable,
            devices=devices,
            network=network,
            env={"TMPDIR": str(writable[0])},
        )

    return wrap
