"""A spec's routes, as the appliance's own code reads them: checked at build by what checks them at reload.

That code is services/selector/routes.py. hal imports nothing of what runs in the appliance, so it is run as
a program; specs without routes do not pay for that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal.documents.document import Problem
from hal.errors import HalError
from hal.run import run
from hal.spec.gateway import Route

if TYPE_CHECKING:
    from hal.spec.loading import LoadedSpec

ROOT = Path(__file__).resolve().parents[2]
"""Where the package `services` lies."""


def routes_json(
    routes: Sequence[Route], lines: Sequence[int], targets: Sequence[str], generated: str = ""
) -> str:
    """Routes with the line of each in its spec, and all names that a route can lead to.

    `generated` says what a file of them was made from.
    """
    rules = [
        {"line": line, **{key: value for key, value in route.model_dump().items() if value not in (None, {})}}
        for route, line in zip(routes, lines, strict=True)
    ]
    data = {"generated": generated, "targets": list(targets), "rules": rules}
    return json.dumps(data, indent=2) + "\n"


def loaded_json(loaded: LoadedSpec, generated: str = "") -> str:
    """The routes of a valid spec, for the appliance."""
    spec = loaded.spec
    names = targets(spec.engines, spec.gateway.remotes)
    return routes_json(spec.gateway.routes, loaded.route_lines, names, generated)


def targets(*named: Sequence[Any]) -> tuple[str, ...]:
    """The names that a route can lead to: those of engines and of remote endpoints."""
    return tuple(dict.fromkeys(entry.name for entries in named for entry in entries))


def haproxy_lines(loaded: LoadedSpec) -> tuple[str, ...]:
    """The routes as lines of HAProxy's frontend, which set `txn.to`; none where there are none."""
    if not loaded.spec.gateway.routes:
        return ()
    return tuple(_program("haproxy", loaded_json(loaded)).splitlines())


def unrouted(loaded: LoadedSpec, method: str, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `paths` that need no look at the routes, and HAProxy's tests `routed` for requests to them."""
    if not loaded.spec.gateway.routes:
        return list(paths), []
    left, lines = json.loads(_program("unrouted", loaded_json(loaded), method, *paths))
    return left, lines


def route_problems(text: str) -> Iterator[Problem]:
    """What is wrong with routes (`routes_json`), each with its key path in the spec."""
    for found in json.loads(_program("check", text)):
        key = tuple(found["key"])
        yield Problem(("gateway", "routes", found["rule"], *key), found["text"])


def _program(command: str, text: str, *more: str) -> str:
    argv = [sys.executable, "-S", "-m", "services.selector.routes", command, "-", *more]
    done = run(argv, cwd=ROOT, env={"PYTHONDONTWRITEBYTECODE": "1"}, input=text.encode(), check=False)
    if done.returncode not in (0, 1) or not (done.stdout or command == "haproxy"):
        raise HalError(f"the routes cannot be read: {done.stderr.strip() or 'no answer'}")
    return done.stdout
