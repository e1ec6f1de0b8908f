"""Where everything lies in the appliance, and what this machine can prove with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from .document import NONE, Evidence
from .tpm import Device, Tpm, Transport
from .tsm import Entry, EvidenceError, Tsm


class Places(NamedTuple):
    """Paths. `tsm` is an entry of configfs-tsm, which root has made and given to this service."""

    manifest: str = "/usr/lib/hal/manifest.json"
    boot_report: str = "/run/hal/boot.json"
    certificate: str = "/run/hal/gateway/certificate.pem"
    socket: str = "/run/hal/attestor/http.sock"
    tsm: str = "/sys/kernel/config/tsm/report/hal"
    tdx_event_log: str = "/sys/firmware/acpi/tables/data/CCEL"
    tpm: str = "/dev/tpmrm0"
    tpm_event_log: str = "/sys/kernel/security/tpm0/binary_bios_measurements"


class Prover(Protocol):
    """What evidence comes from."""

    @property
    def platform(self) -> str:
        """The name of the platform."""

    def evidence(self, data: bytes) -> Evidence:
        """Evidence over 64 bytes.

        Raises:
            EvidenceError: there is none now.
        """


class Nothing:
    """A machine that can prove nothing, and says so."""

    platform = NONE.platform

    def evidence(self, data: bytes) -> Evidence:
        """None at all."""
        return NONE


class Unusable:
    """Something that should prove and cannot be used: evidence of less would be no answer to that."""

    platform = NONE.platform

    def __init__(self, words: str) -> None:
        self._words = words

    def evidence(self, data: bytes) -> Evidence:
        """None, and why."""
        raise EvidenceError(self._words)


def prover(places: Places, connect: Callable[[str], Transport] = Device) -> Prover:
    """What this machine has: a TEE by configfs-tsm, else a TPM, else nothing.

    A TEE comes first: a TPM beside it may be one that the host emulates.
    """
    if os.path.isdir(places.tsm):  # noqa: PTH112 (pathlib costs at start-up)
        try:
            return Tsm(Entry(places.tsm), places.tdx_event_log)
        except OSError as error:
            return Unusable(f"{places.tsm}: {error.strerror}")
        except EvidenceError as error:
            return Unusable(str(error))
    if os.path.exists(places.tpm):  # noqa: PTH110
        return Tpm(lambda: connect(places.tpm), places.tpm_event_log)
    return Nothing()
