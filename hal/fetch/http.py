"""How hal speaks HTTP: one kind of session, with this host's certificates and proxies."""

from __future__ import annotations

import os
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from hal import __version__
from hal.fetch.hubs import add_token

HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""What the host's administrator trusts (a company's own authority among it), preferred to a bundled list."""


def new_session(connections: int = 8) -> requests.Session:
    """A session that keeps up to `connections` open to each server."""
    session = requests.Session()
    session.headers["User-Agent"] = f"hal/{__version__}"
    session.headers["Accept-Encoding"] = "identity"  # files are hashed as they are stored
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
    if named:
        session.verify = named
    elif HOST_CERTIFICATES.exists():
        session.verify = str(HOST_CERTIFICATES)
    adapter = HTTPAdapter(pool_connections=connections, pool_maxsize=connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    add_token(session)
    return session
