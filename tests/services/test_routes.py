"""Routes: what is found wrong with them, against every small request there is, and files that hold none."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.selector import globs, routechecks
from services.selector.routes import (
    Rule,
    Table,
    haproxy,
    holds,
    ordered,
    parse,
    regex,
    taken,
)

GLOBS = st.text(alphabet="ab*", max_size=5)
TEXTS = ["".join(letters) for length in range(6) for letters in itertools.product("abc", repeat=length)]
"""`c` is in no glob: it stands for all other characters."""


def reference(glob: str, text: str) -> bool:
    """Whether a text matches a glob, said by Python's regular expressions."""
    return re.fullmatch(".*".join(map(re.escape, glob.split("*"))), text, re.DOTALL) is not None


@given(glob=GLOBS, text=st.text(alphabet="abc", max_size=9))
def test_a_glob_matches_what_it_should(glob: str, text: str) -> None:
    assert globs.matches(glob, text) == reference(glob, text)


@given(glob=GLOBS, text=st.text(alphabet="abc", max_size=9))
def test_a_glob_and_its_regular_expression_are_the_same(glob: str, text: str) -> None:
    assert bool(re.search(regex(glob), text)) == reference(glob, text)


@settings(max_examples=400)
@given(wanted=st.frozensets(GLOBS, max_size=3), unwanted=st.frozensets(GLOBS, max_size=3))
def test_the_shortest_text_is_right_and_there_is_one_where_there_is_any(
    wanted: frozenset[str], unwanted: frozenset[str]
) -> None:
    def fits(text: str) -> bool:
        return all(reference(g, text) for g in wanted) and not any(reference(g, text) for g in unwanted)

    found = globs.Search(10**9).shortest(wanted | {"*"}, unwanted)
    there = next((text for text in TEXTS if fits(text)), None)
    if found is None:
        assert there is None
    else:
        assert fits(found)
        assert there is None or len(found) <= len(there)


# Small rules and every small request

PATHS = st.one_of(
    st.just(""),
    st.builds("/v1/{}".format, st.text(alphabet="ab", max_size=2)),
    st.sampled_from(["/", "/v1", "/api", "/api/a", "/v", "/apix", "/b"]),
)
PATTERNS = st.one_of(
    st.just(""),
    st.builds("/v1/{}".format, st.text(alphabet="ab*", max_size=3)),
    st.sampled_from(["/*", "/*a", "/api*", "*", "/*/b*"]).filter(lambda text: text.startswith("/")),
)
VALUES = st.text(alphabet="ab*", min_size=1, max_size=3)
RULES = st.builds(
    Rule,
    line=st.just(0),
    to=st.sampled_from(["one", "two"]),
    priority=st.sampled_from([0, 0, 1]),
    headers=st.one_of(
        st.just(()),
        VALUES.map(lambda value: (("X", value),)),
        st.tuples(VALUES, VALUES).map(lambda pair: (("X", pair[0]), ("Y", pair[1]))),
    ),
    path=st.one_of(st.just(""), PATHS),
    path_prefix=PATHS,
    path_pattern=PATTERNS,
    method=st.sampled_from(["", "", "GET", "POST"]),
    domain=st.sampled_from(["", "", "f", "g"]),
).filter(lambda rule: bool(rule.conditions))

SMALL = ["".join(letters) for length in range(4) for letters in itertools.product("abc", repeat=length)]
METHODS = ["GET", "POST", "PUT"]
PLACES = [
    *((f"/v1/{text}", domain) for text in SMALL for domain in ("", "f", "g", "h")),
    *(("/api" + text, "") for text in ("", "/", "/a", "/b", "/c", "/a/b", "/ba")),
]
HEADERS = [None, *("".join(t) for length in (1, 2, 3) for t in itertools.product("abc", repeat=length))]


def takers(rules: list[Rule]) -> set[tuple[int, ...]]:
    """For every small request, which rules take it: all the combinations that there are."""

    def those(conditions: str, value: str | None) -> int:
        mask = 0
        for place, rule in enumerate(rules):
            asked = [glob for part, glob in rule.conditions if part == conditions]
            mask |= all(value is not None and reference(glob, value) for glob in asked) << place
        return mask

    places = {those("path", path) & those("domain", domain) for path, domain in PLACES}
    methods = {those("method", method) for method in METHODS}
    headers = {those("header:x", x) & those("header:y", y) for x in HEADERS for y in HEADERS[:20]}
    masks = {place & method & header for place in places for method in methods for header in headers}
    return {tuple(place for place in range(len(rules)) if mask >> place & 1) for mask in masks}


