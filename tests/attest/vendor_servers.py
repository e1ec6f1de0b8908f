"""Stand-ins for AMD's key distribution service and Intel's provisioning service, on loopback."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding

from tests.attest.snp_machine import SnpMachine, authority

Answer = tuple[int, Mapping[str, str], bytes]
NOTHING: Answer = (404, {}, b"no such thing")


@dataclass
class Vendor(ABC):
    """A service: `answers` by path, after those of `before`, which are given first to whoever asks."""

    url: str = ""
    before: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @abstractmethod
    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """What it answers by itself."""


@dataclass
class Amd(Vendor):
    """Knows one machine's chip at its TCB, and its line's chain and revocation list."""

    machine: SnpMachine = field(default_factory=SnpMachine)

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        machine, tcb = self.machine, self.machine.certified_tcb or self.machine.tcb
        levels = {"blSPL": tcb.bootloader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
        if machine.line == "Turin":
            levels["fmcSPL"] = tcb.fmc
        home = f"/{machine.kind.lower()}/v1/{machine.line}"
        if path == f"{home}/crl":
            return 200, {}, authority(machine.line).crl()
        if path == f"{home}/cert_chain" and machine.kind == "VLEK":
            issuer = authority(machine.line)
            return 200, {}, b"".join(one.public_bytes(Encoding.PEM) for one in (issuer.asvk, issuer.ark))
        wanted = {name: f"{value:02d}" for name, value in levels.items()}
        if machine.kind == "VCEK" and path == f"{home}/{machine.chip_id.hex()}" and query == wanted:
            return 200, {}, machine.certificate
        return NOTHING


@dataclass
class Intel(Vendor):
    """Knows the collateral of one platform, as dcap-qvl's QuoteCollateralV3 has it."""

    collateral: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        known = self.collateral
        match path.rpartition("/v4/")[2]:
            case "tcb":
                chain = {"TCB-Info-Issuer-Chain": quote(known["tcb_info_issuer_chain"])}
                return 200, chain, signed("tcbInfo", known["tcb_info"], known["tcb_info_signature"])
            case "qe/identity":
                chain = {"SGX-Enclave-Identity-Issuer-Chain": quote(known["qe_identity_issuer_chain"])}
                return (
                    200,
                    chain,
                    signed("enclaveIdentity", known["qe_identity"], known["qe_identity_signature"]),
                )
            case "pckcrl":
                chain = {"SGX-PCK-CRL-Issuer-Chain": quote(known["pck_crl_issuer_chain"])}
                return 200, chain, bytes.fromhex(known["pck_crl"])
            case "rootcacrl":
                return 200, {}, known["root_ca_crl"].encode()
        return NOTHING


def signed(name: str, content: str, signature: str) -> bytes:
    """A signed part as Intel's service words it; the content's bytes are what the signature is over."""
    return f'{{"{name}":{content},"signature":{json.dumps(signature)}}}'.encode()


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    """The service, running."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            vendor.asked.append(self.path)
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, head, body = vendor.before.pop(0) if vendor.before else vendor.answer(parts.path, query)
            self.send_response(status)
            for name, value in {**head, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield vendor
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
