"""The real attestor with a real TPM 2.0 (swtpm), asked by the real client: green, and red for each reason."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hal.attest.eventlog import EV_NO_ACTION, parse_event_log
from hal.attest.tpm_structures import parse_tpm_public, parse_tpm_quote
from hal.cli.main import main
from hal.sandbox import Sandbox
from services.attestor import tpm, tpm_commands
from services.attestor.machine import Places
from services.attestor.tpm import REGISTERS, Tpm
from services.attestor.tpm_commands import TpmError
from services.attestor.tsm import EvidenceError
from tests.attest.appliance import serving, tls_key
from tests.attest.machines import MANIFEST, SAMPLES, Situation, flipped, manifest_text, measurements
from tests.attest.software_tpm import SoftwareTpm, software_tpm
from tests.services.attestor_world import Attestor, attestor, places

LOG = gzip.decompress((SAMPLES / "tpm-ovmf-eventlog.bin.gz").read_bytes())
"""What OVMF and systemd-stub logged in a boot of an image of hal."""

VALUES: dict[str, str] = json.loads((SAMPLES / "tpm-ovmf-pcrs.json").read_text())
PLATFORMS = {"tpm": [{"pcrs": {number: VALUES[number] for number in ("4", "11", "12")}}]}

KEY = tls_key("gateway")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place with a short name: a socket's path has 107 bytes at most."""
    with TemporaryDirectory(prefix="hal-at-") as made:
        yield Path(made)


class Exchange:
    """A way for the attestor's own code to a software TPM in this process."""

    def __init__(self, running: SoftwareTpm) -> None:
        self.running = running
        self.commands: list[int] = []
        self.answers: list[bytes] = []
        self.closed = 0
        self.retried = False

    def exchange(self, command: bytes) -> bytes:
        code = struct.unpack_from(">HII", command)[2]
        if self.answers:
            self.commands.append(code)
            return self.answers.pop(0)
        if self.retried:  # swtpm wants it once more now and then
            self.retried = False
        else:
            self.commands.append(code)
        self.running.connection.sendall(command)
        head = self.running._receive(10)
        size, status = struct.unpack_from(">II", head, 2)
        self.retried = status in tpm_commands.AGAIN
        return head + self.running._receive(size - 10)

    def close(self) -> None:
        self.closed += 1


def error(status: int) -> bytes:
    return struct.pack(">HII", 0x8001, 10, status)


def measured(running: SoftwareTpm, log: bytes) -> None:
    """Measure what a log tells of, as firmware did."""
    for event in parse_event_log(log):
        if event.kind != EV_NO_ACTION:
            running.extend(event.register, event.digests["sha256"])


@contextmanager
def machine(
    tools: Sandbox, directory: Path, log: bytes = LOG, told: bytes | None = None, manifest: Any = MANIFEST
) -> Iterator[tuple[Attestor, bytes]]:
    """A machine that has booted as `log` says (and says `told`): its attestor, and its attestation key."""
    found = places(directory / "m", KEY, manifest)._replace(tpm=f"{directory}/tpm/socket")
    Path(found.tpm_event_log).write_bytes(log if told is None else told)
    with software_tpm(tools, directory / "tpm") as running:
        measured(running, log)
        key = running.key
        running.connection.close()  # swtpm serves one connection at a time
        with attestor(found) as served:
            yield served, key


def ask(served: Attestor, key: bytes, directory: Path, expected: Any = None, **changed: Any) -> Result:
    """`hal verify` of it, over TLS; `changed`: `answer` and `tls` are other than they should be."""

    def answer(situation: Situation) -> bytes:
        text = served.document(changed.get("nonce", situation.nonce))
        return changed["change"](text) if "change" in changed else text

    (directory / "measurements.json").write_text((expected or measurements(PLATFORMS)).text())
    (directory / "key").write_bytes(key)
    with serving(answer, changed.get("tls", KEY)) as gateway:
        arguments = ["verify", gateway.url, "--measurements", f"{directory}/measurements.json", "--json"]
        return CliRunner().invoke(main, [*arguments, "--tpm-key", f"{directory}/key"])


def failures(done: Result) -> dict[str, str]:
    """The checks that failed, with their words."""
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert not found["verified"]
    return {check["name"]: check["words"] for check in found["checks"] if check["ok"] is False}


def test_green(tools: Sandbox, directory: Path) -> None:
    with machine(tools, directory) as (served, key):
        for _ in range(2):
            done = ask(served, key, directory)
            assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["verified"]
        assert json.loads(done.stdout)["platform"] == "tpm"


def test_red(tools: Sandbox, directory: Path) -> None:
    """Each with its own reason."""
    with machine(tools, directory) as (served, key):
        replayed = failures(ask(served, key, directory, nonce=b"\x01" * 32))
        assert set(replayed) == {"nonce", "report data"}
        assert "replayed" in replayed["nonce"]
        between = failures(ask(served, key, directory, tls=tls_key("in the middle")))
        assert set(between) == {"TLS key", "report data"}
        unknown = {**MANIFEST, "packs": []}
        packs = failures(ask(served, key, directory, measurements(PLATFORMS, manifest=unknown)))
        assert "pack 'smollm2-135m' is unknown" in packs["manifest"]
        debug = failures(ask(served, key, directory, measurements(PLATFORMS, debug=True)))
        assert "variant" in debug
        for number, words in (("4", "boot loader"), ("11", "command line"), ("12", "outside")):
            pcrs = {**PLATFORMS["tpm"][0]["pcrs"], number: "ab" * 32}
            other = failures(ask(served, key, directory, measurements({"tpm": [{"pcrs": pcrs}]})))
            assert set(other) == {"measurement"}
            assert words in other["measurement"]
    with machine(tools, directory / "other") as (served, other_key):
        assert other_key != key
        assert set(failures(ask(served, key, directory))) == {"attestation key"}


