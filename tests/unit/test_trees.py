"""Trees made once, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.cache import Cache
from hal.trees import cached_tree, inputs_digest


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_inputs_have_different_digests(first: list[str], second: list[str]) -> None:
    assert (inputs_digest(*first) == inputs_digest(*second)) == (first == second)


def test_a_tree_is_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path / "cache"), []

    def make(tree: Path) -> None:
        made.append(tree)
        (tree / "file").write_text("content")

    digest = inputs_digest("x")
    first, second = (cached_tree(cache, "thing", digest, make) for _ in range(2))
    assert first == second
    assert (first / "file").read_text() == "content"
    assert len(made) == 1


def test_a_tree_whose_making_fails_is_not_there(tmp_path: Path) -> None:
    cache, digest = Cache(tmp_path / "cache"), inputs_digest("x")

    def fail(tree: Path) -> None:
        (tree / "half").write_text("")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached_tree(cache, "thing", digest, fail)
    assert not cache.tree("thing", digest).exists()
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []
