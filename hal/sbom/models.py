"""The parts that are models: what they are, their packs, and each of their files."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packageurl import PackageURL

from hal.cache import Cache
from hal.models import FileSource, HuggingFaceSource, Model, ModelFile, PypiSource
from hal.models.artifacts import file_artifact
from hal.packs.build import Pack
from hal.sbom.component import Component, refs
from hal.sbom.engines import pack_of, pack_properties
from hal.sbom.kept import kept
from hal.sbom.licences import of_words


def model_parts(model: Model, packs: Sequence[Pack], cache: Cache) -> tuple[Component, ...]:
    """A model and its files; one that arrives later is pinned by the same digests."""
    pack = pack_of(packs, "model", model.name) if model.packed else None
    digests = [model.model_dump_json(), str(pack.ref) if pack else ""]
    return kept("model", cache, digests, lambda: model_components(model, pack))


def model_components(model: Model, pack: Pack | None) -> tuple[Component, ...]:
    """The same, made anew; `pack` is the model's where it has one."""
    place = f"model/{model.name}"
    files = tuple(_model_file(file, place) for file in model.files)
    about = {"hal:model:delivery": str(model.delivery), "hal:model:format": str(model.format)}
    if model.parameters:
        about["hal:model:parameters"] = model.parameters
    if pack is not None:
        about |= pack_properties(pack)
    whole = Component(
        place,
        "machine-learning-model",
        model.name,
        model.identity,
        licence=of_words(model.license, "model"),
        properties=tuple(about.items()),
        depends=refs(files),
    )
    return (whole, *files)


def _model_file(file: ModelFile, place: str) -> Component:
    source, purl, url = file.source, "", ""
    if isinstance(source, PypiSource):
        text = f"pypi:{source.project}=={source.version}"
        purl = PackageURL("pypi", None, source.project, source.version, None, source.member).to_string()
    elif isinstance(source, FileSource):
        text = f"file:{file.name}"
    else:
        artifact = file_artifact(file, source)
        text = artifact.source
        if isinstance(source, HuggingFaceSource):
            owner, _, name = source.repository.partition("/")
            purl = PackageURL("huggingface", owner, name, source.revision, None, source.path).to_string()
        elif re.match("https?:", text):
            url = text
    return Component(
        f"{place}/{file.name}",
        "file",
        file.name,
        purl=purl,
        sha256=file.sha256,
        url=url,
        properties=(("hal:size", str(file.size)), ("hal:source", text)),
    )
