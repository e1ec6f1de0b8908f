"""Models that come in packs: whether the initrd mounted them, as its report says (docs/boot.md)."""

from __future__ import annotations

import json

from ..pins import PinnedModel

LARGEST = 1024 * 1024


def missing(models: tuple[PinnedModel, ...], report: str) -> dict[str, str]:
    """Of each model that comes in a pack, why it is not there ("": it is)."""
    reasons = {}
    try:
        with open(report, encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs at start-up)
            entries = json.loads(file.read(LARGEST))["packs"]
        seen = {entry["mountpoint"]: entry for entry in entries}
        problem = ""
    except OSError as error:
        seen, problem = {}, f"{report}: {error.strerror}"
    except (ValueError, TypeError, KeyError, RecursionError):
        seen, problem = {}, f"{report} is not what the initrd writes"
    for model in models:
        if model.stored:
            continue
        place = model.pack.mountpoint if model.pack else f"/srv/models/{model.name}"
        entry = seen.get(place)
        if entry is None:
            reasons[model.name] = problem or "the initrd knows no such pack"
        elif entry.get("state") == "ok":
            reasons[model.name] = ""
        else:
            label = model.pack.label if model.pack else "its label"
            why = str(entry.get("reason") or entry.get("state") or "not mounted")
            reasons[model.name] = f"{why}; attach the disk with the partition {label} and boot again"
    return reasons
