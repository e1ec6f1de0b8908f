"""Components kept in the cache, under the digest of what they follow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as remember
from pathlib import Path

from hal.cache import Cache
from hal.sbom.component import Component, dumps, loads
from hal.trees import cached_tree, file_digests, inputs_digest


@remember
def _recipe() -> str:
    """Changes with the code that makes components, so that cached ones are made anew."""
    here = Path(__file__).parent
    return inputs_digest(*file_digests(sorted([*here.glob("*.py"), *here.glob("*.yaml")])))


def kept(
    name: str, cache: Cache, digests: Sequence[str], make: Callable[[], tuple[Component, ...]]
) -> tuple[Component, ...]:
    """Components out of the cache, made when it lacks them; `digests` are all that they follow from."""

    def fill(home: Path) -> None:
        (home / "components.json").write_text(dumps(make()))

    home = cached_tree(cache, f"sbom-{name}", inputs_digest(_recipe(), *digests), fill)
    return loads((home / "components.json").read_text())
