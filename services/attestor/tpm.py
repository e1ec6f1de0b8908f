"""Quotes of a TPM 2.0, through the kernel's resource manager (/dev/tpmrm0), with firmware's event log.

The attestation key is made in the TPM when it is first needed in a boot, and never leaves it. It comes from
the TPM's endorsement seed: the same TPM makes the same key in each boot, and that key can be pinned.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from . import tpm_commands as commands
from .document import Evidence
from .report_data import qualifying_data
from .tpm_commands import Key, TpmError
from .tsm import EvidenceError

PLATFORM = "tpm"

REGISTERS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13)
"""What is quoted: the PCRs that firmware, boot loader and UKI extend, all of it in their log.

10 is the kernel's own (IMA), with a log of its own; 8, 14 and 15 nobody extends here.
"""

ATTEMPTS = 50
PAUSE = 0.1
LARGEST_LOG = 1 << 20


class Transport(Protocol):
    """A way to a TPM."""

    def exchange(self, command: bytes) -> bytes:
        """A whole command in, a whole answer out."""

    def close(self) -> None:
        """Give it back; the resource manager flushes what was made on this way."""


class Device:
    """A TPM's character device: a write is a command, the next read its answer (drivers/char/tpm)."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def exchange(self, command: bytes) -> bytes:
        """A whole command in, a whole answer out."""
        os.write(self._descriptor, command)
        return os.read(self._descriptor, commands.LARGEST)

    def close(self) -> None:
        """Close the device."""
        os.close(self._descriptor)


class Tpm:
    """Evidence of a machine with a TPM; `event_log` is the path of firmware's log."""

    platform = PLATFORM

    def __init__(
        self,
        connect: Callable[[], Transport],
        event_log: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect = connect
        self._event_log = event_log
        self._sleep = sleep
        self._transport: Transport | None = None
        self._key: Key | None = None

    def evidence(self, data: bytes) -> Evidence:
        """A quote that carries sha256 of `data`.

        Raises:
            EvidenceError: the TPM gives none.
        """
        try:
            return self._quoted(data)
        except (OSError, TpmError):
            # The TPM was reset, or its driver: what was made before is gone. Once more, from the beginning.
            self.close()
        try:
            return self._quoted(data)
        except OSError as error:
            self.close()
            raise EvidenceError(f"the TPM: {error.strerror}") from None
        except TpmError as error:
            self.close()
            raise EvidenceError(str(error)) from None

    def close(self) -> None:
        """Give the TPM back."""
        transport, self._transport, self._key = self._transport, None, None
        if transport is not None:
            transport.close()

    def _quoted(self, data: bytes) -> Evidence:
        key = self._attestation_key()
        qualifying = qualifying_data(data)
        answer = self._done(commands.quote(key.handle, qualifying, REGISTERS), "to quote")
        found = commands.read_quote(answer, qualifying)
        parts = {"quote": found.quote, "signature": found.signature, "key": key.public}
        return Evidence(PLATFORM, {**parts, "event_log": self._log()})

    def _attestation_key(self) -> Key:
        if self._transport is None:
            self._transport = self._connect()
        if self._key is None:
            *others, last = commands.TEMPLATES
            for name in others:
                try:
                    self._key = self._made(name)
                    break
                except TpmError:  # it has no such curve
                    continue
            else:
                self._key = self._made(last)
        return self._key

    def _made(self, name: str) -> Key:
        answer = self._done(commands.create_primary(commands.TEMPLATES[name]), f"to make a key ({name})")
        return commands.read_key(answer)

    def _done(self, command: bytes, what: str) -> bytes:
        assert self._transport is not None
        status = 0
        for _ in range(ATTEMPTS):
            answer = self._transport.exchange(command)
            status = commands.read_status(answer)
            if status == 0:
                return answer
            if status not in commands.AGAIN:
                break
            self._sleep(PAUSE)
        raise TpmError(f"the TPM refused {what}: response code {status:#05x}")

    def _log(self) -> bytes:
        """Firmware's log; empty where it left none, which no verifier takes for a good one."""
        try:
            with open(self._event_log, "rb") as file:  # noqa: PTH123
                return file.read(LARGEST_LOG)
        except OSError:
            return b""
