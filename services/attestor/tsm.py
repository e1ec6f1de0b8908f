"""SNP reports and TDX quotes by the kernel's configfs-tsm (Documentation/ABI/testing/configfs-tsm).

A directory is made below …/tsm/report; the kernel fills it with attributes:

    inblob      write the data to be signed (an error is lost: the kernel takes it when the file is closed)
    outblob     read the report over it
    auxblob     read what the host gives beside it: an SNP host's certificates
    provider    what makes the reports
    generation  how often inblob was written, by whomever

So whether the report is over our data shows in `generation` alone: it must have gone up by one, and must
still be that after the report was read. The report says it too, at a known place, which is looked at as well.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from .document import Evidence

SECONDS = 20.0
"""How long an answer is tried for: a TDX host's quoting service takes seconds where it is busy."""

PAUSE = 0.05
LONGEST_PAUSE = 1.0

AGAIN = (errno.EBUSY, errno.EWOULDBLOCK, errno.EINTR)
"""Somebody else's report is being made, or ours was not taken."""

LARGEST = 1 << 20
"""Bytes of an attribute: the kernel's own bounds are 32 KiB, in newer ones 16 MiB for a certificate chain."""


class EvidenceError(Exception):
    """There is no evidence now; the message says why in one line."""


class Provider(NamedTuple):
    """A provider: the platform, what its report is called, and where in the report the signed data stand."""

    platform: str
    part: str
    offset: int


PROVIDERS = {
    "sev_guest": Provider("sev-snp", "report", 0x50),  # SEV-SNP Firmware ABI, table "ATTESTATION_REPORT"
    "tdx_guest": Provider("tdx", "quote", 48 + 520),  # header, then the report's body up to REPORTDATA
}


class Attributes(Protocol):
    """An entry's attributes; tests have a kernel's behaviour behind them."""

    def read(self, name: str) -> bytes:
        """The whole of an attribute."""

    def write(self, name: str, data: bytes) -> None:
        """Write an attribute at once."""


class Entry:
    """An entry of configfs-tsm: a directory."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, name: str) -> bytes:
        """The whole of an attribute; the kernel makes it at the first read, and keeps it for this opening."""
        with open(f"{self._path}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            found = b""
            while chunk := file.read(65536):
                found += chunk
                if len(found) > LARGEST:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return found

    def write(self, name: str, data: bytes) -> None:
        """Write an attribute at once: each call of write(2) would be a value of its own."""
        descriptor = os.open(f"{self._path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


class Tsm:
    """Evidence of a confidential machine; `event_log` is firmware's log of a TDX guest, if there is one."""

    def __init__(
        self,
        entry: Attributes,
        event_log: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._entry = entry
        self._clock = clock
        self._sleep = sleep
        self._event_log = event_log
        name = entry.read("provider").decode("ascii", "replace").strip()
        if name not in PROVIDERS:
            raise EvidenceError(f"configfs-tsm has the provider {name!r:.40}, which is not known here")
        self.provider = PROVIDERS[name]

    @property
    def platform(self) -> str:
        """The name of the platform."""
        return self.provider.platform

    def evidence(self, data: bytes) -> Evidence:
        """Evidence over 64 bytes.

        Raises:
            EvidenceError: the kernel or the host gives none.
        """
        deadline, pause = self._clock() + SECONDS, PAUSE
        while True:
            try:
                found = self._attempt(data)
            except OSError as error:
                if error.errno not in AGAIN:
                    raise EvidenceError(f"configfs-tsm: {error.strerror}") from None
                found = None
            if found is not None:
                return found
            if self._clock() + pause > deadline:
                raise EvidenceError("configfs-tsm is busy: others ask for reports at the same time")
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _attempt(self, data: bytes) -> Evidence | None:
        before = self._generation()
        self._entry.write("inblob", data)
        if self._generation() != before + 1:
            return None
        report = self._entry.read("outblob")
        auxiliary = self._auxiliary() if self.platform == "sev-snp" else None
        if self._generation() != before + 1:
            return None
        offset = self.provider.offset
        if report[offset : offset + len(data)] != data:
            raise EvidenceError("configfs-tsm gave a report over something else")
        if self.platform == "sev-snp":
            return Evidence(self.platform, {"report": report, "auxiliary": auxiliary})
        return Evidence(self.platform, {"quote": report, "event_log": self._log()})

    def _generation(self) -> int:
        try:
            return int(self._entry.read("generation"))
        except ValueError:
            raise EvidenceError("configfs-tsm's generation is no number") from None

    def _auxiliary(self) -> bytes | None:
        """The host's certificates; None where it gives none, or the kernel has no such attribute."""
        try:
            return self._entry.read("auxblob") or None
        except FileNotFoundError:
            return None

    def _log(self) -> bytes | None:
        try:
            with open(self._event_log, "rb") as file:  # noqa: PTH123
                return file.read(LARGEST) or None
        except OSError:
            return None
