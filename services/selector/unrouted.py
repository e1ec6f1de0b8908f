"""Which requests no route takes, said with few tests: for the gateway's short way to the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from services.selector.globs import matches
from services.selector.routes import Rule, Table, like, ordered, quoted

ROUTED = "routed"
"""The name of the tests: what passes none of them is taken by no route."""


def unrouted(table: Table, method: str, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of `paths` that need no look at their routes, and HAProxy's tests for the others' headers.

    For requests of one method, to paths without a domain. A request that passes a test may still be one that
    no route takes: one condition of each rule is asked, the longest, as a usual request fails it at once.
    """
    left, lines = list(paths), []
    for place in ordered(table.rules):
        rule = table.rules[place]
        if rule.domain or rule.method not in ("", method):
            continue
        globs = [glob for part, glob in rule.conditions if part == "path"]
        taken = [path for path in left if all(matches(glob, path) for glob in globs)]
        if taken and rule.headers:
            lines.append(_test(rule))
        elif taken:
            left = [path for path in left if path not in taken]
    return left, list(dict.fromkeys(lines))


def _test(rule: Rule) -> str:
    found = [test for name, value in rule.headers for test in like(f"req.fhdr({name},-1)", value)]
    part, test, value = max((each for each in found if each[1] != "int"), key=lambda each: len(each[2]))
    return f"acl {ROUTED} {part} -m {test}" + (f" -- {quoted(value)}" if value else "")
