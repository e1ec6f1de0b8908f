"""What TLS certificates are held against: the machine's authorities, one's own, and the time, if it is known.

A machine without a clock must get its models too. Their content is pinned by SHA-256, so a certificate's
dates protect nothing but a credential: where the clock cannot be right, dates are left out of the check and
no credential is sent. A certificate that has expired is an error: clocks are slow, hardly ever fast.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from ..failures import TransientError

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
"""Where distributions put all of them in one file; OpenSSL's own directory needs links by hash."""

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, openssl/x509_vfy.h; Python has no name for it."""

NOT_YET_VALID = 9
EXPIRED = 10
UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
NAME_MISMATCH = frozenset({62, 64})
"""X509_V_ERR_*, openssl/x509_vfy.h."""


def context(ca: str | None, *, dates: bool) -> ssl.SSLContext:
    """What connections are made with; `ca`: a file of certificates that are trusted too.

    Raises:
        TransientError: the file cannot be used. It may come yet.
    """
    made = ssl.create_default_context()
    # Python 3.13 sets it; curl and browsers do not, and many a company's own authority would be refused.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not dates:
        made.verify_flags |= NO_CHECK_TIME
    if not made.cert_store_stats()["x509_ca"] and Path(AUTHORITIES).exists():
        made.load_verify_locations(AUTHORITIES)
    if ca:
        try:
            made.load_verify_locations(ca)
        except ssl.SSLError:
            raise TransientError(f"{ca}: no certificates in PEM form (provision.ca)") from None
        except OSError as error:
            raise TransientError(f"{ca}: {error.strerror} (provision.ca)") from None
    return made


def refused(error: ssl.SSLCertVerificationError, now: float) -> str:
    """Why a certificate was refused, and what mends it."""
    code = error.verify_code
    if code == EXPIRED:
        return f"its certificate has expired, by this machine's clock ({written(now)})"
    if code == NOT_YET_VALID:
        return f"its certificate is not valid yet, by this machine's clock ({written(now)})"
    if code in UNKNOWN_ISSUER:
        return "its certificate is signed by nobody that this machine trusts (provision.ca)"
    if code in NAME_MISMATCH:
        return "its certificate is for another host"
    return f"its certificate cannot be verified ({error.verify_message})"


def written(now: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