@settings(max_examples=150)
@given(rules=st.lists(RULES, min_size=1, max_size=5))
def test_findings_are_what_every_small_request_shows(rules: list[Rule]) -> None:
    table = Table(("one", "two"), tuple(rules))
    combinations = takers(rules)
    order, search = ordered(table.rules), globs.Search(10**9)
    for position, place in enumerate(order):
        rule, before = rules[place], order[:position]
        example = routechecks.reached(search, rule, [rules[p] for p in before])
        if example is None:
            assert not any(place in c and not set(before) & set(c) for c in combinations)
        else:
            assert holds(rule, example)
            assert taken(table, example) == rule or taken(table, example) in rules[:place]
            assert not any(holds(rules[p], example) for p in before)
        for other in before:
            higher = [p for p in before if rules[p].priority > rule.priority]
            both = routechecks.reached(search, rule, [rules[p] for p in higher], rules[other])
            if both is None:
                assert not any({place, other} <= set(c) and not set(higher) & set(c) for c in combinations)
            else:
                assert holds(rule, both) and holds(rules[other], both)
                assert not any(holds(rules[p], both) for p in higher)


@settings(max_examples=100)
@given(rules=st.lists(RULES, min_size=1, max_size=6))
def test_rules_without_findings_mean_the_same_in_any_order(rules: list[Rule]) -> None:
    table = Table(("one", "two"), tuple(rules))
    if routechecks.findings(table):
        return
    turned = Table(table.targets, table.rules[::-1])
    for combination in takers(rules):
        first = [min(combination, key=lambda p: (-rules[p].priority, p))] if combination else []
        last = [min(combination, key=lambda p: (-rules[p].priority, -p))] if combination else []
        assert [rules[p].to for p in first] == [rules[p].to for p in last]
    assert turned.rules[0] == table.rules[-1]


def table(*rules: dict[str, object]) -> Table:
    numbered = [{"line": 10 + place, "to": "vllm", **rule} for place, rule in enumerate(rules)]
    return parse(json.dumps({"targets": ["vllm", "ollama", "elsewhere"], "rules": numbered}))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no lists"),
        ('{"targets": [], "rules": {}}', "no lists"),
        ('{"targets": [1], "rules": []}', "a target must be letters"),
        ('{"targets": [], "rules": [1]}', "the route 1 is no mapping"),
        ('{"targets": [], "rules": [{"line": "1", "to": "a"}]}', "must be whole numbers"),
        ('{"targets": [], "rules": [{"line": true, "to": "a"}]}', "must be whole numbers"),
        ('{"targets": [], "rules": [{"line": 1}]}', "`to` must be letters"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a b"}]}', "`to` must be letters"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "path": "x"}]}', "a path that begins with /"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "path": "/a b"}]}', "characters that a URL"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "path": "/*"}]}', "`path_pattern` only"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "header": []}]}', None),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "header": [1]}]}', "must be a mapping"),
        (
            '{"targets": [], "rules": [{"line": 1, "to": "a", "header": {"a b": "c"}}]}',
            "the name of a header",
        ),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "header": {"a": "c\\n"}}]}', "one line"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "header": {"a": " c"}}]}', "one line"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "header": {"a": "\\u00e9"}}]}', "ASCII"),
        ('{"targets": [], "rules": [{"line": 1, "to": "a", "method": "GET\\r"}]}', "`method` must be"),
    ],
)
def test_files_that_are_none(text: str, error: str | None) -> None:
    if error is None:
        assert parse(text).rules[0].headers == ()
        return
    with pytest.raises(ValueError, match=re.escape(error)) as raised:
        parse(text)
    assert "\n" not in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("line", "to", "name", "priority", "header", "path", "path_prefix", "path_pattern", "method", "domain")
ANY_RULE = st.dictionaries(st.sampled_from(KEYS), JSON | st.text(max_size=30), max_size=10)


@given(rules=st.lists(JSON | ANY_RULE, max_size=3), targets=JSON | st.lists(st.text(max_size=5), max_size=3))
def test_any_json_is_a_table_or_one_line_of_what_is_wrong(rules: object, targets: object) -> None:
    try:
        found = parse(json.dumps({"targets": targets, "rules": rules}))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    routechecks.findings(found)
    haproxy(found)
