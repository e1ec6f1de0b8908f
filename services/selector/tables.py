"""Answers of the selector as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..terminal import span, table
from .routes import Rule

HEADER = ("ENGINE", "ACTIVE", "HEALTHY", "STATE", "SINCE", "STREAMS", "REASON")


def status(found: dict[str, Any]) -> str:
    """`hal-selector status`."""
    rows = [HEADER]
    for engine in found["engines"]:
        streams = "" if engine["streams"] is None else str(engine["streams"])
        active = ("yes" if engine["active"] else "no") if engine["selectable"] else "by route"
        healthy = "yes" if engine["healthy"] else "no"
        cells = (engine["name"], active, healthy, engine["state"], span(engine["since"]), streams)
        rows.append((*cells, engine["reason"]))
    return "\n".join([table(rows), "", *_models(found), *_lines(found)])


def _models(found: dict[str, Any]) -> list[str]:
    """The models that have not arrived, one in a line."""
    return [f"missing: {model['reason']}" for model in found["models"] if model["state"] != "ready"]


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"policy: {found['policy']} (from {found['policy_from']})"]
    if found["commanded"]:
        lines.append(f"commanded: {found['commanded']}")
    if found["switch"]:
        switch = found["switch"]
        source = switch["from"] or "none"
        lines.append(
            f"switching from {source} to {switch['to']} for {span(switch['seconds'])}: {switch['stage']} "
            f"({switch['reason']})"
        )
    last = found["last_switch"]
    if last and not last["ok"]:
        lines.append(f"the last switch, to {last['to']}, failed {span(last['ago'])} ago: {last['reason']}")
    if found["drained"]:
        lines.append("drained: no requests are served until `hal-selector undrain`")
    if found["hopeless"]:
        lines.append(f"requests are refused at once: {found['hopeless']}")
    if not found["gateway"]:
        lines.append("the gateway does not answer: nothing is served")
    if found["refused"]:
        lines.append(f"not taken: {found['refused']}")
    if found["unkept"]:
        lines.append(f"commands are not kept over a restart: {found['unkept']}")
    return lines


def explained(found: dict[str, Any]) -> str:
    """`hal-selector explain`."""
    if found["serving"]:
        head = f"{found['active']} serves."
    else:
        head = f"No engine serves; {found['active'] or 'none'} was the last to be chosen."
    lines = [
        head,
        f"hardware: {found['hardware']}",
        *_models(found),
        *_lines(found),
        "",
        "Why, in order of preference:",
    ]
    lines += [f"  {name}: {why}" for name, why in found["why"].items()]
    lines += ["", "Decisions, the latest first:"]
    decisions = [
        (f"  {span(one['ago'])} ago", one["what"] + (f": {one['why']}" if one["why"] else ""))
        for one in reversed(found["decisions"])
    ]
    lines.append(table(decisions) if decisions else "  none yet")
    return "\n".join(lines)


def routes(rules: Sequence[Rule]) -> str:
    """`hal-selector routes`: in the order in which they are asked; the first that holds takes a request."""
    if not rules:
        return "there are no routes: every request goes to the active engine"
    rows: list[tuple[str, ...]] = [("PRIORITY", "NAME", "TO", "LINE", "WHEN")]
    for rule in rules:
        when = [f"{part} is {glob}" for part, glob in rule.conditions]
        rows.append((str(rule.priority), rule.name or "-", rule.to, str(rule.line), " and ".join(when)))
    return table(rows)
