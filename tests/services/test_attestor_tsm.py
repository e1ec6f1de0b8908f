"""The attestor and the kernel's configfs-tsm: its races, what it says when it is busy, what comes of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hal.attest.document import read_evidence_document
from hal.attest.policy import Policy
from hal.attest.report_data import report_data as verified
from hal.attest.snp import verify_snp
from services.attestor import document
from services.attestor.tsm import Entry, EvidenceError, Tsm
from tests.attest.machines import NOW, measurements, sha256
from tests.attest.snp_machine import TCB, SnpMachine, authority
from tests.services.attestor_world import DATA, MACHINE, NONCE, Kernel, snp, tdx


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def tsm(kernel: Kernel, log: str = "") -> Tsm:
    clock = Clock()
    return Tsm(kernel, log, lambda: clock.now, clock.sleep)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return tmp_path / "tsm" / "report" / "hal"


def test_a_report_with_the_hosts_certificates(entry: Path) -> None:
    kernel = Kernel(entry, "sev_guest", snp, auxiliary=b"certificates")
    found = tsm(kernel).evidence(DATA)
    assert found.platform == "sev-snp"
    assert found.parts["report"] is not None
    assert found.parts["report"][0x50:0x90] == DATA
    assert found.parts["auxiliary"] == b"certificates"
    assert kernel.reports == 1
    assert kernel.accesses[0] == "read provider"


@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
def test_the_verifier_takes_what_is_made_of_it(entry: Path, kind: str) -> None:
    """A machine whose host gives certificates: nothing had to be fetched elsewhere."""
    guest = SnpMachine(kind=kind)
    issuer = {"ASK": authority().asvk.public_bytes(Encoding.DER)} if kind == "VLEK" else {}
    kernel = Kernel(entry, "sev_guest", guest.report, guest.table(**issuer))
    data = document.signed(NONCE, b"k" * 32, MACHINE)
    assert data is not None
    text = document.document(NONCE, b"k" * 32, MACHINE, tsm(kernel).evidence(data))
    read = read_evidence_document(text.encode())
    shapes = measurements(guest.platforms).platforms.sev_snp
    policy = Policy(minimum_tcb=TCB)
    checks = list(
        verify_snp(
            read, verified(NONCE, b"k" * 32, sha256(read.manifest)), shapes, policy, NOW, authority().roots
        )
    )
    assert [check.name for check in checks if not check.ok] == []
    assert len(checks) == 7


@pytest.mark.parametrize("auxiliary", [None, b""], ids=["no attribute", "empty"])
def test_a_host_without_certificates(entry: Path, auxiliary: bytes | None) -> None:
    assert tsm(Kernel(entry, "sev_guest", snp, auxiliary)).evidence(DATA).parts["auxiliary"] is None


def test_a_quote_with_firmwares_log(entry: Path, tmp_path: Path) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, auxiliary=b"")
    (tmp_path / "CCEL").write_bytes(b"log")
    found = tsm(kernel, str(tmp_path / "CCEL")).evidence(DATA)
    assert found == document.Evidence("tdx", {"quote": tdx(DATA), "event_log": b"log"})
    assert tsm(kernel, str(tmp_path / "nothing")).evidence(DATA).parts["event_log"] is None


RACES = ("write inblob", "read generation", "read outblob", "read auxblob")


@pytest.mark.parametrize("moment", RACES)
@pytest.mark.parametrize("times", [1, 3])
def test_somebody_elses_write_in_between_is_noticed(entry: Path, moment: str, times: int) -> None:
    """Whenever it comes, what is given is over our data, and is asked for anew only where it has to be."""
    left = times

    def intrude(name: str) -> None:
        nonlocal left
        if name == moment and left:
            left -= 1
            kernel.take(b"e" * 64)

    kernel = Kernel(entry, "sev_guest", snp, auxiliary=b"c", before=intrude)
    found = tsm(kernel).evidence(DATA)
    assert left == 0
    assert found.parts["report"] is not None
    assert found.parts["report"][0x50:0x90] == DATA


def test_a_write_in_between_that_leaves_our_own_report(entry: Path) -> None:
    """Another's write after our report: its certificates could be another report's."""
    moments: list[str] = []

    def intrude(name: str) -> None:
        moments.append(name)
        if name == "read auxblob" and moments.count(name) == 1:
            kernel.take(b"e" * 64)

    kernel = Kernel(entry, "sev_guest", snp, auxiliary=b"c", before=intrude)
    tsm(kernel).evidence(DATA)
    assert moments.count("write inblob") == 2


def test_a_write_that_the_kernel_lost_is_noticed(entry: Path) -> None:
    kernel = Kernel(entry, "sev_guest", snp)
    tsm(kernel).evidence(b"o" * 64)
    kernel.refuse_writes = 2
    found = tsm(kernel).evidence(DATA)
    assert found.parts["report"] is not None
    assert found.parts["report"][0x50:0x90] == DATA


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EWOULDBLOCK, errno.EINTR])
def test_busy_is_tried_again(entry: Path, number: int) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, busy=[number] * 5)
    assert tsm(kernel).evidence(DATA).parts["quote"] == tdx(DATA)
    assert kernel.reports == 1


def test_busy_for_ever_is_given_up(entry: Path) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, busy=[errno.EBUSY] * 10_000)
    clock = Clock()
    with pytest.raises(EvidenceError, match="busy"):
        Tsm(kernel, "", lambda: clock.now, clock.sleep).evidence(DATA)
    assert 15 < clock.now <= 20
    assert kernel.accesses.count("write inblob") < 50


def test_other_errors_are_told_at_once(entry: Path) -> None:
    kernel = Kernel(entry, "tdx_guest", tdx, busy=[errno.EIO])
    with pytest.raises(EvidenceError, match="Input/output error"):
        tsm(kernel).evidence(DATA)
    assert kernel.accesses.count("write inblob") == 1


def test_a_report_over_something_else_is_not_served(entry: Path) -> None:
    kernel = Kernel(entry, "sev_guest", lambda data: snp(b"x" * 64))
    with pytest.raises(EvidenceError, match="something else"):
        tsm(kernel).evidence(DATA)


def test_an_unknown_provider_is_none(entry: Path) -> None:
    with pytest.raises(EvidenceError, match="'arm_cca_guest'"):
        tsm(Kernel(entry, "arm_cca_guest", tdx))


def test_an_entry_is_read_and_written_as_files(tmp_path: Path) -> None:
    (tmp_path / "inblob").touch()
    (tmp_path / "outblob").write_bytes(b"x" * 100_000)
    entry = Entry(str(tmp_path))
    entry.write("inblob", DATA)
    assert (tmp_path / "inblob").read_bytes() == DATA
    assert entry.read("outblob") == b"x" * 100_000
    with pytest.raises(FileNotFoundError):
        entry.write("other", DATA)
    assert not (tmp_path / "other").exists()
