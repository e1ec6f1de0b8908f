"""The gateway's maps of tokens, as files whose lines are checked before HAProxy gets them.

Only digests are in them. A line is what HAProxy's map file has: a key, a space and a value.
"""

from __future__ import annotations

import os
import re

LARGEST_FILE = 8_000_000
MOST = 100_000

_TOKEN = re.compile(
    r"([0-9A-F]{64}) ([A-Za-z0-9][A-Za-z0-9._@-]{0,62}:[0-9]{1,7}:[0-9]{1,7}:(?:all|domains))"
)
_SCOPE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._@-]{0,62}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}) (1)")
FORMS = {
    "tokens.map": (_TOKEN, "SHA256-IN-CAPITALS NAME:RATE:CONCURRENCY:all (or domains)"),
    "scopes.map": (_SCOPE, "NAME/DOMAIN 1"),
}
"""What a line of each file is, by the file's name."""


class TokensError(Exception):
    """A file cannot be used; the message has the file, the line's number and what belongs there."""


def parse(text: str, path: str) -> list[tuple[str, str]]:
    """The entries of a file, in its order.

    Raises:
        TokensError: a line is none, or there are too many.
    """
    form, words = FORMS[os.path.basename(path)]  # noqa: PTH119
    found: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        entry = form.fullmatch(line)
        if entry is None:
            raise TokensError(f"{path}:{number}: not {words}")
        if entry[1] in found:
            raise TokensError(f"{path}:{number}: is there twice")
        found[entry[1]] = entry[2]
    if len(found) > MOST:
        raise TokensError(f"{path}: more than {MOST} entries")
    return list(found.items())


def read(path: str) -> list[tuple[str, str]]:
    """The entries of a file.

    Raises:
        TokensError: it cannot be read, or as `parse`.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 (pathlib costs at start-up)
            return parse(file.read(LARGEST_FILE), path)
    except OSError as error:
        raise TokensError(f"{path}: {error.strerror}") from None
