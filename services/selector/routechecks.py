"""What is wrong with routes: rules in conflict, rules that nothing reaches, names that nobody has.

Requests are boxes: for each part of a request (method, domain, path, each header) the globs that it matches
and those that it does not. A rule is a box, what two rules share is one, and what a rule leaves of a box is
a few. So the answers are exact, and each comes with a request that shows it.
"""

from __future__ import annotations

from typing import NamedTuple

from services.selector.globs import STAR, Search, TooInvolvedError, fits
from services.selector.routes import NO_DOMAIN, Request, Rule, Table, ordered

PATHS = ("/v1/*", "/api", "/api/*")
"""The paths that routes are asked about, their domain taken off; all others are the gateway's own. Only the
first has domains."""

REFUSED = ("//", "/./", "/../", "\\", "%2e", "%2f", "%5c", "%00")
REFUSED_ENDS = ("/.", "/..")
"""What the gateway refuses in a path, in small letters (hal/render/templates/haproxy.cfg.j2)."""

EXAMPLES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
METHODS = ("POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")

SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")

MOST_EFFORT = 5_000_000
"""Steps that a table is worth before it is refused as too involved: seconds; usual ones take thousands."""


class Finding(NamedTuple):
    """Something wrong with a rule: its index and line, the key that it is about, and what, in plain words."""

    rule: int
    line: int
    key: tuple[str, ...]
    text: str


Box = dict[str, tuple[frozenset[str], frozenset[str]]]
"""A set of requests: for each part of them, the globs that it matches and those that it does not.

A header with nothing to match may be absent.
"""

_HEADER_VALUE: tuple[frozenset[str], frozenset[str]] = frozenset([STAR]), frozenset(["", " *", "* "])


def _universes() -> list[Box]:
    """All requests that routes are asked about."""
    nothing: frozenset[str] = frozenset()
    found: list[Box] = [{"path": (frozenset([glob]), nothing)} for glob in PATHS]
    for box in found[1:]:
        box["domain"] = (frozenset([NO_DOMAIN]), nothing)
    return found


def _within(search: Search, box: Box, part: str, glob: str) -> Box | None:
    """The requests of a box whose `part` matches a glob; None: there are none."""
    wanted, unwanted = box.get(part, (frozenset(), frozenset()))
    return _changed(search, box, part, wanted | {glob}, unwanted)


def _without(search: Search, box: Box, part: str, glob: str) -> Box | None:
    """The requests of a box whose `part` does not match a glob; None: there are none."""
    wanted, unwanted = box.get(part, (frozenset(), frozenset()))
    return _changed(search, box, part, wanted, unwanted | {glob})


def _changed(
    search: Search, box: Box, part: str, wanted: frozenset[str], unwanted: frozenset[str]
) -> Box | None:
    if wanted or not part.startswith("header:"):
        more = _HEADER_VALUE if part.startswith("header:") else (frozenset(), frozenset())
        if search.shortest(wanted | more[0] | {STAR}, unwanted | more[1]) is None:
            return None
    return {**box, part: (wanted, unwanted)}


def _inside(search: Search, box: Box | None, rule: Rule) -> Box | None:
    """The requests of a box that a rule takes; None: there are none."""
    for part, glob in rule.conditions:
        box = None if box is None else _within(search, box, part, glob)
    return box


def _left(search: Search, box: Box | None, rules: list[Rule]) -> Request | None:
    """A request of a box that none of the rules takes; None: they take all of them."""
    if box is None:
        return None
    rules = [rule for rule in rules if _inside(search, box, rule) is not None]
    if not rules:
        return _example(search, box)
    inside: Box | None = box
    for part, glob in rules[0].conditions:
        if inside is None:
            return None
        found = _left(search, _without(search, inside, part, glob), rules[1:])
        if found is not None:
            return found
        inside = _within(search, inside, part, glob)
    return None


def _example(search: Search, box: Box) -> Request:
    """One request of a box, such as people send where it can be."""

    def pick(part: str, usual: tuple[str, ...]) -> str:
        wanted, unwanted = box.get(part, (frozenset(), frozenset()))
        usually = next((text for text in usual if fits(text, wanted, unwanted)), None)
        return usually if usually is not None else search.shortest(wanted | {STAR}, unwanted) or ""

    headers = []
    for part, (wanted, unwanted) in sorted(box.items()):
        if part.startswith("header:") and wanted:
            value = search.shortest(wanted | _HEADER_VALUE[0], unwanted | _HEADER_VALUE[1])
            headers.append((part.removeprefix("header:"), value or ""))
    return Request(
        pick("method", METHODS), pick("path", EXAMPLES), pick("domain", (NO_DOMAIN,)), tuple(headers)
    )


