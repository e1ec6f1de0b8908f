"""Routes: what is found wrong with them, against every small request there is, and what HAProxy reads."""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.sandbox import Sandbox
from services.selector import globs, routechecks
from services.selector.routes import (
    Request,
    Rule,
    Table,
    haproxy,
    holds,
    main,
    ordered,
    parse,
    quoted,
    regex,
    taken,
)
from tests.services.conftest import wait_for

ROOT = Path(__file__).resolve().parents[2]
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


# What HAProxy reads

HOSTILE = [
    *("'", '"', "'; shutdown", "}", "{", "\\", "\\'", "$HOME", "${HOME}", "%[src]", "# x", "-f /etc/passwd"),
    *("-i", "--", "a' or 'b", "\\n http-request deny", "|", "(", "[", ")", ".", "^", "+", "?", "a b  c"),
    *("if unless or ||", "\\x27", "!", "`id`", "\\\\", "'\\''", "~", "@", "\\E", "(?i)a"),
]
PRINTABLE = st.text(alphabet=[chr(code) for code in range(0x20, 0x7F)], min_size=1, max_size=40)


def words(line: str) -> list[str]:
    """A line's words as HAProxy reads strong quotes (configuration manual, 2.2): for text in these alone."""
    found, word, inside, position = [], "", False, 0
    while position < len(line):
        character = line[position]
        if character == "'":
            inside = not inside
        elif inside:
            word += character
        elif character == "\\":
            position += 1
            word += line[position]
        elif character == " ":
            found.append(word)
            word = ""
        else:
            assert character not in '"#$', f"{character} outside of quotes"
            word += character
        position += 1
    assert not inside, "a quote is open"
    return [*found, word]


@given(value=PRINTABLE)
def test_a_quoted_text_is_one_word(value: str) -> None:
    assert words(f"a {quoted(value)} b") == ["a", value, "b"]


@given(text=st.text(max_size=20))
def test_what_no_line_can_have_is_refused(text: str) -> None:
    try:
        assert words(quoted(text)) == [text]
        assert "\n" not in quoted(text)
    except ValueError:
        assert not (text.isascii() and text.isprintable())


@given(
    value=PRINTABLE.map(str.strip).filter(bool),
    path=st.text(alphabet="/._~!$&'()+,;=:@%-aZ0", max_size=30).map(lambda text: "/" + text),
    glob=st.text(alphabet="/._~!$&'()+,;=:@%-aZ0*", max_size=30).map(lambda text: "/" + text),
)
def test_no_value_makes_a_line_or_a_word_of_its_own(value: str, path: str, glob: str) -> None:
    rule = {
        "header": {"X-A": value},
        "path": path,
        "path_prefix": path,
        "path_pattern": glob,
        "method": "GET",
    }
    lines = haproxy(table({**rule, "domain": "f", "name": "n"})).splitlines()
    conditions = lines[1:-1]
    assert all(words(line)[0] == "acl" for line in conditions) and len(conditions) in range(6, 11)
    assert all(len(words(line)) == (5 if words(line)[4] == "found" else 7) for line in conditions)
    assert words(lines[3])[6] == path
    names = " ".join(f"route_0_{place}" for place, _ in enumerate(conditions))
    assert lines[-1] == f"http-request set-var(txn.to,ifnotexists) str(vllm) if {names}"


def test_the_same_rules_are_the_same_bytes() -> None:
    one = haproxy(table({"header": {"B": "1", "A": "2"}}, {"path": "/v1/x", "priority": 3}))
    two = haproxy(table({"header": {"A": "2", "B": "1"}}, {"path": "/v1/x", "priority": 3}))
    assert one == two
    assert one.index("line 11") < one.index("line 10"), "a higher priority is asked first"


def test_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = {"line": 3, "to": "a", "path": "/v1/x"}, {"line": 4, "to": "b", "path": "/v1/x"}
    file = tmp_path / "routes.json"
    file.write_text(json.dumps({"targets": ["a", "b"], "rules": [good, bad]}))
    assert main(["check", str(file)]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["line"], found["key"]) == (1, 4, ["priority"])
    file.write_text(json.dumps({"targets": ["a", "b"], "rules": [good]}))
    assert main(["check", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["haproxy", str(file)]) == 0
    assert "acl route_0_0 path -m str -- '/v1/x'\n" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none")]) == 2
    assert main([]) == 2
    done = subprocess.run(
        [sys.executable, "-S", "-m", "services.selector.routes", "check", "-"],
        input=b'{"targets": ["a"], "rules": []}', capture_output=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == []


CONFIGURATION = """\
defaults
    mode http
    timeout client 5s
    timeout connect 5s
    timeout server 5s
frontend f
    bind unix@{socket}
    http-request set-var(txn.domain) path,field(2,/) if !{{ path_beg /v1/ }} {{ path,field(3,/) v1 }}
    http-request set-path /%[path,field(3,/,0)] if {{ var(txn.domain) -m found }}
{lines}
    http-request return status 200 hdr X-To %[var(txn.to)]
"""


def checked(tools: Sandbox, folder: Path, rules: Table) -> str:
    """What HAProxy says to a configuration with these rules; it must take it without a warning."""
    config = folder / "haproxy.cfg"
    lines = "".join(f"    {line}\n" for line in haproxy(rules).splitlines())
    config.write_text(CONFIGURATION.format(socket=folder / "http.sock", lines=lines))
    done = tools.run(["haproxy", "-c", "-f", str(config)], writable=[folder], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def hostile_rules() -> Table:
    found = [{"header": {"X-A": text}, "priority": place} for place, text in enumerate(HOSTILE)]
    found += [{"path_pattern": f"/v1/*{c}*(.)", "path": f"/v1/{c}"} for c in "!$&'()+,;=:@%-" if c != "*"]
    longest = "'" * 1000
    found += [
        {"header": {"X-A": longest}},
        {"path_pattern": "/v1/" + "*a'" * 300},
        {"path": "/v1/" + longest},
    ]
    return table(*found)


def test_haproxy_takes_every_hostile_value(tools: Sandbox, tmp_path: Path) -> None:
    said = checked(tools, tmp_path, hostile_rules())
    assert "ALERT" not in said and "WARNING" not in said, said


def served(tools: Sandbox, folder: Path, rules: Table) -> Iterator[socket.socket]:
    """Connections to a HAProxy with these rules, which answers with the name that a request goes to."""
    checked(tools, folder, rules)
    command = tools.command(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], writable=[folder])
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / "http.sock").exists, "HAProxy listens")
        while True:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(folder / "http.sock"))
                yield connection
    finally:
        process.kill()
        process.wait()


