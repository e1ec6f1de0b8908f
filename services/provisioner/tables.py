"""Answers of the provisioner as text for people."""

from __future__ import annotations

from typing import Any

from ..terminal import span, table

HEADER = ("MODEL", "STATE", "BYTES", "RATE", "ETA", "ATTEMPTS", "FROM", "WHY")


def status(found: dict[str, Any]) -> str:
    """`hal-provision status`."""
    if not found["models"]:
        return "this appliance has no models"
    from .core.space import size

    rows = [HEADER]
    for model in found["models"]:
        share = f"{100 * model['bytes'] // model['size']} %" if model["size"] else "100 %"
        rows.append(
            (
                model["name"],
                model["state"],
                f"{share} of {size(model['size'])}",
                f"{size(model['rate'])}/s" if model["rate"] else "",
                span(model["eta"]) if model["eta"] is not None else "",
                str(model["attempts"] or ""),
                model["source"],
                _why(model),
            )
        )
    return table(rows)


def _why(model: dict[str, Any]) -> str:
    """The reason, or else the last error while it still matters; when it goes on."""
    why = model["reason"] or ("" if model["state"] == "ready" else model["error"])
    if model["again_in"] is not None:
        again = f"again in {span(model['again_in'])}"
        return f"{again}: {why}" if why else again
    if model["state"] == "ready" and not why and model["delivery"] in ("network", "import"):
        return "" if model["sealed"] else "verified; the file system cannot seal it"
    return str(why)
