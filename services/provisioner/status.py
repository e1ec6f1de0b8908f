"""What the provisioner says of itself: status.json, and a line for systemd. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .core import space
from .core.state import File, Model, Stage, State, Trouble
from .pins import IMPORT

VERSION = 1


class Live(NamedTuple):
    """What changes faster than the state: bytes that came over the network in attempts that run, bytes per
    second, where each file is fetched from (by SHA-256), and the share of a verification that is done."""

    fetched: Mapping[str, int] = {}
    rates: Mapping[str, float] = {}
    sources: Mapping[str, str] = {}
    verified: Mapping[str, float] = {}


def document(state: State, live: Live, now: float, unix: float) -> dict[str, Any]:
    """status.json; `now` is the core's clock, `unix` the machine's."""
    models = [_model(state, model, live, now) for model in state.models]
    return {"version": VERSION, "updated": unix, "models": models}


def line(state: State, live: Live, now: float) -> str:
    """All of it in a line."""
    rows = [_model(state, model, live, now) for model in state.models]
    ready = sum(row["state"] == "ready" for row in rows)
    parts = [f"{ready} of {len(rows)} models ready"] if rows else ["there are no models"]
    for row in rows:
        if row["state"] == "fetching":
            share = 100 * row["bytes"] // row["size"] if row["size"] else 100
            parts.append(f"fetching {row['name']}: {share} %, {space.size(row['rate'])}/s")
        elif row["state"] != "ready":
            parts.append(f"{row['name']}: {row['state']}")
    return "; ".join(parts)


def _model(state: State, model: Model, live: Live, now: float) -> dict[str, Any]:
    files = state.of(model)
    word, reason = phase(state, model, live, now)
    first = {file.sha256 for file in files if state.wanting(file.sha256)[:1] == [model]}
    rate = sum(live.rates.get(file.sha256, 0.0) for file in files if file.running)
    missing = sum(file.missing for file in files)
    whole = model.stage not in (Stage.FETCH, Stage.PACK)
    return {
        "name": model.name,
        "delivery": model.delivery,
        "state": word,
        "reason": reason,
        "bytes": model.size if whole or word == "ready" else _bytes(state, model),
        "size": model.size,
        "fetched": model.fetched + sum(live.fetched.get(sha256, 0) for sha256 in first),
        "rate": round(rate),
        "eta": round(missing / rate) if rate > 0 and missing else None,
        "attempts": model.attempts,
        "error": model.error,
        "again_in": _again_in(state, model, word, now),
        "sealed": model.sealed,
        "source": _source(state, model, files, live),
    }


def phase(state: State, model: Model, live: Live, now: float) -> tuple[str, str]:
    """A model's state in a word, and why it is so."""
    if model.trouble:
        return model.trouble, model.reason
    if model.stage == Stage.PACK:
        return "ready", ""
    if model.stage == Stage.READY:
        return "ready", "it is being verified again" if model.again else ""
    if model.stage != Stage.FETCH:
        share = live.verified.get(model.name)
        return "verifying", f"{100 * share:.0f} % read" if share is not None else ""
    files = [file for file in state.of(model) if not file.whole]
    if model.delivery == IMPORT and files:
        return Trouble.MISSING, f"`hal-provision import` brings it: {len(files)} of its files are awaited"
    if any(file.running for file in files):
        return "fetching", ""
    if not files:
        return "verifying", ""
    if not state.route:
        return "waiting", "there is no network"
    if model.admitted and all(file.schedule.at > now for file in files):
        return "backoff", min(files, key=lambda file: file.schedule.at).schedule.error
    return "waiting", "for its turn" if model.admitted else ""


def _bytes(state: State, model: Model) -> int:
    """Bytes held; a file that a model has twice counts twice, as it does in the model's size."""
    held = {file.sha256: file.size if file.whole else min(file.held, file.size) for file in state.of(model)}
    return sum(held.get(file.sha256, 0) for file in state.config.model(model.name).files)


def _again_in(state: State, model: Model, word: str, now: float) -> float | None:
    if word == Trouble.FAILED:
        return round(max(0.0, model.again_at - now), 1)
    if word == "backoff":
        times = [file.schedule.at for file in state.of(model) if not file.whole]
        return round(max(0.0, min(times) - now), 1)
    return None


def _source(state: State, model: Model, files: list[File], live: Live) -> str:
    pinned = state.config.model(model.name)
    if model.stage == Stage.PACK:
        return f"pack {pinned.pack.label}" if pinned.pack else "pack"
    if model.delivery == IMPORT:
        return "import"
    chosen = [file for file in files if file.running] or [file for file in files if not file.whole] or files
    return live.sources.get(chosen[0].sha256, "") if chosen else ""
