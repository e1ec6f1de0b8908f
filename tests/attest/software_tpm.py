"""A software TPM 2.0 (swtpm) that is spoken to as a driver would: TCG's TPM 2.0 Library, part 3, as bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hal.attest.report_data import qualifying_data
from hal.sandbox import Sandbox
from tests.attest.machines import Situation, document
from tests.attest.tpm_machine import SELECTED, event_log, tpm2b

ENDORSEMENT = 0x4000000B
CREATE_PRIMARY, QUOTE, PCR_EXTEND = 0x131, 0x158, 0x182

RETRY = 0x922
"""TPM_RC_RETRY: it had something of its own to write first."""

EMPTY_PASSWORD = struct.pack(">IHBH", 0x40000009, 0, 0, 0)

TEMPLATES = {
    "ecc": struct.pack(">HHIHHHHHHHH", 0x23, 0x0B, 0x00050072, 0, 0x10, 0x18, 0x0B, 0x0003, 0x10, 0, 0),
    "rsa": struct.pack(">HHIHHHHHIH", 0x01, 0x0B, 0x00050072, 0, 0x10, 0x14, 0x0B, 2048, 0, 0),
}
"""Restricted signing keys: what an attestation key is."""


@dataclass
class SoftwareTpm:
    """A TPM that runs; `key` is its attestation key as TPMT_PUBLIC."""

    connection: socket.socket
    handle: int = 0
    key: bytes = b""

    def command(self, code: int, handle: int, parameters: bytes) -> bytes:
        """What a command with an empty password answers, from behind the header."""
        body = struct.pack(">II", handle, len(EMPTY_PASSWORD)) + EMPTY_PASSWORD + parameters
        status = RETRY
        for _ in range(10):
            if status == RETRY:
                self.connection.sendall(struct.pack(">HII", 0x8002, 10 + len(body), code) + body)
                _, size, status = struct.unpack(">HII", self._receive(10))
                answer = self._receive(size - 10)
        assert status == 0, f"the TPM refused command {code:#x}: {status:#x}"
        return answer

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            assert more, "the TPM hung up"
            data += more
        return data

    def make_key(self, kind: str) -> None:
        """Make the attestation key, in the endorsement hierarchy."""
        parameters = tpm2b(bytes(4)) + tpm2b(TEMPLATES[kind]) + bytes(2 + 4)
        answer = self.command(CREATE_PRIMARY, ENDORSEMENT, parameters)
        (self.handle,) = struct.unpack_from(">I", answer)
        (size,) = struct.unpack_from(">H", answer, 8)
        self.key = answer[10 : 10 + size]

    def extend(self, register: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank."""
        self.command(PCR_EXTEND, register, struct.pack(">IH", 1, 0x0B) + digest)

    def quote(self, extra_data: bytes, selected: Sequence[int] = SELECTED) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over the selected PCRs."""
        bits = sum(1 << number for number in selected).to_bytes(3, "little")
        parameters = tpm2b(extra_data) + struct.pack(">HIHB", 0x10, 1, 0x0B, 3) + bits
        answer = self.command(QUOTE, self.handle, parameters)
        size, length = struct.unpack_from(">IH", answer)
        return answer[6 : 6 + length], answer[6 + length : 4 + size]

    def document(
        self,
        situation: Situation,
        events: Sequence[tuple[int, bytes]] = (),
        *,
        log: bytes = b"",
        selected: Sequence[int] = SELECTED,
    ) -> bytes:
        """What an attestor with this TPM answers; `events` are what its log says, unless it is given."""
        quote, signature = self.quote(qualifying_data(situation.report_data), selected)
        given = log or event_log(events)
        evidence = {"quote": quote, "signature": signature, "key": self.key, "event_log": given}
        return document(situation, "tpm", evidence)


@contextlib.contextmanager
def software_tpm(tools: Sandbox, directory: Path, kind: str = "ecc") -> Iterator[SoftwareTpm]:
    """A TPM with its state in `directory`: the same directory is the same TPM, after a restart."""
    directory.mkdir(exist_ok=True)
    path = directory / "socket"
    path.unlink(missing_ok=True)
    argv = [
        *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}"),
        *("--server", f"type=unixio,path={path}", "--flags", "not-need-init,startup-clear"),
    ]
    process = subprocess.Popen(tools.command(argv, writable=[directory]), stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            while True:
                try:
                    connection.connect(str(path))
                    break
                except OSError:
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < deadline, "swtpm does not listen"
                    time.sleep(0.02)
            tpm = SoftwareTpm(connection)
            tpm.make_key(kind)
            yield tpm
    finally:
        process.kill()
        process.communicate()
