"""Pinning models: from where one is published to an entry that names each of its files by size and SHA-256.

A reference says where: `huggingface:ORG/NAME[@REVISION]`, `ollama:NAME[:TAG]`, `https://…`, or a directory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hal.errors import UsageError
from hal.models import Model, ModelFile

FORMS = "huggingface:ORG/NAME[@REVISION], ollama:NAME[:TAG], https://URL, or a directory with the files"


@dataclass(frozen=True)
class Wishes:
    """What a user asks of a pin beyond where the model is; empty: what is found.

    `include` and `exclude` are globs for the paths of files; `endpoint` is the hub or registry that is asked.
    """

    name: str = ""
    format: str = ""
    license: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    endpoint: str = ""

    def chosen(self, paths: Sequence[str], default: Sequence[str]) -> list[str]:
        """The paths that are asked for, sorted.

        Without `include`, those of `default`, whose globs are for files at the top.
        """
        found = []
        for path in sorted(paths):
            if self.include:
                wanted = any(fnmatchcase(path, glob) for glob in self.include)
            else:
                wanted = "/" not in path and any(fnmatchcase(path, glob) for glob in default)
            if wanted and not any(fnmatchcase(path, glob) for glob in self.exclude):
                found.append(path)
        return found


def pin(references: Sequence[str], wishes: Wishes) -> Model:
    """The model that one reference means, or several URLs together, each of its files pinned.

    Raises:
        HalError: it cannot be had, or is no model.
    """
    reference = references[0]
    kind, _, rest = reference.partition(":")
    if all(one.startswith("https://") for one in references):
        from hal.pinning.web import pin_urls

        return pin_urls(references, wishes)
    if len(references) > 1:
        raise UsageError(f"{references[1]}: only URLs can be several for one model", f"else one of: {FORMS}")
    if kind == "huggingface":
        from hal.pinning.hub import pin_repository

        repository, _, revision = rest.partition("@")
        return pin_repository(repository, revision or "main", wishes)
    if kind == "ollama":
        from hal.pinning.registry import pin_tag

        model, _, tag = rest.partition(":")
        return pin_tag(model, tag or "latest", wishes)
    if Path(reference).is_dir():
        from hal.pinning.directory import pin_directory

        return pin_directory(Path(reference), wishes)
    what = "there is no such directory" if kind == reference else f"there is no kind {kind!r}"
    raise UsageError(f"{reference}: {what}", f"give one of: {FORMS}")


def model_name(text: str) -> str:
    """A name for a model, out of what others call it: `Qwen2.5-0.5B-Instruct` is `qwen2.5-0.5b-instruct`."""
    small = re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:63].strip("._-")
    return small or "model"


def weights_format(names: Sequence[str], where: str) -> str:
    """The format of a model's weights, told from the names of its files.

    Raises:
        UsageError: there are weights in two formats, or none.
    """
    gguf = any(name.endswith(".gguf") for name in names)
    safetensors = any(name.endswith(".safetensors") for name in names)
    if gguf and safetensors:
        raise UsageError(f"{where}: has .gguf and .safetensors files", "choose with --include or --exclude")
    if not gguf and not safetensors:
        raise UsageError(
            f"{where}: has no weights among the files that are asked for: neither .gguf nor .safetensors",
            "choose with --include, as in --include '*Q4_K_M.gguf'",
        )
    return "gguf" if gguf else "safetensors"


def weights_first(files: Sequence[ModelFile]) -> tuple[ModelFile, ...]:
    """Files in their order in an entry: a GGUF file first, since an engine opens the first one."""
    return tuple(sorted(files, key=lambda file: (not file.name.endswith(".gguf"), file.name)))
