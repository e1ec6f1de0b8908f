"""What the selector answers over HTTP on its unix socket: its status, and its metrics."""

from __future__ import annotations

import json
from typing import NamedTuple

from .config import Config
from .core import State, serving, target
from .models import Model
from .report import phase, reason

STATUS_PATH = "/api/v1/inference/status"
METRICS_PATHS = ("/metrics", "/metrics/selector")
ALL_METRICS = METRICS_PATHS[0]
"""With HAProxy's own series before the selector's."""

PHASES = ("ready", "starting", "waiting", "unhealthy", "stopping", "stopped", "failed", "away", "unknown")

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class Counts(NamedTuple):
    """What has happened since the selector started: switches by target, cause and result, and others.

    `last_switch` is a time of the wall clock, 0 before any.
    """

    switches: tuple[tuple[str, str, str, int], ...] = ()
    last_switch: float = 0.0
    last_seconds: float = 0.0
    decisions: int = 0
    reloads: int = 0
    refused: int = 0

    def switched(self, target: str, cause: str, result: str) -> Counts:
        """With one more switch."""
        found = {entry[:3]: entry[3] for entry in self.switches}
        key = (target, cause, result)
        found[key] = found.get(key, 0) + 1
        return self._replace(switches=tuple((*key, number) for key, number in sorted(found.items())))

    def after(self, before: State, state: State, now: float) -> Counts:
        """With what a step from one state to the next has brought; `now` of the wall clock."""
        counts = self
        if state.decisions is not before.decisions and state.decisions:
            last = before.decisions[-1] if before.decisions else None
            places = [index for index, one in enumerate(state.decisions) if one is last]
            new = len(state.decisions) - (places[-1] + 1 if places else 0)
            counts = counts._replace(decisions=counts.decisions + new)
        ended = state.ended
        if ended is None or ended is before.ended:
            return counts
        cause = "command" if before.switch is not None and before.switch.back is not None else "selector"
        counts = counts.switched(ended.target, cause, "done" if ended.ok else "failed")
        return counts._replace(last_switch=now, last_seconds=ended.at - ended.since)


def status(state: State, config: Config, models: tuple[Model, ...] = ()) -> dict[str, object]:
    """The public status: which engine serves, or is waited for, and whether a request would be served.

    While none would be, `reason` says why: in the words of the engine's launcher, or of the last probe.
    `models` are those that arrive while the machine runs, missing ones first; left out if there are none.
    """
    name = target(state)
    engine = config.engine(name)
    found: dict[str, object] = {
        "backend": engine.name,
        "base_url": engine.base_url,
        "model": engine.model,
        "orchestrator_model": engine.orchestrator_model,
        "healthy": serving(state),
    }
    if not found["healthy"]:
        found["reason"] = next(reason(seen) for seen in state.engines if seen.name == name)
    if models:
        found["models"] = [model._asdict() for model in models]
    return found


NOTHING_YET = Counts()


