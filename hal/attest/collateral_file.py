"""Reading collateral from files.

Understood are what `hal collateral` wrote, what dcap-qvl calls QuoteCollateralV3 (JSON), and AMD's
certificates and revocation lists as its key server gives them (PEM or DER).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509

from hal.attest.amd import LINES, common_name, load_der
from hal.attest.certificate_table import NAMES
from hal.attest.checks import UnverifiableError
from hal.attest.collateral import VERSION, Collateral
from hal.errors import UsageError

TDX_PART = "tcb_info"
"""A key that QuoteCollateralV3 has and nothing else."""

MENDING = "`hal collateral URL --write FILE` makes one; docs/verify.md tells which files are understood"

HELD = {*(f"SEV-{line}" for line in LINES), *(f"ARK-{line}" for line in LINES)}
"""What AMD's chains hold besides: hal goes by its own copies."""

_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----(.*?)-----END \1-----", re.DOTALL)


def read_collateral(paths: Iterable[Path]) -> Collateral:
    """What the files hold together; of two of a kind the later one counts.

    Raises:
        UsageError: one cannot be read, or is nothing of the kind.
    """
    found = Collateral()
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        try:
            found |= parse_collateral(data)
        except (UnverifiableError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} holds no collateral: {error}", MENDING) from None
    return found


def parse_collateral(data: bytes) -> Collateral:
    """The collateral in a file's bytes.

    Raises:
        UnverifiableError, ValueError: it is none.
    """
    if data.lstrip()[:1] == b"{":
        return _from_json(json.loads(data))
    if blocks := _PEM.findall(data):
        parts = [(kind == b"X509 CRL", _decoded(body)) for kind, body in blocks]
    else:
        parts = [(_is_crl(data), data)]
    return Collateral(dict(named for crl, der in parts for named in _named(der, crl=crl)))


def _from_json(data: dict[str, Any]) -> Collateral:
    if TDX_PART in data:
        return Collateral(tdx=data)
    if data.get("version") != VERSION:
        raise ValueError(f"neither QuoteCollateralV3 nor version {VERSION} of hal's own form")
    snp, tdx = data.get("sev-snp", {}), data.get("tdx")
    if not isinstance(snp, dict) or not isinstance(tdx, dict | None) or (tdx and TDX_PART not in tdx):
        raise ValueError("its platforms are not objects with the right parts")
    if unknown := sorted(set(snp) - {name.lower() for name in NAMES.values()}):
        raise ValueError(f"it has parts that are unknown: {', '.join(unknown)}")
    return Collateral({name.upper(): _decoded(value) for name, value in snp.items()}, tdx)


def _decoded(body: object) -> bytes:
    try:
        if isinstance(body, bytes):
            return base64.b64decode(b"".join(body.split()), validate=True)
        return base64.b64decode(str(body), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not in base64: {error}") from None


def _is_crl(data: bytes) -> bool:
    try:
        x509.load_der_x509_crl(data)
    except ValueError:
        return False
    return True


def _named(der: bytes, *, crl: bool) -> Iterator[tuple[str, bytes]]:
    if crl:
        x509.load_der_x509_crl(der)
        yield "CRL", der
        return
    name = common_name(load_der(der).subject)
    if name in ("SEV-VCEK", "SEV-VLEK"):
        yield name.removeprefix("SEV-"), der
    elif name in {f"SEV-VLEK-{line}" for line in LINES}:
        yield "ASK", der
    elif name not in HELD:
        raise ValueError(f"a certificate of {name or 'nobody'} is none of AMD's")
