"""Licences as SPDX has them, out of what hubs and licence texts call them."""

from __future__ import annotations

import re

UNKNOWN = "NOASSERTION"

SPDX = (
    *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0"),
    *("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0", "GPL-3.0", "AGPL-3.0", "LGPL-3.0", "MPL-2.0"),
    *("Unlicense", "Artistic-2.0", "BSL-1.0", "ECL-2.0", "ISC", "Zlib"),
)
"""Identifiers that hubs write in small letters. Their others, as `llama3.1`, are no licences of SPDX's."""

TEXTS = (
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"\bMIT License\b|Permission is hereby granted, free of charge", "MIT"),
    (r"LLAMA 3\.1 COMMUNITY LICENSE", "LicenseRef-llama3.1"),
    (r"LLAMA 3\.2 COMMUNITY LICENSE", "LicenseRef-llama3.2"),
    (r"LLAMA 3\.3 COMMUNITY LICENSE", "LicenseRef-llama3.3"),
    (r"Gemma Terms of Use", "LicenseRef-gemma"),
)
"""How the beginnings of licence texts can be told."""


def of_identifier(text: str) -> str:
    """The SPDX identifier for a hub's word; a `LicenseRef-` for what SPDX does not list."""
    known = {identifier.lower(): identifier for identifier in SPDX}
    if not text or text.lower() in ("other", "unknown"):
        return UNKNOWN
    if text.lower() in known:
        return known[text.lower()]
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-")


def of_text(text: str) -> str:
    """The SPDX identifier of a licence's text, told from its first lines."""
    head = text[:4000]
    return next((name for pattern, name in TEXTS if re.search(pattern, head, re.IGNORECASE)), UNKNOWN)
