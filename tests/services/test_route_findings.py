"""What is wrong with routes, in the words that people read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from services.selector import routechecks, settings
from services.selector.config import ConfigError
from services.selector.routes import parse

IN_CONFLICT = "is in conflict with the rule of line 10, which goes to vllm: both take"
MEND = "give one of them a higher priority"
NOWHERE = "no request can be like that: paths begin with /v1/, or with /api/ where there is no domain"
HIDDEN = "is never reached: that of line 10 takes every request that it would"
REFUSED = "can never match: the gateway refuses paths with"
OLLAMA = {"to": "ollama"}
NOBODY = "there is no engine or remote 'vlm' (did you mean vllm?); it can be vllm, ollama, elsewhere"
EVERYTHING = "asks for nothing and would take every request: `selector.policy` says which engine serves"
SECRET = "is a secret of the client's: routes cannot go by it; use a header that says what is meant"
MEMBERS = {"method": "GET", "priority": 1}


def told(*rules: dict[str, Any]) -> list[str]:
    """The findings; rules stand on the lines 10, 11, … and lead to vllm unless they say otherwise."""
    numbered = [{"line": 10 + place, "to": "vllm", **rule} for place, rule in enumerate(rules)]
    table = parse(json.dumps({"targets": ["vllm", "ollama", "elsewhere"], "rules": numbered}))
    return [f"{found.line}: {'.'.join(found.key)}: {found.text}" for found in routechecks.findings(table)]


CASES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "different paths": ([{"path": "/v1/a"}, {"path": "/v1/b", **OLLAMA}], []),
    "a prefix and a pattern that share a path": (
        [{"path_prefix": "/v1/emb"}, {"path_pattern": "/v1/*dings", **OLLAMA}],
        [f"11: priority: {IN_CONFLICT} POST /v1/embeddings; {MEND}"],
    ),
    "priorities decide": (
        [{"path_prefix": "/v1/emb"}, {"path_pattern": "/v1/*dings", "priority": 1, **OLLAMA}],
        [],
    ),
    "the same target is no conflict": ([{"path_prefix": "/v1/emb"}, {"path_pattern": "/v1/*dings"}], []),
    "values of a header that fit into each other": (
        [{"header": {"X-Tier": "gold*"}}, {"header": {"x-tier": "*er"}, **OLLAMA}],
        [f"11: priority: {IN_CONFLICT} POST /v1/chat/completions with x-tier: golder; {MEND}"],
    ),
    "a header has one value": ([{"header": {"X": "gold"}}, {"header": {"x": "silver"}, **OLLAMA}], []),
    "two headers": (
        [{"header": {"X": "1"}}, {"header": {"Y": "2"}, "method": "GET", **OLLAMA}],
        [f"11: priority: {IN_CONFLICT} GET /v1/chat/completions with x: 1 and y: 2; {MEND}"],
    ),
    "a domain and a method": (
        [{"domain": "law"}, {"method": "GET", **OLLAMA}],
        [f"11: priority: {IN_CONFLICT} GET /law/v1/chat/completions; {MEND}"],
    ),
    "a rule of higher priority takes all that two would quarrel about": (
        [{"domain": "law"}, {"method": "GET", **OLLAMA}, {"domain": "law", "method": "GET", "priority": 1}],
        [],
    ),
    "hidden by a higher priority": (
        [{"path_prefix": "/v1/c", "priority": 1}, {"path_prefix": "/v1/chat", "domain": "law", **OLLAMA}],
        [f"11: : {HIDDEN}"],
    ),
    "hidden by an earlier one": ([{"path_prefix": "/v1/c"}, {"path": "/v1/chat"}], [f"11: : {HIDDEN}"]),
    "a later one of higher priority hides, too": (
        [{"path": "/v1/chat", **OLLAMA}, {"path_prefix": "/v1/c", "priority": 1}],
        ["10: : is never reached: that of line 11 takes every request that it would"],
    ),
    "hidden by a pattern": (
        [{"path_pattern": "/v1/*b*"}, {"path_pattern": "/v1/a*b*c", "header": {"X": "*"}}],
        [f"11: : {HIDDEN}"],
    ),
    "hidden by several together": (
        [{"path_prefix": "/v1/", "priority": 1}, {"path_prefix": "/api", "priority": 1}, {"method": "GET"}],
        ["12: : is never reached: those before it together take every request that it would"],
    ),
    "not quite hidden": (
        [
            {"path_prefix": "/v1/", "header": {"X": "*"}, "priority": 1},
            {"path_prefix": "/api", "priority": 1},
            {"method": "GET"},
        ],
        [],
    ),
    "nobody of that name": ([{"path": "/v1/x", "to": "vlm"}], [f"10: to: {NOBODY}"]),
    "a name twice": (
        [{"path": "/v1/x", "name": "a"}, {"path": "/v1/y", "name": "a"}],
        ["11: name: the rule of line 10 has this name as well"],
    ),
    "everything": ([{}], [f"10: : {EVERYTHING}"]),
    "a key": ([{"header": {"Authorization": "Bearer x"}}], [f"10: header.Authorization: {SECRET}"]),
    "a header twice": (
        [{"header": {"X-A": "1", "x-a": "2"}}],
        ["10: header.x-a: is there twice: case does not matter"],
    ),
    "two slashes": ([{"path": "/v1/a//b"}], [f"10: path: {REFUSED} //"]),
    "up": ([{"path_pattern": "/v1/*/.."}], [f"10: path_pattern: {REFUSED} /.."]),
    "a prefix that may go on": ([{"path_prefix": "/v1/.."}], []),
    "encoded": ([{"path_prefix": "/v1/%2E"}], [f"10: path_prefix: {REFUSED} %2e"]),
    "another path": ([{"path": "/v2/chat"}], [f"10: : {NOWHERE}"]),
    "conditions that exclude each other": (
        [{"path_prefix": "/v1/a", "path_pattern": "/v1/b*"}],
        [f"10: : {NOWHERE}"],
    ),
    "Ollama's paths have no domain": ([{"path_prefix": "/api/", "domain": "law"}], [f"10: : {NOWHERE}"]),
    "Ollama's paths": ([{"path_prefix": "/api/", **OLLAMA}], []),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_with_rules(name: str) -> None:
    rules, expected = CASES[name]
    assert told(*rules) == expected


def test_each_wrong_rule_is_told_once_in_the_order_of_the_lines() -> None:
    found = told({"to": "vlm", "name": "a"}, {"path": "/v1/x", "name": "a"}, {"path": "/v1/x"})
    assert [line.split(":")[0] for line in found] == ["10", "10", "11", "12"]


def test_rules_that_are_too_involved_are_refused_and_do_not_hang() -> None:
    many = [{"header": {f"X-{n}": "a*", f"Y-{n}": "*b"}, "priority": n} for n in range(60)]
    assert told(*many) == []
    hidden = [{"path_pattern": f"/v1/*{a}*{b}*{c}*"} for a, b, c in itertools.permutations("abcdefg", 3)]
    found = told(*hidden, {"path_pattern": "/v1/*x*", "header": {"X": "*"}})
    assert all("is never reached" in line or "too involved" in line for line in found)


def test_a_reload_refuses_what_a_build_refuses(tmp_path: Path) -> None:
    """With routes in conflict, all stays as it was when the selector reads anew, and it says why."""
    routes, config = tmp_path / "routes.json", tmp_path / "selector.json"
    engine = {"name": "vllm", "host": "127.0.0.1", "port": 8000, "base_url": "http://127.0.0.1:8000/v1"}
    engine |= {"health_path": "/health", "health_status": 200, "models_path": "", "model": "m"}
    engine |= {"orchestrator_model": "m", "server": "engines/vllm"}
    data = {"policy": "auto", "gateway_socket": "/a", "status_socket": "/b", "routes_file": str(routes)}
    config.write_text(json.dumps({**data, "engines": [engine]}))
    settings.read(str(config), strict=True)
    rules = [{"line": 7, "to": "vllm", "method": "GET"}, {"line": 9, "to": "far", "domain": "law"}]
    routes.write_text(json.dumps({"targets": ["vllm", "far"], "rules": rules}))
    with pytest.raises(ConfigError) as raised:
        settings.read(str(config), strict=True)
    said = str(raised.value)
    assert said.startswith(f"{routes}: line 9 of the spec: gateway.routes[1].priority: is in conflict with")
    assert "both take GET /law/v1/chat/completions" in said
    routes.write_text("[]")
    with pytest.raises(ConfigError, match="the routes have no lists"):
        settings.read(str(config), strict=True)
    settings.read(str(config), strict=False)
    routes.write_text(json.dumps({"targets": ["vllm"], "rules": rules[:1]}))
    settings.read(str(config), strict=True)