def metrics(state: State, counts: Counts = NOTHING_YET, models: tuple[Model, ...] = ()) -> str:
    """The selector's series in Prometheus' text format (version 0.0.4)."""
    lines: list[str] = []

    def series(name: str, kind: str, words: str, values: list[tuple[str, float]]) -> None:
        lines.append(f"# HELP hal_selector_{name} {words}")
        lines.append(f"# TYPE hal_selector_{name} {kind}")
        lines.extend(f"hal_selector_{name}{labels} {value:.15g}" for labels, value in values)

    each = [(f'{{engine="{engine.name}"}}', engine) for engine in state.engines]
    series(
        "engine_healthy",
        "gauge",
        "Whether the engine is healthy and lists its model.",
        [(label, engine.healthy) for label, engine in each],
    )
    series(
        "engine_active",
        "gauge",
        "Whether requests go to the engine.",
        [(label, engine.name == state.active) for label, engine in each],
    )
    series(
        "engine_state",
        "gauge",
        "The state that the engine is in.",
        [
            (f'{{engine="{engine.name}",state="{word}"}}', phase(engine) == word)
            for engine in state.engines
            for word in PHASES
        ],
    )
    series("serving", "gauge", "Whether a request is served now.", [("", serving(state))])
    words = "Whether requests are refused at once, as no engine can get ready while they wait."
    series("hopeless", "gauge", words, [("", bool(state.hopeless))])
    words = "Whether the model has arrived."
    series("model_ready", "gauge", words, [(f'{{model="{m.name}"}}', m.state == "ready") for m in models])
    series("switching", "gauge", "Whether a switch is under way.", [("", state.switch is not None)])
    series("drained", "gauge", "Whether an operator wants no requests served.", [("", state.drained)])
    series(
        "gateway_connected",
        "gauge",
        "Whether the gateway's runtime API is connected.",
        [("", state.gateway)],
    )
    series(
        "switches_total",
        "counter",
        "Switches that have ended, by target, cause and result.",
        [
            (f'{{engine="{target}",cause="{cause}",result="{result}"}}', number)
            for target, cause, result, number in counts.switches
        ],
    )
    last = "When the last switch ended, in seconds since 1970; 0 before any."
    series("last_switch_timestamp_seconds", "gauge", last, [("", counts.last_switch)])
    series("last_switch_seconds", "gauge", "How long it took.", [("", counts.last_seconds)])
    series("decisions_total", "counter", "Decisions taken.", [("", counts.decisions)])
    series("reloads_total", "counter", "Configurations read anew and taken.", [("", counts.reloads)])
    series("refused_reloads_total", "counter", "Configurations that were refused.", [("", counts.refused)])
    return "\n".join(lines) + "\n"


def asks_for_all_metrics(head: bytes) -> bool:
    """Whether a request is one for HAProxy's series as well."""
    fields = head.split(b"\r\n", 1)[0].split(b" ")
    return len(fields) == 3 and fields[0] == b"GET" and fields[1].split(b"?", 1)[0] == ALL_METRICS.encode()


def body_of(answer: bytes) -> str:
    """The body of an HTTP answer of HAProxy's exporter; empty where there is none of use."""
    head, found, body = answer.partition(b"\r\n\r\n")
    fields = head.split(None, 2)
    if not found or len(fields) < 2 or fields[1] != b"200":
        return ""
    text = body.decode(errors="replace")
    return text if text.endswith("\n") else f"{text}\n"


def answer(
    head: bytes,
    state: State,
    config: Config,
    counts: Counts = NOTHING_YET,
    before: str = "",
    models: tuple[Model, ...] = (),
) -> bytes:
    """The whole HTTP/1.1 answer to a request whose head is given; the connection closes after it.

    `before` are series to be put before the selector's own.
    """
    fields = head.split(b"\r\n", 1)[0].split(b" ")
    if len(fields) != 3 or not fields[2].startswith(b"HTTP/1."):
        return _answer(400, "application/json", _error("not an HTTP/1 request"))
    path = fields[1].split(b"?", 1)[0].decode("ascii", "replace")
    if path != STATUS_PATH and path not in METRICS_PATHS:
        return _answer(404, "application/json", _error("no such path"))
    if fields[0] not in (b"GET", b"HEAD"):
        return _answer(405, "application/json", _error("only GET is answered here"), "Allow: GET, HEAD\r\n")
    if path == STATUS_PATH:
        reply = _answer(200, "application/json", json.dumps(status(state, config, models)) + "\n")
    else:
        reply = _answer(200, "text/plain; version=0.0.4", before + metrics(state, counts, models))
    return reply if fields[0] == b"GET" else reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _error(message: str) -> str:
    kind = "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}) + "\n"


def _answer(code: int, kind: str, body: str, more: str = "") -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"Cache-Control: no-store\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + content
