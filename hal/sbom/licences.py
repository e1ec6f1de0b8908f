"""Licences as SPDX writes them, out of what Debian, Python packages and Buildroot call them.

What SPDX does not list becomes `LicenseRef-SOURCE-NAME`, so that nothing that was said is lost and nothing is
claimed that was not said. The tables are in licences.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache as remember
from pathlib import Path
from typing import Any

import yaml

TABLES = Path(__file__).with_name("licences.yaml")

LONGEST_NAME = 60
"""Characters; longer ones are texts of licences in the place of a name."""

_GNU = re.compile(r"(GPL|LGPL|AGPL|GFDL)-?v?(\d+(?:\.\d+)*)(\+|-or-later|-only)?", re.IGNORECASE)
_JOINTS = (
    (re.compile(r",\s+and\s+|\s*,\s*(?!or\b|and\b)", re.IGNORECASE), " AND "),
    (re.compile(r",\s+or\s+", re.IGNORECASE), " OR "),
    (re.compile(r"\s+(?:or|and/or)\s+", re.IGNORECASE), " OR "),
    (re.compile(r"\s+and\s+", re.IGNORECASE), " AND "),
)
"""From the loosest to the tightest; a comma makes a joint looser (copyright-format 1.0, "License syntax")."""


@remember
def tables() -> dict[str, dict[str, str]]:
    """The tables of licences.yaml, by name."""
    read: dict[str, dict[str, str]] = yaml.load(TABLES.read_text(), yaml.CSafeLoader)
    return read


def all_of(expressions: Iterable[str]) -> str:
    """One expression for a work whose files are under these, each named once; empty: none is known."""
    return _joined(" AND ", {expression for expression in expressions if expression})


def of_debian(name: str, source: str = "debian") -> str:
    """The expression for a licence's short name in a copyright file, as `GPL-2+ or Artistic, and Expat`.

    `source` is whose table of names counts.
    """
    for pattern, word in _JOINTS:
        parts = pattern.split(name.strip())
        if len(parts) > 1:
            return _joined(word, {of_debian(part, source) for part in parts if part})
    return _name(name.strip(), source)


def of_python(expression: str, text: str, classifiers: Iterable[str]) -> str:
    """The expression for what a wheel says: `License-Expression`, else `License`, else its classifiers.

    Of a `License` that holds a whole text only a known title counts.
    """
    if expression.strip():
        return normal(expression, "python")
    title = text.strip().partition("\n")[0].strip()
    short = title if _alias(title, "python") else " ".join(text.split())
    if short and len(short) <= LONGEST_NAME and short.upper() != "UNKNOWN":
        return _python_name(short) if _alias(short, "python") else normal(short, "python")
    names = [
        words.rpartition(" :: ")[2] for words in classifiers if words.startswith("License :: ")
    ]  # "License :: OSI Approved" alone names none
    return all_of(_python_name(name) for name in names if name != "OSI Approved")


def of_buildroot(text: str) -> str:
    """The expression for a package's `_LICENSE`: names with commas between them, each with what it is for.

    As in `GPL-2.0+ (programs), LGPL-2.1+ (libraries)` (Buildroot's manual, "Legal notice and licensing").
    """
    plain = re.sub(r"\([^()]*\)", "", text)
    return all_of(of_debian(part, "buildroot") for part in plain.split(",") if part.strip())


def of_words(text: str, source: str) -> str:
    """The expression for what a file of hal's or of a user's says of a licence; `NOASSERTION`: nothing."""
    return "" if text == "NOASSERTION" else normal(text, source)


def normal(text: str, source: str) -> str:
    """An SPDX expression with its identifiers as SPDX writes them; what is none becomes one reference."""
    from license_expression import ExpressionError, ExpressionParseError

    licensing = _licensing()
    try:
        tree = licensing.parse(text)
    except (ExpressionError, ExpressionParseError):
        return _alias(text, source) or reference(text, source)
    unknown = licensing.unknown_license_keys(tree)
    if all(name.startswith("LicenseRef-") for name in unknown):
        return str(tree.render()) if tree is not None else ""
    return _alias(text, source) or _spdx(text) or reference(text, source)


@remember
def _licensing() -> Any:
    """SPDX's licences and exceptions; reading them takes a while."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def reference(name: str, source: str) -> str:
    """A reference for a licence that SPDX does not list (SPDX 3.0, annex "License expressions")."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    return (
        f"LicenseRef-{source}-{slug}" if slug and len(name) <= LONGEST_NAME else f"LicenseRef-{source}-text"
    )


def is_listed(identifier: str) -> bool:
    """Whether this is one of SPDX's identifiers, alone."""
    from cyclonedx.spdx import is_supported_id

    return is_supported_id(identifier)


def _joined(word: str, expressions: Iterable[str]) -> str:
    """Expressions, each one once, with AND or OR between them."""
    parts = sorted({part for expression in expressions for part in _parts(expression, word)})
    if len(parts) < 2:
        return "".join(parts)
    other = " OR " if word == " AND " else " AND "
    return word.join(f"({part})" if other in part else part for part in parts)


def _parts(expression: str, word: str) -> list[str]:
    """What an expression joins by `word` at its outermost level; itself where that is not its joint."""
    found, depth = [""], 0
    for piece in re.split(r"( AND | OR |[()])", expression):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == word and depth == 0:
            found.append("")
        else:
            found[-1] += piece
    others = {" AND ", " OR "} - {word}
    mixed = any(joint in _outermost(expression) for joint in others)
    return [expression] if mixed else [_bare(part) for part in found]


def _outermost(expression: str) -> str:
    """An expression without what is in parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", "", expression)) != expression:
        expression = shorter
    return expression


def _bare(part: str) -> str:
    """A part without the parentheses around the whole of it."""
    return part[1:-1] if part.startswith("(") and part.endswith(")") and not _outermost(part) else part


def _name(name: str, source: str) -> str:
    base, joint, rest = _with(name)
    if joint:
        licence = _name(base, source)
        exception = _exception(re.sub(r"[\s_]+", "-", rest.lower()), licence)
        known = exception and not licence.startswith("LicenseRef-")
        return f"{licence} WITH {exception}" if known else reference(name, source)
    return _alias(name, source) or _spdx(name) or reference(name, source)


def _with(name: str) -> tuple[str, str, str]:
    found = re.split(r"[\s-]+with[\s-]+", name, maxsplit=1, flags=re.IGNORECASE)
    return (found[0], "with", found[1]) if len(found) == 2 else (name, "", "")


def _exception(name: str, licence: str) -> str:
    if name in ("autoconf-exception", "automake-exception"):  # which one follows from the licence's version
        return {"GPL-2": "Autoconf-exception-2.0", "GPL-3": "Autoconf-exception-3.0"}.get(licence[:5], "")
    return tables()["exceptions"].get(name, "")


def _gnu(name: str) -> str:
    found = _GNU.fullmatch(name)
    if found is None:
        return ""
    version = found[2] if "." in found[2] else f"{found[2]}.0"
    identifier = f"{found[1].upper()}-{version}-{'or-later' if found[3] in ('+', '-or-later') else 'only'}"
    return identifier if is_listed(identifier) else ""


def _python_name(name: str) -> str:
    return _alias(name, "python") or _spdx(name) or reference(name, "python")


def _alias(name: str, source: str) -> str:
    return tables().get(source, {}).get(name.lower(), "")


def _spdx(name: str) -> str:
    """SPDX's own identifier for a name that differs in its letters' case at most; empty: it has none."""
    from cyclonedx.spdx import fixup_id

    gnu = _gnu(name)  # GPL-2.0+ and GPL-2.0 are listed, but deprecated
    return gnu or fixup_id(name) or ""
