"""Routes: rules that send some requests to an engine or endpoint of their own. Pure, but for `main`.

hal's build runs this as a program on what the spec says, and the selector uses it when it reads its
configuration: so both find the same rules wrong, and both mean the same by them. docs/routes.md says how
rules are written.

    python -m services.selector.routes check FILE      findings as JSON; exit status 1 where there are any
    python -m services.selector.routes haproxy FILE    the rules as lines for HAProxy's frontend
    python -m services.selector.routes unrouted FILE METHOD PATH…    see unrouted.py; JSON

FILE is JSON, `{"targets": [name, …], "rules": [{"line": …, "to": …, …}, …]}`; `-` is standard input.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

from services.selector.globs import STAR, matches

NO_DOMAIN = ""

DOMAIN = "var(txn.domain)"
"""Where HAProxy has a request's domain."""

LONGEST = 1024
MOST_RULES = 500

PATH_CHARACTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._~!$&'()+,;=:@%-"
)
NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
REGEX = "reg"
"""How HAProxy is told to use a regular expression."""

HEADER_CHARACTERS = NAME_CHARACTERS - {"."} | {"_"}
REGEX_PLAIN = NAME_CHARACTERS - {"."} | {"/"}


class Rule(NamedTuple):
    """One rule: `line` is where the spec has it, conditions that are not given are empty.

    All conditions must hold. `headers` are pairs of a name and a glob; `path_pattern` is a glob.
    """

    line: int
    to: str
    name: str = ""
    priority: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    path: str = ""
    path_prefix: str = ""
    path_pattern: str = ""
    method: str = ""
    domain: str = ""

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """What it asks for: pairs of what is looked at and a glob."""
        found = [("method", self.method), ("domain", self.domain), ("path", self.path)]
        found.append(("path", self.path_prefix and self.path_prefix + STAR))
        found.append(("path", self.path_pattern))
        found += [(f"header:{name.lower()}", value) for name, value in self.headers]
        return tuple((part, glob) for part, glob in found if glob)


class Table(NamedTuple):
    """The rules in the spec's order, and the names that they may send requests to."""

    targets: tuple[str, ...]
    rules: tuple[Rule, ...]


def parse(text: str) -> Table:
    """The table that a file holds.

    Raises:
        ValueError: it is none; the text says in one line why.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the routes are not JSON") from None
    targets, rules = (data.get(key) if isinstance(data, dict) else None for key in ("targets", "rules"))
    if not isinstance(targets, list) or not isinstance(rules, list):
        raise ValueError("the routes have no lists `targets` and `rules`")
    if len(rules) > MOST_RULES:
        raise ValueError(f"there are more than {MOST_RULES} routes")
    return Table(
        tuple(_name(target, "a target") for target in targets),
        tuple(_rule(entry, place) for place, entry in enumerate(rules)),
    )


def _rule(entry: Any, place: int) -> Rule:
    what = f"the route {place + 1}"
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is no mapping")
    line, priority, headers = entry.get("line"), entry.get("priority", 0), entry.get("header") or {}
    if type(line) is not int or type(priority) is not int:
        raise ValueError(f"{what}: `line` and `priority` must be whole numbers")
    if not isinstance(headers, dict):
        raise ValueError(f"{what}: `header` must be a mapping")
    path, prefix, pattern = (_path(entry, key, what) for key in ("path", "path_prefix", "path_pattern"))
    if STAR in path or STAR in prefix:
        raise ValueError(f"{what}: `*` stands in `path_pattern` only")
    return Rule(
        line=line,
        to=_name(entry.get("to"), f"{what}: `to`"),
        name=_name(entry["name"], f"{what}: `name`") if entry.get("name") else "",
        priority=priority,
        headers=tuple(sorted(_header(name, value, what) for name, value in headers.items())),
        path=path,
        path_prefix=prefix,
        path_pattern=pattern,
        method=_name(entry["method"], f"{what}: `method`") if entry.get("method") else "",
        domain=_name(entry["domain"], f"{what}: `domain`") if entry.get("domain") else "",
    )


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not NAME_CHARACTERS.issuperset(value):
        raise ValueError(f"{what} must be letters, digits and . _ -")
    return value


def _path(entry: dict[str, Any], key: str, what: str) -> str:
    value = entry.get(key) or ""
    if not isinstance(value, str) or len(value) > LONGEST or (value and value[0] != "/"):
        raise ValueError(f"{what}: `{key}` must be a path that begins with /")
    if not PATH_CHARACTERS.issuperset(value.replace(STAR, "")):
        raise ValueError(f"{what}: `{key}` has characters that a URL's path cannot have")
    return value


def _header(name: Any, value: Any, what: str) -> tuple[str, str]:
    if not isinstance(name, str) or not 0 < len(name) <= 63 or not HEADER_CHARACTERS.issuperset(name):
        raise ValueError(f"{what}: the name of a header must be letters, digits, - and _")
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or not value.isascii():
        raise ValueError(f"{what}: the value of {name} must be ASCII")
    if not value.isprintable() or value != value.strip():
        raise ValueError(f"{what}: the value of {name} must be one line without spaces at its ends")
    return name, value


def ordered(rules: tuple[Rule, ...]) -> list[int]:
    """The places of rules in the order in which they are asked: by priority, then as in the spec."""
    return sorted(range(len(rules)), key=lambda place: -rules[place].priority)


class Request(NamedTuple):
    """What rules look at: `path` without its domain, `domain` empty where there is none, header names small.

    Of a header that is there several times, `headers` has the last.
    """

    method: str
    path: str
    domain: str = NO_DOMAIN
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        head = f"{self.method} {'/' + self.domain if self.domain else ''}{self.path}"
        shown = " and ".join(f"{name}: {value}" for name, value in self.headers)
        return f"{head} with {shown}" if shown else head


def holds(rule: Rule, request: Request) -> bool:
    """Whether all of a rule's conditions hold for a request."""
    parts = {"method": request.method, "domain": request.domain, "path": request.path}
    parts |= {f"header:{name}": value for name, value in request.headers}
    return all(part in parts and matches(glob, parts[part]) for part, glob in rule.conditions)


