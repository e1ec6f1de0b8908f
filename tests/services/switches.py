"""What tests ask of the selector of two engines: over its control socket, as `hal-selector` does."""

from __future__ import annotations

from typing import Any

from services.selector.cli import ask as command
from services.terminal import Failure
from tests.services.pair import Pair


def control(stack: Pair, do: str, **more: object) -> dict[str, Any]:
    """The selector's answer on its control socket; nothing while it is not there."""
    try:
        return command(str(stack.home / "run/hal/selector/control.sock"), {"do": do, **more})
    except Failure:
        return {}


def engine(stack: Pair, name: str) -> dict[str, Any]:
    """What status says of an engine; nothing while the selector is not there."""
    found: list[dict[str, Any]] = control(stack, "status").get("engines", [])
    return next((one for one in found if one["name"] == name), {})


def healthy(stack: Pair, name: str) -> bool:
    """Whether the selector finds the engine good."""
    return bool(engine(stack, name).get("healthy"))


def active(stack: Pair) -> str:
    """The engine that serves, once no switch is under way."""
    found = control(stack, "status")
    return str(found["active"]) if found.get("serving") and not found["switch"] else ""
