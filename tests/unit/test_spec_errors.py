"""A spec that is missing or cannot be read; what is wrong in one: test_spec_form.py, test_spec_meaning.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hal.errors import EXIT_USAGE
from hal.profiles import profile_names
from hal.spec.loading import SpecError, load_spec, parse_spec
from tests.unit.spec_problems import STARTER


def test_the_hint_says_how_to_make_a_token() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(STARTER + "variant: production\n", Path("a.yaml"))
    assert caught.value.hint is not None
    assert "sha256sum" in caught.value.hint
    assert "variant: debug" in caught.value.hint


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    assert caught.value.details == (f"{file}:2: is not UTF-8 text",)


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("startr", "there is no profile 'startr' (did you mean starter?)", ", ".join(profile_names())),
        (
            "profiles/startr",
            "there is no profile 'startr' (did you mean starter?)",
            ", ".join(profile_names()),
        ),
        ("zzz", "there is no profile 'zzz'", ", ".join(profile_names())),
        ("none.yaml", "the spec none.yaml does not exist", ", ".join(profile_names())),
        ("/nowhere/none", "the spec /nowhere/none does not exist", ", ".join(profile_names())),
        ("/", "the spec / is a folder, not a file", ", ".join(profile_names())),
    ],
)
def test_a_missing_spec(source: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(source)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == EXIT_USAGE


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(STARTER)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match=r"cannot read the spec .*a\.yaml: Permission denied"):
        load_spec(file)
