"""The provisioner's part of an appliance file: how patiently models are fetched, and from where else."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from hal.documents.size import Size
from hal.documents.strict import Line, Many, Matching, Value
from hal.spec.gateway import CredentialName

_URL = r"https?://[^\s/@?#]+(/[^\s@?#]*)?"
_NO_SECRET = "without a user, a password, ? and #: what stands in a spec can be read in the image"

Mirror = Annotated[
    str,
    Matching(rf"^{_URL}$", f"a URL that begins with https:// or http://, {_NO_SECRET}"),
    AfterValidator(lambda url: url.rstrip("/")),
]
"""Where files may be had besides their source: what comes is held against their sha256 in any case."""

Proxy = Annotated[str, Matching(r"^https?://[^\s/@?#]+/?$", f"a URL such as http://proxy:3128, {_NO_SECRET}")]

NoProxy = Annotated[str, Matching(r"^[A-Za-z0-9.:*_/\[\]-]+$", "a host's name, a domain, or an address")]


class MirrorUrls(Value):
    """Where models may be had before their own source is asked, in order."""

    https: Many[Mirror] = Field(description="for https sources: URL/SHA256 is a file", default=())
    huggingface: Many[Mirror] = Field(
        description="endpoints that speak the Hugging Face hub's protocol", default=()
    )
    ollama: Many[Mirror] = Field(description="registries that speak Ollama's protocol", default=())
    only: bool = Field(description="whether the sources themselves are never asked", default=False)


class Provision(Value):
    """How models with `delivery: network` come in. Times in seconds."""

    attempts: int = Field(
        description="attempts in a row that may bring nothing before a model rests",
        default=20,
        ge=1,
        le=10000,
    )
    first_backoff: float = Field(description="the first pause between attempts", default=5.0, ge=0, le=3600)
    factor: float = Field(description="how many times longer each further pause is", default=2.0, ge=1, le=10)
    jitter: float = Field(
        description="the share of a pause by which it is made longer or shorter at random",
        default=0.2,
        ge=0,
        le=1,
    )
    cap: float = Field(description="the longest pause", default=300.0, ge=0, le=86400)
    stall: float = Field(
        description="how long a connection may bring nothing before it counts as broken",
        default=60.0,
        ge=1,
        le=3600,
    )
    deadline: float | None = Field(
        description="how long a round of attempts for a model may take; default: as long as it takes",
        default=None,
        ge=1,
    )
    rest: float = Field(
        description="how long after a failed round a new one begins", default=3600.0, ge=1, le=604800
    )
    concurrency: int = Field(description="files that are fetched at the same time", default=2, ge=1, le=16)
    bandwidth: Size | None = Field(
        description="bytes a second that all fetching may take together", default=None
    )
    quota: Size | None = Field(
        description="bytes that models may take of the state partition; default: all but a reserve",
        default=None,
    )
    proxy: Proxy | None = Field(description="the proxy that everything is fetched through", default=None)
    no_proxy: Many[NoProxy] = Field(
        description="hosts and domains that are asked without the proxy", default=()
    )
    ca: Line | None = Field(
        description="file on the build host with the certificates (PEM) that are trusted besides Debian's",
        default=None,
        min_length=1,
    )
    mirrors: MirrorUrls = Field(
        description="where models may be had before their source", default=MirrorUrls()
    )
    huggingface_credential: CredentialName | None = Field(
        description="name of the credential that holds a token for the Hugging Face hub", default=None
    )
