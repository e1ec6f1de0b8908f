"""A real TPM's commands and bytes (swtpm): what it quotes is verified, and what does not fit is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from hal.attest.eventlog import EV_NO_ACTION, parse_event_log, pcrs
from hal.attest.policy import Policy
from hal.attest.tpm_structures import parse_tpm_public
from hal.attest.verdict import Asked, Verdict, judge
from hal.sandbox import Sandbox
from tests.attest.machines import NOW, SAMPLES, Situation, measurements
from tests.attest.software_tpm import SoftwareTpm, software_tpm
from tests.attest.tpm_machine import EVENTS, tpm_machine

SITUATION = Situation()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place with a short name: a socket's path has 107 bytes at most."""
    with TemporaryDirectory(prefix="hal-tpm-") as made:
        yield Path(made)


def boot(tpm: SoftwareTpm, events: tuple[tuple[int, bytes], ...] = EVENTS) -> None:
    """Measure as firmware does."""
    for register, data in events:
        tpm.extend(register, hashlib.sha256(data).digest())


def verdict(text: bytes, pinned: bytes, platforms: dict[str, Any] | None = None) -> Verdict:
    return judge(
        text,
        Asked(SITUATION.nonce, SITUATION.tls_key_sha256),
        measurements(platforms or tpm_machine().platforms),
        Policy(tpm_key=parse_tpm_public(pinned).spki),
        NOW,
    )


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_its_quote_is_verified(kind: str, tools: Sandbox, directory: Path) -> None:
    with software_tpm(tools, directory, kind) as tpm:
        boot(tpm)
        found = verdict(tpm.document(SITUATION, EVENTS), tpm.key)
    assert found.verified, found.checks


def test_it_is_the_same_machine_after_a_restart(tools: Sandbox, directory: Path) -> None:
    with software_tpm(tools, directory / "a") as tpm:
        pinned = tpm.key
    with software_tpm(tools, directory / "a") as tpm:
        boot(tpm)
        assert verdict(tpm.document(SITUATION, EVENTS), pinned).verified


BOOTS: dict[str, tuple[Callable[[SoftwareTpm], None], tuple[tuple[int, bytes], ...], str]] = {
    "another command line": (
        lambda tpm: boot(tpm, (*EVENTS[:-1], (12, b"debug"))),
        (*EVENTS[:-1], (12, b"debug")),
        "measurement",
    ),
    "hidden behind the good log": (
        lambda tpm: boot(tpm, (*EVENTS[:-1], (12, b"debug"))),
        EVENTS,
        "event log",
    ),
    "extended later": (lambda tpm: boot(tpm, (*EVENTS, (11, b"later"))), EVENTS, "event log"),
    "not booted": (lambda tpm: None, EVENTS, "event log"),
}


@pytest.mark.parametrize(("measured", "told", "check"), BOOTS.values(), ids=BOOTS)
def test_another_boot_is_refused(
    measured: Callable[[SoftwareTpm], None],
    told: tuple[tuple[int, bytes], ...],
    check: str,
    tools: Sandbox,
    directory: Path,
) -> None:
    with software_tpm(tools, directory) as tpm:
        measured(tpm)
        found = verdict(tpm.document(SITUATION, told), tpm.key)
    assert [one.name for one in found.failures] == [check]


def test_another_machine_is_refused(tools: Sandbox, directory: Path) -> None:
    with software_tpm(tools, directory / "a") as tpm:
        pinned = tpm.key
    with software_tpm(tools, directory / "b") as tpm:
        boot(tpm)
        found = verdict(tpm.document(SITUATION, EVENTS), pinned)
    assert [one.name for one in found.failures] == ["attestation key"]


# --- the log of a real firmware -------------------------------------------------------------------

OVMF_LOG = gzip.decompress((SAMPLES / "tpm-ovmf-eventlog.bin.gz").read_bytes())
OVMF_PCRS = {
    int(number): bytes.fromhex(value)
    for number, value in json.loads((SAMPLES / "tpm-ovmf-pcrs.json").read_text()).items()
}
IMA = 10
"""The kernel extends it by itself and keeps a log of its own."""

QUOTED = [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12]


def test_a_real_firmwares_log_gives_the_pcrs_that_its_kernel_showed() -> None:
    found = pcrs(parse_event_log(OVMF_LOG), "sha256")
    assert {number for number in found if found[number] != OVMF_PCRS[number]} == {IMA}


def test_what_a_real_firmware_logged_verifies_when_a_tpm_measured_it(tools: Sandbox, directory: Path) -> None:
    expected = {"tpm": [{"pcrs": {str(number): OVMF_PCRS[number].hex() for number in (4, 11, 12)}}]}
    with software_tpm(tools, directory) as tpm:
        for event in parse_event_log(OVMF_LOG):
            if event.kind != EV_NO_ACTION:
                tpm.extend(event.register, event.digests["sha256"])
        found = verdict(tpm.document(SITUATION, log=OVMF_LOG, selected=QUOTED), tpm.key, expected)
        assert found.verified, found.checks
        for number, name in ((4, "another boot loader"), (11, "another kernel"), (12, "came from outside")):
            wrong = {**expected["tpm"][0]["pcrs"], str(number): "00" * 31 + "01"}
            text = tpm.document(SITUATION, log=OVMF_LOG, selected=QUOTED)
            (failed,) = verdict(text, tpm.key, {"tpm": [{"pcrs": wrong}]}).failures
            assert failed.name == "measurement"
            assert name in failed.words
