"""A pinned model as the YAML that a spec takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hal.documents.document import dotted
from hal.documents.wording import problems_of
from hal.errors import HalError
from hal.models import FileSource, Model, ModelFile


def checked(*, where: str, files: Sequence[ModelFile], **values: Any) -> Model:
    """A model of these values, as a spec would take it.

    Raises:
        HalError: a spec would refuse it, as for the name of a file.
    """
    data = {**values, "files": [file.model_dump(mode="json") for file in files]}
    try:
        return Model.model_validate(data)
    except ValidationError as error:
        problem = problems_of(error, Model)[0]
        match problem.path:
            case ("files", int(index), *_):
                text = f"{files[index].name}: {problem.text}"
            case path:
                text = f"{dotted(path)}: {problem.text}" if path else problem.text
        raise HalError(f"{where}: {text}", "--include and --exclude choose files, --name a name") from None


def entry(model: Model, *, item: bool = False) -> str:
    """A model as YAML: a file of its own (`models: [./NAME.yaml]`), or an `item` of a spec's `models`."""
    data = model.model_dump(mode="json", exclude_defaults=True)
    data["files"] = [{**file, "source": _Inline(file["source"])} for file in data["files"]]
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    if not item:
        return text
    lines = [f"    {line}" if line else "" for line in text.splitlines()]
    return "\n".join(["  - " + lines[0].lstrip(), *lines[1:]]) + "\n"


def write_entry(model: Model, file: Path) -> None:
    """Write a model's own file; the paths of files on this machine are then relative to it.

    Raises:
        HalError: it cannot be written, or its name is not the model's.
    """
    if file.name != f"{model.name}.yaml":
        raise HalError(
            f"{file}: a model's file is named after it: {model.name}.yaml", "or give --name another"
        )
    files = tuple(_relative(one, file.parent) for one in model.files)
    try:
        file.write_text(entry(model.model_copy(update={"files": files})))
    except OSError as error:
        raise HalError(f"{file}: {error.strerror}") from None


def _relative(file: ModelFile, folder: Path) -> ModelFile:
    source = file.source
    if not isinstance(source, FileSource):
        return file
    path = os.path.relpath(source.path, folder)
    return file.model_copy(update={"source": source.model_copy(update={"path": path})})


class _Inline(dict[str, Any]):
    """A mapping that stays on one line."""


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    _Inline,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True),
)
