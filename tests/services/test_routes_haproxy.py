"""Routes as HAProxy reads them: no value makes a line of its own, and all of them mean what they should."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.sandbox import Sandbox
from services.selector.routes import Request, Table, haproxy, main, quoted, taken
from tests.services.conftest import wait_for
from tests.services.test_routes import table

ROOT = Path(__file__).resolve().parents[2]

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
