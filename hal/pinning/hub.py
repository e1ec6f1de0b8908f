"""Pinning a repository of the Hugging Face hub at a commit, with the hub's own client."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hal.errors import HalError, UsageError
from hal.fetch.hubs import huggingface_endpoint, keeps_secrets
from hal.models import HuggingFaceSource, Model, ModelFile
from hal.pinning import Wishes, model_name, weights_first, weights_format
from hal.pinning.entry import checked
from hal.pinning.licences import UNKNOWN, of_identifier

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

DEFAULT = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template*", "preprocessor_config.json"),
)
"""What serving reads: weights, configuration, tokenizer; none of the other formats that a repository has."""

TIMEOUT = 30.0
"""Seconds that the hub may take to answer."""


def pin_repository(repository: str, revision: str, wishes: Wishes) -> Model:
    """The model that a repository holds at a revision: a commit, or a branch or tag that is one now.

    Raises:
        HalError: there is none, it is gated, the hub cannot be asked, or there are no weights.
    """
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository, re.ASCII) is None:
        raise UsageError(f"huggingface:{repository} is no repository", "give huggingface:ORG/NAME[@REVISION]")
    from huggingface_hub import HfApi  # slow to load, and only pinning needs it
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # one for each of many small files
    endpoint = (wishes.endpoint or huggingface_endpoint()).rstrip("/")
    # None: the client takes the token that `hf auth login` has left.
    api = HfApi(
        endpoint=endpoint, token=(os.environ.get("HF_TOKEN") or None) if keeps_secrets(endpoint) else False
    )
    with _explained(endpoint, repository, revision):
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
        commit = info.sha or ""
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        chosen = wishes.chosen(list(siblings), DEFAULT)
        format = wishes.format or weights_format(chosen, f"{repository} at {commit[:12]}")
        with tempfile.TemporaryDirectory(prefix="hal-pin-") as work:
            files = [_file(api, repository, commit, siblings[path], Path(work)) for path in chosen]
    return checked(
        name=wishes.name or model_name(repository.partition("/")[2]),
        summary=f"{repository} of the Hugging Face hub, at {commit[:12]}",
        license=wishes.license or _licence(info),
        format=format,
        parameters=_parameters(info),
        files=weights_first(files),
        where=repository,
    )


def _file(api: HfApi, repository: str, commit: str, known: RepoSibling, work: Path) -> ModelFile:
    """A file as the hub describes it; a small one, which git itself holds, is fetched and hashed."""
    source = HuggingFaceSource.model_construct(
        kind="huggingface", repository=repository, revision=commit, path=known.rfilename
    )
    if known.lfs is not None:
        size, digest = known.lfs.size, known.lfs.sha256
    else:
        path = api.hf_hub_download(repository, known.rfilename, revision=commit, cache_dir=work)
        content = Path(path).read_bytes()
        # git's own name of the content is part of the commit; it says that these bytes are the commit's.
        name = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if known.blob_id not in (None, name):
            raise HalError(
                f"{repository}: {known.rfilename} came with other content than the commit has",
                "try again; do not trust that endpoint if it stays so",
            )
        size, digest = len(content), hashlib.sha256(content).hexdigest()
    if not size:
        raise HalError(f"{repository}: {known.rfilename} is empty", "leave it out: --exclude")
    return ModelFile.model_construct(name=known.rfilename, size=size, sha256=digest, source=source)


def _licence(info: ModelInfo) -> str:
    """The licence that a repository's card names."""
    card = info.card_data
    said = str(getattr(card, "license", None) or "")
    if said in ("", "other"):
        said = str(getattr(card, "license_name", None) or said)
    if not said:
        tags = info.tags or ()
        said = next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), "")
    return of_identifier(said) if said else UNKNOWN


def _parameters(info: ModelInfo) -> str | None:
    """How many parameters the hub has counted, as people say it."""
    total = info.safetensors.total if info.safetensors is not None else (info.gguf or {}).get("total")
    if not isinstance(total, int) or total <= 0:
        return None
    for letter, unit in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if total >= unit:
            return f"{total / unit:.3g}{letter}" if total < 100 * unit else f"{round(total / unit)}{letter}"
    return None


@contextmanager
def _explained(endpoint: str, repository: str, revision: str) -> Iterator[None]:
    """The client's errors in a line: what is gated, what is not there, and what cannot be reached."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{endpoint}/{repository}"
    # Its errors' bases: OSError, and the base of its HTTP library's, which differs by the client's version.
    others = tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    try:
        yield
    except GatedRepoError:
        raise HalError(
            f"{repository} is gated: its makers ask you to accept their terms first",
            f"accept them at {page}, then set HF_TOKEN to a token of that account",
        ) from None
    except RepositoryNotFoundError:
        raise HalError(
            f"{repository}: {endpoint} has no such repository, or it is private",
            "check the name; for a private one set HF_TOKEN to a token that may read it",
        ) from None
    except RevisionNotFoundError:
        raise HalError(
            f"{repository} has no revision {revision}", f"its commits: {page}/commits/main"
        ) from None
    except EntryNotFoundError as error:
        raise HalError(f"{repository}: a file of the commit is not there: {_line(error)}") from None
    except OfflineModeIsEnabled:
        raise HalError(
            f"{repository}: HF_HUB_OFFLINE is set, and pinning asks the hub", "unset it for this command"
        ) from None
    except HalError:
        raise
    except others as error:
        raise HalError(
            f"{endpoint} cannot be asked for {repository}: {_line(error)}",
            "check the network; --endpoint URL or HF_ENDPOINT names a mirror",
        ) from None


def _line(error: BaseException) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
