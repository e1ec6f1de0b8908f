"""The daemon: reads what this machine is, then answers one question after the other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from . import answers, server
from .certificate import CertificateError, key_digest
from .document import Evidence, Machine, document, machine, signed
from .limit import Limit
from .machine import Places, Prover, prover
from .question import Head, read_nonce
from .tsm import EvidenceError

WATCHDOG_INTERVAL = 5.0
"""Seconds between signs of life to systemd."""


class Attestor:
    """Answers questions; all but the hardware and two files is decided in pure functions."""

    def __init__(
        self, places: Places, found: Machine, prover: Prover, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places = places
        self._machine = found
        self._prover = prover
        self._clock = clock
        self._limit = Limit(clock())

    def handle(self, head: Head, body: bytes) -> bytes:
        """The whole answer to a request.

        Raises:
            RefusedError: it is not a good one.
        """
        nonce = read_nonce(head, body)
        wait = self._limit.take(self._clock())
        if wait:
            return answers.refusal(429, f"too many questions at once; again in {wait} s", wait)
        try:
            tls = self._tls_key()
            data = signed(nonce, tls, self._machine)
            # Without a key to bind, evidence would fit a connection to anybody.
            empty = Evidence(self._prover.platform, {})
            evidence = empty if data is None else self._prover.evidence(data)
        except EvidenceError as error:
            print(f"no evidence: {error}", flush=True)
            return answers.refusal(503, f"no evidence now: {error}", 1)
        return answers.answer(200, document(nonce, tls, self._machine, evidence))

    def _tls_key(self) -> bytes | None:
        """The digest of the gateway's key, which is made anew when the gateway is; None without TLS."""
        try:
            return key_digest(_read(self._places.certificate))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EvidenceError(f"{self._places.certificate}: {error.strerror}") from None
        except CertificateError as error:
            raise EvidenceError(f"{self._places.certificate}: {error}") from None


def run(places: Places, make: Callable[[Places], Prover] = prover) -> int:
    """Serve until stopped; exit status 1 and one line on stderr where that is not possible."""
    try:
        boot = b""
        with contextlib.suppress(OSError):
            boot = _read(places.boot_report)
        found = machine(_read(places.manifest), boot)
        used = make(places)
        attestor = Attestor(places, found, used)
        listener = server.listen(places.socket)
    except (OSError, ValueError) as error:
        print(f"hal-attestor: {error}", file=sys.stderr)
        return 1
    _notify("READY=1", f"STATUS=proves by: {used.platform}")
    with listener:
        alive = 0.0
        while True:
            server.serve_one(listener, attestor.handle, WATCHDOG_INTERVAL)
            if time.monotonic() - alive >= WATCHDOG_INTERVAL:
                alive = time.monotonic()
                _notify("WATCHDOG=1")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 (pathlib costs at start-up)
        return file.read()


def _notify(*assignments: str) -> None:
    """sd_notify(3), whose whole protocol is a datagram: importing systemd's library would cost more."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        address = f"\0{address[1:]}" if address.startswith("@") else address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto("\n".join(assignments).encode(), address)


def on_stop(number: int, frame: object) -> NoReturn:
    """SIGTERM and SIGINT: leave the loop."""
    raise SystemExit(0)


def main() -> int:
    """`hal-attestor`: the appliance's own."""
    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    return run(Places())
