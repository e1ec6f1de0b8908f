"""A YAML file that knows the line of every key, and the list of all that is wrong with it.

YAML is read into nodes, which carry line numbers, and then into plain values; what YAML lets pass
silently (a key given twice, aliases, tags, dates) is reported here, at its line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hal.errors import UsageError

KeyPath = tuple[str | int, ...]
"""Where a value is in a file: keys of mappings and indices of lists, from the top."""

MAX_DEPTH = 32
"""No file of hal's nests a quarter as deep; libyaml's composer overflows the stack at about 100,000."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TEXT_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge", "value")}
"""What YAML 1.1 would turn into dates and merges is text here: `version: 2026-01-01` means what it shows."""

_SCALARS = yaml.constructor.SafeConstructor()
_CONVERT: dict[str, Callable[[yaml.ScalarNode], object]] = {
    "null": lambda node: None,
    "bool": _SCALARS.construct_yaml_bool,
    "int": _SCALARS.construct_yaml_int,
    "float": _SCALARS.construct_yaml_float,
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file: where, and what in plain words.

    `line` is given where the path cannot tell it, `hint` where mending it takes more than the text says.
    """

    path: KeyPath
    text: str
    line: int | None = None
    hint: str | None = None


class SpecError(UsageError):
    """A spec, engine or model file is not valid; `details` is made of `FILE:LINE: key.path: problem`."""


@dataclass(frozen=True)
class Document:
    """A YAML file as plain values, the line of each, and what was already wrong with it as YAML."""

    file: Path
    data: object
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line(self, path: KeyPath) -> int:
        """The line of the key at `path`, or of the closest key above it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, kind: str, problems: Collection[Problem]) -> SpecError:
        """The error that lists `problems` in the order of the file; `kind` names it, as "spec"."""
        located = sorted({(p.line or self.line(p.path), dotted(p.path), p.text) for p in problems})
        details = tuple(
            f"{self.file}:{line}: {path}: {text}" if path else f"{self.file}:{line}: {text}"
            for line, path, text in located
        )
        hint = next((problem.hint for problem in problems if problem.hint), None)
        count = "1 problem" if len(details) == 1 else f"{len(details)} problems"
        return SpecError(f"{self.file} is not a valid {kind}: {count}", hint, details=details)


def dotted(path: KeyPath) -> str:
    """A key path as text: `models[0].files[1].sha256`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """` (did you mean X?)` where one of the known words is close to `word`, else nothing."""
    import difflib  # only errors need it

    close = difflib.get_close_matches(str(word).lower(), sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def read_document(file: Path, kind: str) -> Document:
    """Read a YAML file.

    Raises:
        SpecError: the file cannot be read, is not UTF-8, or is not YAML.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read the {kind} {file}: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Document(file, None).error(kind, [Problem((), "is not UTF-8 text", line)]) from None
    return parse_document(text, file, kind)


def parse_document(text: str, file: Path, kind: str) -> Document:
    """The document that `text` holds; `file` only names it in errors.

    Raises:
        SpecError: `text` is not YAML, holds several documents, aliases, or is nested too deep.
    """
    try:
        refused = _refused_construct(text)
        node = None if refused else yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        refused = _syntax_problem(error, text)
    if refused:
        raise Document(file, None).error(kind, [refused])
    reader = _Reader()
    data = None if node is None else reader.value(node, ())
    return Document(file, data, reader.lines, tuple(reader.problems))


def _refused_construct(text: str) -> Problem | None:
    """What must not reach the composer: aliases (which can grow without bound) and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return Problem((), f"is nested more than {MAX_DEPTH} levels deep", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            return Problem((), f"the YAML alias *{event.anchor} is not accepted: write the value out", line)
    return None


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        line = min(error.problem_mark.line + 1, text.count("\n") + 1)
        what = error.problem or "cannot be understood"
        return Problem((), f"not YAML: {what}" + (f", {error.context}" if error.context else ""), line)
    if isinstance(error, yaml.reader.ReaderError):
        code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
        line = text.count("\n", 0, max(text.find(chr(code)), 0)) + 1
        return Problem((), f"not YAML: the character U+{code:04X} is not allowed", line)
    return Problem((), "not YAML: cannot be understood")


class _Reader:
    """Walks nodes, collecting the line of each value and what is wrong on the way."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        data: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(path, "a key must be one word, not a list or a mapping", line))
                continue
            key: str = key_node.value
            if key in data:
                first = self.lines[(*path, key)]
                self.problems.append(Problem((*path, key), f"is given twice, first on line {first}", line))
                continue
            self.lines[(*path, key)] = line
            data[key] = self.value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        text: str = node.value
        name = node.tag.removeprefix("tag:yaml.org,2002:")
        if node.tag in _PLAIN_TEXT_TAGS or ":" in text:  # `1:30` is text, not YAML 1.1's base 60
            return text
        convert = _CONVERT.get(name)
        if convert is None:
            self.problems.append(Problem(path, f"the YAML tag {node.tag} is not accepted"))
            return None
        try:
            number = convert(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            self.problems.append(Problem(path, f"is not a YAML {name}"))
            return None
        if isinstance(number, float) and not math.isfinite(number):
            self.problems.append(Problem(path, "must be a finite number"))
            return None
        return number
