"""Where the files of models come from, as a model's YAML file says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hal.documents.strict import Line, Matching, Value

FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$"


class PypiSource(Value):
    """A member of a wheel of a PyPI project."""

    kind: Literal["pypi"] = Field(description="a file inside a wheel")
    project: Line = Field(description="the project's name on the index", min_length=1)
    version: Line = Field(description="the exact version", min_length=1)
    member: Line = Field(description="path of the file inside the wheel", min_length=1)


class FileSource(Value):
    """A file on the machine that builds."""

    kind: Literal["file"] = Field(description="a file on this machine")
    path: Line = Field(description="path of the file, relative to the spec", min_length=1)


class HttpsSource(Value):
    """A file behind a URL."""

    kind: Literal["https"] = Field(description="a download")
    url: Annotated[str, Matching(r"^https://[^\s/@]+/\S+$", "a URL that begins with https://")] = Field(
        description="the address; what comes is held against `sha256`"
    )


class HuggingFaceSource(Value):
    """A file of a repository on the Hugging Face hub, at one commit."""

    kind: Literal["huggingface"] = Field(description="a file of a repository on the Hugging Face hub")
    repository: Annotated[
        str,
        Matching(
            r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$",
            "a repository: ORG/NAME",
        ),
    ] = Field(description="the repository")
    revision: Annotated[
        str, Matching(r"^[0-9a-f]{40}$", "a commit: 40 hexadecimal digits, since branches and tags move")
    ] = Field(description="the commit")
    path: Annotated[str, Matching(FILE_NAME, "a file's path, without spaces and `..`")] = Field(
        description="path of the file in the repository"
    )


def _with_namespace(model: str) -> str:
    return model if "/" in model else f"library/{model}"


class OllamaSource(Value):
    """A file of a model in Ollama's registry: the tag's manifest, or one of the blobs that it names."""

    kind: Literal["ollama"] = Field(description="a file of a model in Ollama's registry")
    model: Annotated[
        str,
        Matching(
            r"^([A-Za-z0-9][A-Za-z0-9_-]{0,79}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$",
            "a model: NAME or NAMESPACE/NAME",
        ),
        AfterValidator(_with_namespace),
    ] = Field(description="the model in the registry")
    tag: Annotated[
        str, Matching(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$", "a tag: letters, digits and any of . _ -")
    ] = Field(description="its tag")


NetworkSource = HuggingFaceSource | OllamaSource | HttpsSource
"""What an appliance itself can fetch from."""

Source = Annotated[
    PypiSource | FileSource | HttpsSource | HuggingFaceSource | OllamaSource, Field(discriminator="kind")
]
