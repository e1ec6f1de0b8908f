"""The attestor on this machine: its real socket and HTTP, a kernel's configfs-tsm as a directory, a real TPM.

Only paths differ from the appliance, and that a software TPM is spoken to over a socket.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.attestor import document
from services.attestor.machine import Places
from tests.attest.appliance import self_signed
from tests.attest.machines import MANIFEST, manifest_text
from tests.attest.snp_machine import SnpMachine

NONCE = bytes(range(32))
DATA = bytes(range(64))
D = NONCE.hex()
MACHINE = document.machine(manifest_text(), b"")

ROOT = Path(__file__).resolve().parents[2]
MAIN = """
    import socket, struct, sys
    from services.attestor import daemon
    from services.attestor.machine import Places, prover

    class Socket:
        def __init__(self, path):
            self.to = socket.socket(socket.AF_UNIX)
            self.to.connect(path)

        def exchange(self, command):
            self.to.sendall(command)
            head = self.take(10)
            return head + self.take(struct.unpack_from(">I", head, 2)[0] - 10)

        def take(self, size):
            data = b""
            while len(data) < size:
                more = self.to.recv(size - len(data))
                if not more:
                    raise OSError(5, "it hung up")
                data += more
            return data

        def close(self):
            self.to.close()

    sys.exit(daemon.run(Places(*sys.argv[1:]), lambda places: prover(places, Socket)))
"""
BOOT = {"version": 1, "stages": [{"name": "root", "outcome": "verified", "ms": 210}]}


@dataclass
class Attestor:
    """One that runs; `places` are its paths."""

    places: Places
    process: subprocess.Popen[Any]

    def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, head and body of the answer to raw bytes."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(self.places.socket)
            connection.sendall(request)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), fields, body

    def get(self, query: str) -> tuple[int, dict[str, str], Any]:
        status, fields, body = self.send(f"GET /attestation{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return status, fields, json.loads(body)

    def post(self, body: bytes) -> tuple[int, dict[str, str], Any]:
        head = f"POST /attestation HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        status, fields, found = self.send(head.encode() + body)
        return status, fields, json.loads(found)

    def document(self, nonce: bytes) -> bytes:
        """The document for a nonce; waits where there were too many questions."""
        while True:
            status, fields, body = self.send(
                f"GET /attestation?nonce={nonce.hex()} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            )
            if status != 429:
                assert status == 200, body
                return body
            time.sleep(int(fields["retry-after"]))


def places(directory: Path, key: Any = None, manifest: Mapping[str, Any] = MANIFEST) -> Places:
    """The paths of an appliance below a directory, with its files; `key` is the gateway's (None: no TLS)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.json").write_bytes(manifest_text(manifest))
    (directory / "boot.json").write_text(json.dumps(BOOT))
    if key is not None:
        (directory / "certificate.pem").write_bytes(self_signed(key).partition(b"-----BEGIN PRIVATE")[0])
    return Places(
        manifest=f"{directory}/manifest.json",
        boot_report=f"{directory}/boot.json",
        certificate=f"{directory}/certificate.pem",
        socket=f"{directory}/http",
        tsm=f"{directory}/tsm",
        tdx_event_log=f"{directory}/CCEL",
        tpm=f"{directory}/tpmrm0",
        tpm_event_log=f"{directory}/binary_bios_measurements",
    )


@contextmanager
def attestor(places: Places) -> Iterator[Attestor]:
    """The daemon as a process."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MAIN), *places],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    try:
        deadline = time.monotonic() + 20
        while not Path(places.socket).exists():
            if process.poll() is not None:
                assert process.stdout is not None
                pytest.fail(process.stdout.read())
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Attestor(places, process)
    finally:
        process.kill()
        process.wait()


# --- configfs-tsm -----------------------------------------------------------------------------------

Report = Callable[[bytes], bytes]


@dataclass
class Kernel:
    """An entry of configfs-tsm as a directory, with what drivers/virt/coco/tsm.c does behind its files.

    `report` is the provider's; `busy` are errors of its next attempts. `before` is called ahead of each
    access with its name, and may write as somebody else does. `refuse_writes`: so many writes are lost, which
    the kernel tells nobody of, as it takes an attribute's value when the file is closed.
    """

    directory: Path
    provider: str
    report: Report
    auxiliary: bytes | None = None
    busy: list[int] = field(default_factory=list)
    refuse_writes: int = 0
    before: Callable[[str], None] = lambda name: None
    reports: int = 0
    accesses: list[str] = field(default_factory=list)
    _written: int = 0
    _read: int | None = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self._put("generation", b"0\n")
        self._put("provider", f"{self.provider}\n".encode())
        for name in ("inblob", "outblob", *(("auxblob",) if self.auxiliary is not None else ())):
            self._put(name, b"")

    def _put(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(data)

    def _get(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def take(self, data: bytes) -> None:
        """A write of inblob, by anybody."""
        self._written += 1
        self._put("inblob", data)
        self._put("generation", f"{self._written}\n".encode())

    def write(self, name: str, data: bytes) -> None:
        self.accesses.append(f"write {name}")
        self.before(f"write {name}")
        assert name == "inblob"
        assert 0 < len(data) <= 64
        if self.refuse_writes:
            self.refuse_writes -= 1
        else:
            self.take(data)

    def read(self, name: str) -> bytes:
        self.accesses.append(f"read {name}")
        self.before(f"read {name}")
        if name in ("outblob", "auxblob"):
            if not (self.directory / name).exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if not self._get("inblob"):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if self._read != self._written:
                if self.busy:
                    number = self.busy.pop(0)
                    raise OSError(number, os.strerror(number))
                self.reports += 1
                self._put("outblob", self.report(self._get("inblob")))
                if self.auxiliary is not None:
                    self._put("auxblob", self.auxiliary)
                self._read = self._written
        return self._get(name)


def snp(data: bytes) -> bytes:
    return SnpMachine().report(data)


def tdx(data: bytes) -> bytes:
    return bytes(568) + data + bytes(4000)
