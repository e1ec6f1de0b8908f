"""Why Kconfig did not take a line of a configuration, told from its own tree of symbols (by kconfiglib).

It runs inside the sandbox that Buildroot runs in, since Kconfig files ask the compiler and the environment:

    python3 explain.py DIRECTORY_OF_KCONFIGLIB < request.json > reasons.json

The request has `root` and `start` (the tree and its first file), `config` (the .config that came out),
`variables` (the environment that the files refer to), `prefix` (what a .config has before the names in
Kconfig files) and `lines`: pairs of a symbol and the value that was asked for, null for off. It imports
nothing of hal's.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
import sys
from typing import Any

MOST = 6
"""Unmet dependencies that are shown of one symbol: more fill the screen and help nobody."""

DEPTH = 2
"""How far a chain of unmet dependencies is followed."""


def explain(request: dict[str, Any]) -> dict[str, list[str]]:
    """The reasons, by symbol."""
    import kconfiglib

    os.environ.update(request["variables"])
    os.environ["srctree"] = request["root"]  # noqa: SIM112
    os.chdir(request["root"])

    class Tree(kconfiglib.Kconfig):  # type: ignore[misc]
        """Reads today's kernel: `modules`, which kconfiglib tells by the symbol's name, is a word there."""

        def _open(self, filename: str, mode: str) -> Any:
            with super()._open(filename, mode) as file:
                return io.StringIO(re.sub(r"^\tmodules$", "", file.read(), flags=re.MULTILINE))

    tree = Tree(request["start"], warn=False)
    tree.load_config(request["config"])
    return {symbol: reasons(tree, symbol, value, request["prefix"]) for symbol, value in request["lines"]}


def reasons(tree: Any, line: str, value: str | None, prefix: str = "") -> list[str]:
    """Why `line` has not the `value` that was asked for."""
    import kconfiglib

    name = line.removeprefix(prefix)
    symbol = tree.syms.get(name)
    if symbol is None or not symbol.nodes:
        near = difflib.get_close_matches(name, [other.name for other in tree.unique_defined_syms], 1, 0.8)
        return ["there is no such symbol" + (f": did you mean {prefix}{near[0]}?" if near else "")]
    if unmet := unmet_dependencies(symbol, prefix):
        return unmet
    if value is None and symbol.rev_dep is not tree.n:
        selecting = [part for part in _parts(symbol.rev_dep, kconfiglib.OR) if kconfiglib.expr_value(part)]
        if selecting:
            # Each is SYMBOL && its dependencies && the select's condition.
            by = [_text(_parts(part, kconfiglib.AND)[0], prefix) for part in selecting[:MOST]]
            return [f"it is selected by {name}" for name in dict.fromkeys(by)]
    if symbol.choice is not None and symbol.choice.selection not in (None, symbol):
        return [f"of this choice {prefix}{symbol.choice.selection.name} is taken"]
    if all(node.prompt is None for node in symbol.nodes):
        return ["it cannot be set by hand: other symbols select it, or its default decides"]
    hidden = [node.prompt[1] for node in symbol.nodes if node.prompt is not None]
    if not any(kconfiglib.expr_value(condition) for condition in hidden):
        return [f"it can be set only where {_text(condition, prefix)}" for condition in hidden[:MOST]]
    if symbol.orig_type in (kconfiglib.BOOL, kconfiglib.TRISTATE) and value not in (None, "y", "m"):
        return ["it is y or n"]
    if value == "m":
        return ["it cannot be a module: it is y or n"]
    if value is None:
        return [
            "it could be off: a package of Buildroot turns it on (its LINUX_CONFIG_FIXUPS), or a later line"
        ]
    return ["its value is not one that it may have"]


def unmet_dependencies(symbol: Any, prefix: str = "", depth: int = DEPTH) -> list[str]:
    """The parts of a symbol's dependencies that do not hold, and why those do not."""
    import kconfiglib

    # A symbol may be defined in several places: one whose dependencies hold is enough.
    places = [_parts(node.dep, kconfiglib.AND) for node in symbol.nodes]
    unmet = [[part for part in parts if kconfiglib.expr_value(part) == 0] for parts in places]
    if not unmet or not all(unmet):
        return []
    found = []
    for part in min(unmet, key=len)[:MOST]:
        plain = isinstance(part, kconfiglib.Symbol) and not part.is_constant
        if plain and not part.nodes:
            found.append(f"needs {_text(part, prefix)}, which does not exist here")
            continue
        found.append(f"needs {_text(part, prefix)}, which is not so")
        if plain and depth > 1:
            deeper = unmet_dependencies(part, prefix, depth - 1)
            found += [f"  {_text(part, prefix)} {reason}" for reason in deeper]
    return found


def _parts(expression: Any, operator: Any) -> list[Any]:
    import kconfiglib

    return list(kconfiglib.split_expr(expression, operator))


def _text(expression: Any, prefix: str) -> str:
    import kconfiglib

    def named(part: Any) -> str:
        if isinstance(part, kconfiglib.Symbol) and not part.is_constant:
            return f"{prefix}{part.name}"
        return str(kconfiglib.standard_sc_expr_str(part))

    return str(kconfiglib.expr_str(expression, named))


def main() -> None:
    """Answer the request on standard input."""
    sys.path.insert(0, sys.argv[1])
    answer = explain(json.load(sys.stdin))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