def test_a_tampered_log_is_red(tools: Sandbox, directory: Path) -> None:
    place = LOG.index(next(e for e in parse_event_log(LOG) if e.register == 11).digests["sha256"])
    with machine(tools, directory, told=flipped(LOG, 8 * place)) as (served, key):
        assert set(failures(ask(served, key, directory))) == {"event log"}


def test_a_log_that_is_missing_is_red(tools: Sandbox, directory: Path) -> None:
    with machine(tools, directory, told=b"") as (served, key):
        assert set(failures(ask(served, key, directory))) == {"event log"}


# --- the TPM ----------------------------------------------------------------------------------------


def attesting(running: SoftwareTpm, directory: Path) -> tuple[Tpm, Exchange]:
    way = Exchange(running)
    (directory / "log").write_bytes(LOG)
    return Tpm(lambda: way, str(directory / "log"), sleep=lambda seconds: None), way


def test_the_key_is_restricted_and_made_once(tools: Sandbox, directory: Path) -> None:
    with software_tpm(tools, directory / "tpm") as running:
        prover, way = attesting(running, directory)
        first, second = prover.evidence(b"a" * 64), prover.evidence(b"b" * 64)
    assert way.commands == [tpm_commands.CREATE_PRIMARY, tpm_commands.QUOTE, tpm_commands.QUOTE]
    assert first.parts["key"] == second.parts["key"] == running.key
    key = parse_tpm_public(first.parts["key"] or b"")
    assert isinstance(key.key, ec.EllipticCurvePublicKey)
    assert key.attributes == 0x00050072
    quote = parse_tpm_quote(first.parts["quote"] or b"")
    assert quote.selection == (("sha256", REGISTERS),)
    assert quote.extra_data == hashlib.sha256(b"a" * 64).digest()
    assert 10 not in REGISTERS


def test_a_tpm_without_the_curve_makes_an_rsa_key(tools: Sandbox, directory: Path) -> None:
    with software_tpm(tools, directory / "tpm") as running:
        prover, way = attesting(running, directory)
        way.answers = [error(0x2D2)]  # TPM_RC_CURVE of the second parameter
        found = prover.evidence(b"a" * 64)
    assert isinstance(parse_tpm_public(found.parts["key"] or b"").key, rsa.RSAPublicKey)


def test_a_tpm_that_wants_time_gets_it(tools: Sandbox, directory: Path) -> None:
    with software_tpm(tools, directory / "tpm") as running:
        prover, way = attesting(running, directory)
        way.answers = [error(status) for status in tpm_commands.AGAIN]
        assert prover.evidence(b"a" * 64).parts["key"] == running.key
        assert len(way.commands) == 5


def test_a_key_that_is_gone_is_made_again(tools: Sandbox, directory: Path) -> None:
    """As after a reset: the handle means nothing any more."""
    with software_tpm(tools, directory / "tpm") as running:
        prover, way = attesting(running, directory)
        prover.evidence(b"a" * 64)
        way.answers = [error(0x18B)]
        assert prover.evidence(b"b" * 64).parts["key"] == running.key
    assert way.closed == 1
    assert way.commands[2:] == [tpm_commands.QUOTE, tpm_commands.CREATE_PRIMARY, tpm_commands.QUOTE]


class Broken:
    """A TPM that answers nothing of use."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def exchange(self, command: bytes) -> bytes:
        del command
        return self.answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "answer",
    [b"", error(0x101), error(0x922), struct.pack(">HII", 0x8002, 99, 0), struct.pack(">HII", 0x8002, 10, 0)],
)
def test_a_tpm_that_fails_is_said(answer: bytes, tmp_path: Path) -> None:
    prover = Tpm(lambda: Broken(answer), str(tmp_path / "log"), sleep=lambda seconds: None)
    with pytest.raises(EvidenceError, match="TPM"):
        prover.evidence(b"a" * 64)


def test_a_device_that_may_not_be_opened_is_said(tmp_path: Path) -> None:
    prover = Tpm(lambda: tpm.Device(str(tmp_path / "tpmrm0")), "")
    with pytest.raises(EvidenceError, match="No such file"):
        prover.evidence(b"a" * 64)


def test_a_quote_of_something_else_is_not_taken() -> None:
    attest = struct.pack(">IH", 0xFF544347, 0x8018) + b"\0\0" + struct.pack(">H", 32) + b"x" * 32
    body = struct.pack(">IH", 2 + len(attest) + 4, len(attest)) + attest + b"sign"
    answer = struct.pack(">HII", 0x8002, 10 + len(body), 0) + body
    assert tpm_commands.read_quote(answer, b"x" * 32) == (attest, b"sign")
    with pytest.raises(TpmError, match="something else"):
        tpm_commands.read_quote(answer, b"y" * 32)
    for end in range(len(answer)):
        with pytest.raises(TpmError):
            tpm_commands.read_quote(answer[:end], b"x" * 32)


def test_the_daemon_says_that_a_tpm_is_gone(tools: Sandbox, directory: Path) -> None:
    with machine(tools, directory) as (served, _):
        found: Places = served.places
        assert manifest_text() == Path(found.manifest).read_bytes()
        with attestor(found._replace(tpm=str(directory), socket=f"{directory}/other")) as broken:
            status, _, body = broken.get(f"?nonce={'0' * 64}")
    assert status == 503
    assert "the TPM" in body["error"]["message"]