def taken(table: Table, request: Request) -> Rule | None:
    """The rule that takes a request; None: it goes to the active engine."""
    places = (place for place in ordered(table.rules) if holds(table.rules[place], request))
    place = next(places, None)
    return None if place is None else table.rules[place]


def haproxy(table: Table) -> str:
    """The rules as lines of a frontend, in the order in which they are asked; "" where there are none.

    They set `txn.to` to the name that a request goes to. They stand behind what takes the domain off the path
    and puts it into `txn.domain`. Equal tables give equal text. All that a user writes is quoted, and a line
    ends where it should whatever a table holds (HAProxy's configuration manual, 2.2, "Quoting and escaping").
    """
    lines = []
    for place in ordered(table.rules):
        rule = table.rules[place]
        lines.append(f"# line {rule.line} of the spec{', ' + rule.name if rule.name else ''}")
        names: list[str] = []
        for part, test, value in _tests(rule):
            names.append(f"route_{place}_{len(names)}")
            lines.append(f"acl {names[-1]} {part} -m {test}" + (f" -- {quoted(value)}" if value else ""))
        lines.append(f"http-request set-var(txn.to,ifnotexists) str({rule.to}) if {' '.join(names)}")
    return "".join(line + "\n" for line in lines)


def _tests(rule: Rule) -> list[tuple[str, str, str]]:
    """A rule's conditions as HAProxy tests them: what is looked at, how, and the value."""
    found = [("method", "str", rule.method), (DOMAIN, "str", rule.domain), ("path", "str", rule.path)]
    found.append(("path", "beg", rule.path_prefix))
    found = [(part, test, value) for part, test, value in found if value]
    if rule.path_pattern:
        found += like("path", rule.path_pattern)
    for name, value in rule.headers:
        # The last one where there are several, so that a header has one value: a conflict is known by that.
        found += like(f"req.fhdr({name},-1)", value)
    return found


def like(part: str, glob: str) -> list[tuple[str, str, str]]:
    """A glob as HAProxy tests it: as few plain comparisons as say the same, else a regular expression.

    A regular expression is compiled when HAProxy starts, which takes memory that can be written and executed:
    the gateway's sandbox allows that only where a rule needs one.
    """
    while STAR + STAR in glob:
        glob = glob.replace(STAR + STAR, STAR)
    first, *rest = glob.split(STAR)
    if not rest:
        return [(part, "str", first)]
    middle, last = rest[:-1], rest[-1]
    if middle and (last or len(middle) > 1):
        return [(part, REGEX, regex(glob))]
    found = [(part, "beg", first)] if first else []
    if middle:
        # Behind what it begins with, as one must not take characters of the other.
        found.append((f"{part},bytes({len(first)})" if first else part, "sub", middle[0]))
    elif last:
        found.append((part, "end", last))
        if first:
            found.append((f"{part},length", "int", f"{len(first) + len(last)}:"))
    return found or [(part, "found", "")]


def regex(glob: str) -> str:
    """A glob as a regular expression of PCRE.

    What lies between two stars is looked for once, at its first place, and never again (atomic groups): that
    is enough for globs, and no request can make the search take long.
    """
    first, *between = glob.split(STAR)
    if not between:
        return f"^{_escaped(first)}$"
    last = between.pop()
    middle = "".join(f"(?>.*?{_escaped(piece)})" for piece in between if piece)
    return f"^{_escaped(first)}{middle}" + (f".*{_escaped(last)}$" if last else "")


def _escaped(text: str) -> str:
    return "".join(c if c in REGEX_PLAIN else f"\\x{ord(c):02x}" for c in text)


def quoted(text: str) -> str:
    """A text as one word of HAProxy's configuration, in strong quotes.

    Raises:
        ValueError: it has characters that no line can have.
    """
    if not text.isprintable() or not text.isascii():
        raise ValueError("is not one line of ASCII")
    return "'" + text.replace("'", "'\\''") + "'"


def main(arguments: list[str]) -> int:
    """What the program does; 2: it was not asked for what it can, or the file is none."""
    command, count = arguments[0] if arguments else "", len(arguments)
    if not ((count == 2 and command in ("check", "haproxy")) or (count > 2 and command == "unrouted")):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if arguments[1] == "-":
            text = sys.stdin.read()
        else:
            with open(arguments[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes time to import
                text = file.read()
        table = parse(text)
    except (OSError, ValueError) as error:
        print(f"routes: {error}", file=sys.stderr)
        return 2
    if command == "haproxy":
        print(haproxy(table), end="")
        return 0
    if command == "unrouted":
        from services.selector.unrouted import unrouted

        print(json.dumps(unrouted(table, arguments[2], arguments[3:])))
        return 0
    from services.selector.routechecks import findings

    found = findings(table)
    print(json.dumps([finding._asdict() for finding in found]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