def findings(table: Table) -> list[Finding]:
    """Everything that is wrong with the rules, in their order; empty: nothing is."""
    found = [finding for place in range(len(table.rules)) for finding in _alone(table, place)]
    bad = {finding.rule for finding in found if finding.key != ("name",)}
    asked = [place for place in ordered(table.rules) if place not in bad]
    search = Search(MOST_EFFORT)
    for position, place in enumerate(asked):
        try:
            wrong = _among(search, table.rules, place, asked[:position])
        except TooInvolvedError:
            text = "is too involved to be checked, with those that are asked before it: make them simpler"
            found.append(_finding(table.rules, place, (), text))
            break
        if wrong is not None:
            found.append(wrong)
    return sorted(found)


def refuse(table: Table) -> None:
    """Refuse rules with which something is wrong.

    Raises:
        ValueError: the first finding in one line, with the rule's line in the spec.
    """
    for first in findings(table)[:1]:
        key = ".".join((f"gateway.routes[{first.rule}]", *first.key))
        raise ValueError(f"line {first.line} of the spec: {key}: {first.text}")


def _finding(rules: tuple[Rule, ...], place: int, key: tuple[str, ...], text: str) -> Finding:
    return Finding(place, rules[place].line, key, text)


def _alone(table: Table, place: int) -> list[Finding]:
    """What is wrong with a rule whatever the others are."""
    rules, rule, found = table.rules, table.rules[place], []
    if rule.to not in table.targets:
        import difflib  # only errors need it

        close = difflib.get_close_matches(rule.to, table.targets, n=1, cutoff=0.6)
        meant = f" (did you mean {close[0]}?)" if close else ""
        text = f"there is no engine or remote {rule.to!r}{meant}; it can be {', '.join(table.targets)}"
        found.append(_finding(rules, place, ("to",), text))
    twin = next((other for other in rules[:place] if rule.name and other.name == rule.name), None)
    if twin is not None:
        found.append(_finding(rules, place, ("name",), f"the rule of line {twin.line} has this name as well"))
    if not rule.conditions:
        text = "asks for nothing and would take every request: `selector.policy` says which engine serves"
        found.append(_finding(rules, place, (), text))
    names = [name.lower() for name, _ in rule.headers]
    for index, (name, _) in enumerate(rule.headers):
        if name.lower() in SECRET_HEADERS:
            text = "is a secret of the client's: routes cannot go by it; use a header that says what is meant"
            found.append(_finding(rules, place, ("header", name), text))
        elif name.lower() in names[:index]:
            found.append(_finding(rules, place, ("header", name), "is there twice: case does not matter"))
    for key in ("path", "path_prefix", "path_pattern"):
        path = getattr(rule, key)
        piece = next((piece for piece in REFUSED if piece in path.lower()), None)
        if key != "path_prefix":
            piece = piece or next((piece for piece in REFUSED_ENDS if path.endswith(piece)), None)
        if piece is not None:
            text = f"can never match: the gateway refuses paths with {piece}"
            found.append(_finding(rules, place, (key,), text))
    return found


def _among(search: Search, rules: tuple[Rule, ...], place: int, before: list[int]) -> Finding | None:
    """What is wrong with a rule among the others; `before` are those that are asked first, in that order."""
    rule = rules[place]
    if reached(search, rule, []) is None:
        text = "no request can be like that: paths begin with /v1/, or with /api/ where there is no domain"
        return _finding(rules, place, (), text)
    for other in (rules[p] for p in before):
        if other.priority == rule.priority and other.to != rule.to:
            higher = [rules[p] for p in before if rules[p].priority > rule.priority]
            example = reached(search, rule, higher, other)
            if example is not None:
                text = (
                    f"is in conflict with the rule of line {other.line}, which goes to {other.to}: "
                    f"both take {example}; give one of them a higher priority"
                )
                return _finding(rules, place, ("priority",), text)
    alone = next((rules[p] for p in before if reached(search, rule, [rules[p]]) is None), None)
    if alone is not None or reached(search, rule, [rules[p] for p in before]) is None:
        by = "those before it together take" if alone is None else f"that of line {alone.line} takes"
        return _finding(rules, place, (), f"is never reached: {by} every request that it would")
    return None


def reached(search: Search, rule: Rule, before: list[Rule], also: Rule | None = None) -> Request | None:
    """A request that a rule takes (and the rule `also`, too) and none of those before; None: there is none.

    Raises:
        TooInvolvedError: it cannot be said with the effort that is left.
    """
    for universe in _universes():
        box = _inside(search, universe, rule)
        found = _left(search, box if also is None else _inside(search, box, also), before)
        if found is not None:
            return found
    return None
