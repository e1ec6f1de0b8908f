"""What the documents say is true: targets, commands, options, paths and links exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hal.cli.main import main
from hal.cli.models import Listing
from hal.spec.loading import load_spec
from services.selector.cli import parser

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
MAKEFILE = (PROJECT / "Makefile").read_text()

NO_HOSTS = [
    ".".join(parts)
    for parts in (
        *((name, "debian", "org") for name in ("deb", "ftp", "security", "snapshot", "archive")),
        ("archive", "ubuntu", "com"),
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
    )
]
"""Where packages come from is the host's configuration, never a committed file (see `hal.fetch.sources`)."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_PATH = re.compile(r"(?:\.ci|buildroot-external|docs|hal|scripts|services|tests)/[^\s`]*")
_ROOT_FILE = re.compile(r"Makefile|LICENSE|pyproject\.toml|[A-Z]+\.md")
_VARIABLE_PART = re.compile(r"<[^>]*>|\b[A-Z][A-Z_]+\b")


def name_of(document: Path) -> str:
    return str(document.relative_to(PROJECT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def shell_lines(text: str) -> Iterator[str]:
    """The commands of a document's shell blocks, continued lines joined, without prompts and comments."""
    for language, block in _FENCE.findall(text):
        if language in ("sh", "bash", "console", "shell"):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                yield re.sub(r"(^|\s)#.*$", "", line.removeprefix("$ ")).strip()


def inline_code(text: str) -> Iterator[str]:
    """What stands in backticks outside code blocks."""
    yield from _CODE.findall(_FENCE.sub("", text))


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The arguments of every use of a program in a document's shell blocks and inline code."""
    for line in [*shell_lines(text), *inline_code(text)]:
        words = shlex.split(line) if line.count("'") % 2 == 0 and line.count('"') % 2 == 0 else line.split()
        while words and re.fullmatch(r"[A-Z_]+=.*|sudo", words[0]):
            words = words[1:]
        if (
            words
            and words[0].split("/")[-1] == program
            and words[0].split("/")[:-1] in ([], [".venv", "bin"])
        ):
            yield words[1:]


@each_document
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for words in commands(document.read_text(), "make"):
        named = {word for word in words if "=" not in word and not word.startswith("-")}
        assert named <= targets | {"TARGET"}, f"make {' '.join(words)}"
        variables = {word.split("=")[0] for word in words if "=" in word}
        assert all(f"{variable} ?=" in MAKEFILE for variable in variables), f"make {' '.join(words)}"


@each_document
def test_every_hal_command_exists_with_its_options(document: Path) -> None:
    for words in commands(document.read_text(), "hal"):
        said = f"hal {' '.join(words)}"
        names = [word for word in words if not word.startswith("-")]
        command: click.Command = main
        if names:
            assert names[0] in main.commands, said
            command = main.commands[names[0]]
        if isinstance(command, click.Group) and len(names) > 1:
            assert names[1] in command.commands or isinstance(command, Listing), said
            command = command.commands[names[1] if names[1] in command.commands else "list"]
        known = {option for parameter in (*main.params, *command.params) for option in parameter.opts}
        used = {word.split("=")[0] for word in words if word.startswith("-")}
        assert used <= known | {"--help", "-h"}, said


@each_document
def test_every_selector_command_is_understood(document: Path) -> None:
    for words in commands(document.read_text(), "hal-selector"):
        if words and "--help" not in words:
            try:
                parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"hal-selector {' '.join(words)}: not understood")


@each_document
def test_every_path_exists(document: Path) -> None:
    for code in inline_code(document.read_text()):
        word = code.rstrip("/")
        if _PATH.fullmatch(word) or _ROOT_FILE.fullmatch(word):
            pattern = _VARIABLE_PART.sub("*", word) if _PATH.fullmatch(word) else word
            assert any(PROJECT.glob(pattern)), f"{name_of(document)} names {code}"


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", document.read_text())):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{name_of(document)} links to {target}"


def test_the_readme_shows_the_two_commands() -> None:
    lines = list(shell_lines((PROJECT / "README.md").read_text()))
    assert lines.index("make image") < lines.index("make test")


def test_every_spec_of_the_readme_is_valid(tmp_path: Path) -> None:
    blocks = [
        text for language, text in _FENCE.findall((PROJECT / "README.md").read_text()) if language == "yaml"
    ]
    assert len(blocks) >= 2
    names = []
    for block in blocks:
        (tmp_path / "spec.yaml").write_text(block)
        names.append(load_spec(tmp_path / "spec.yaml").spec.appliance.name)
    assert names == ["mine", "service"]


def test_every_module_has_its_place_in_the_architecture() -> None:
    named = set(inline_code((PROJECT / "docs/architecture.md").read_text()))
    modules = {f"hal/{path.name}" for path in (PROJECT / "hal").glob("*.py")} - {"hal/__init__.py"}
    packages = {f"hal/{path.parent.name}/" for path in (PROJECT / "hal").glob("*/__init__.py")}
    assert sorted((modules | packages) - named) == []


def test_every_target_is_explained() -> None:
    explained = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
    assert phony - explained == {"runtime", "dev"}  # steps of the others
    assert explained <= phony


def test_no_file_names_a_package_host() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    files = [PROJECT / name for name in listed.stdout.split("\0") if name]
    assert Path(__file__) in files
    found = [
        f"{path.relative_to(PROJECT)}: {host}"
        for path in files
        if path.is_file()
        for host in NO_HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert found == []