def answer(connection: socket.socket, request: Request, *, before: str = "") -> str:
    """The name that HAProxy sends a request to, "" where no rule takes it; `before`: another value of X-A."""
    path = f"/{request.domain}{request.path}" if request.domain else request.path
    headers = ([("X-A", before)] if before else []) + [
        (name.title(), value) for name, value in request.headers
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    length = "Content-Length: 0\r\n" if request.method in ("POST", "PUT") else ""
    text = f"{request.method} {path} HTTP/1.1\r\nHost: x\r\n{length}{head}Connection: close\r\n\r\n"
    connection.sendall(text.encode())
    said = b""
    while piece := connection.recv(65536):
        said += piece
    assert said.startswith(b"HTTP/1.1 200 "), said[:80]
    found = re.search(rb"(?im)^x-to: *(.*?)\r$", said)
    return found[1].decode() if found is not None else ""


def test_haproxy_sends_requests_where_the_rules_say(tools: Sandbox, tmp_path: Path) -> None:
    """Every way to write a condition, hostile values among them, and requests that nearly fit."""
    targets = ["vllm", "ollama", "elsewhere"]
    values = [*HOSTILE, "gold*", "*gold", "a*b*c", "*", "x" * 1000]
    rules = [
        *({"header": {"X-A": v}, "path": "/v1/h", "to": targets[n % 3]} for n, v in enumerate(values)),
        {"path_prefix": "/v1/emb", "method": "POST", "to": "ollama"},
        {"path_pattern": "/v1/*/b*c", "to": "elsewhere"},
        {"path_pattern": "/v1/it's*$1)(&+;=:@~!'*", "domain": "law", "to": "vllm"},
        {"domain": "finance", "method": "DELETE", "header": {"x-b": "1", "X-A": "*"}, "to": "vllm"},
    ]
    chosen = table(*({**rule, "priority": -place} for place, rule in enumerate(rules)))
    paths = ["/v1/h", "/v1/emb", "/v1/embeddings", "/v1/em", "/v1//bc", "/v1/a/bxc", "/v1/a/bcx", "/v1/a/c"]
    paths += [
        "/v1/it's$1)(&+;=:@~!'",
        "/v1/it's-$1)(&+;=:@~!'-",
        "/v1/its$1)(&+;=:@~!'",
        "/api/tags",
        "/v1/H",
    ]
    asked = [
        Request(m, p, d) for p in paths for m in ("GET", "POST") for d in ("", "law") if p < "/v" or not d
    ]
    near = [v.replace("*", "") for v in values] + [
        "marigold",
        "golden",
        "abc",
        "a-b-c",
        "acb",
        "GOLD",
        "x" * 999,
    ]
    asked += [Request("GET", "/v1/h", "", (("x-a", text),)) for text in near]
    asked += [
        Request("DELETE", "/v1/q", "finance", h) for h in ((("x-b", "1"),), (("x-a", "q"), ("x-b", "1")))
    ]
    connections = served(tools, tmp_path, chosen)
    told = []
    for request, connection in zip(asked, connections, strict=False):
        expected = taken(chosen, request)
        told.append(answer(connection, request))
        assert told[-1] == (expected.to if expected is not None else ""), request
    assert {"", "vllm", "ollama", "elsewhere"} == set(told), "all of them happen"
    # Of a header that is there twice, the last counts.
    twice = Request("GET", "/v1/h", "", (("x-a", "gold"),))
    expected = taken(chosen, twice)
    assert expected is not None and answer(next(connections), twice, before="nothing at all") == expected.to
    connections.close()


def test_no_request_makes_a_pattern_search_for_long(tools: Sandbox, tmp_path: Path) -> None:
    """The worst that a client can send to a pattern with many stars: HAProxy answers others meanwhile."""
    pattern = "*" + "*a" * 12 + "*b*c"
    chosen = table({"header": {"X-A": pattern}})
    connections = served(tools, tmp_path, chosen)
    request = Request("GET", "/v1/h", "", (("x-a", "a" * 7000 + "b"),))
    answer(next(connections), request)
    start = time.monotonic()
    for _ in range(20):
        assert answer(next(connections), request) == ""
    assert (time.monotonic() - start) / 20 < 0.1
    connections.close()
