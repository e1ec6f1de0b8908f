"""Answers of the selector as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .routes import Rule

HEADER = ("ENGINE", "ACTIVE", "HEALTHY", "STATE", "SINCE", "STREAMS", "REASON")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the last one as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def ago(seconds: float) -> str:
    """A time span in its two largest units."""
    left = max(0, int(seconds))
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit} {rest} {name}" if rest else f"{left // size} {unit}"
    return f"{left} s"


def status(found: dict[str, Any]) -> str:
    """`hal-selector status`."""
    rows = [HEADER]
    for engine in found["engines"]:
        streams = "" if engine["streams"] is None else str(engine["streams"])
        active = ("yes" if engine["active"] else "no") if engine["selectable"] else "by route"
        healthy = "yes" if engine["healthy"] else "no"
        cells = (engine["name"], active, healthy, engine["state"], ago(engine["since"]), streams)
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
            f"switching from {source} to {switch['to']} for {ago(switch['seconds'])}: {switch['stage']} "
            f"({switch['reason']})"
        )
    last = found["last_switch"]
    if last and not last["ok"]:
        lines.append(f"the last switch, to {last['to']}, failed {ago(last['ago'])} ago: {last['reason']}")
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
        (f"  {ago(one['ago'])} ago", one["what"] + (f": {one['why']}" if one["why"] else ""))
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
