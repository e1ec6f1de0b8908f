"""Asking a booted machine with a TPM for evidence, and `hal verify` for what is wrong with it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

from click.testing import CliRunner, Result

from hal.attest.connection import fetch_document, parse_place
from hal.cli.main import main
from hal.machine.boot import Wishes
from hal.machine.qemu import http_probe
from tests.appliance.conftest import Appliance

WISHES = Wishes(port=0, firmware="ovmf", tpm=True)
SECONDS = 120
"""For an answer: the first one starts the attestor, on a machine that is still booting."""

ASKED = b"\x17" * 32


def wait(machine: Appliance) -> None:
    """Until the attestor answers; the gateway does so before."""
    probe = http_probe(machine.plan.port, "/attestation", tls=True, accepts=lambda status: status == 400)

    def answers() -> bool:
        time.sleep(1)  # each is a question, and those of a minute are counted
        return probe()

    machine.wait_gateway(60)
    machine.vm.wait(answers, machine.deadline(60), "the attestor")


def fetch(machine: Appliance, nonce: bytes = ASKED) -> tuple[bytes, bytes]:
    """The document for a nonce, and the digest of the key that it came over."""
    return fetch_document(parse_place(machine.url), nonce, SECONDS)


def key_of(machine: Appliance) -> bytes:
    """Its attestation key, as a person pins it who has reason to trust the way."""
    return base64.b64decode(json.loads(fetch(machine)[0])["evidence"]["key"])


def verify(url: str, measurements: Path, key: bytes, directory: Path, *options: str) -> Result:
    pinned = directory / "key.tpmt"
    pinned.write_bytes(key)
    arguments = ["verify", url, "--measurements", str(measurements), "--tpm-key", str(pinned), "--json"]
    return CliRunner().invoke(main, [*arguments, *options])


def reasons(done: Result) -> dict[str, str]:
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert not found["verified"]
    return {check["name"]: check["words"] for check in found["checks"] if check["ok"] is False}
