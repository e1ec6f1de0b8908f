"""The Hugging Face hub: where a file of a repository lies, and what its refusals mean.

Source: https://huggingface.co/docs/hub/api, huggingface_hub/errors.py and utils/_http.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from ..pins import HuggingfaceSource

ENDPOINT = "https://huggingface.co"
CREDENTIAL = "provision.huggingface_credential"
DISABLED = "Access to this resource is disabled."
"""What the hub writes; it has no code for it."""


def url(base: str, source: HuggingfaceSource) -> str:
    """Where an endpoint has a file at its commit."""
    return f"{base}/{quote(source.repository)}/resolve/{source.revision}/{quote(source.path)}"


def refusal(
    source: HuggingfaceSource, status: int, headers: Mapping[str, str], credential: bool
) -> str | None:
    """What a refusal means and how to mend it; None where the hub does not say more than the status.

    `credential`: a token went along. The hub answers 401 for what does not exist to those without a token.
    """
    repository, code = source.repository, headers.get("X-Error-Code", "")
    if status == 401 and not code and not credential:
        code = "RepoNotFound"
    if code == "GatedRepo":
        if credential:
            return (
                f"{repository} is gated and the token's account has no access: "
                f"accept its terms on {ENDPOINT}/{repository}"
            )
        return (
            f"{repository} is gated: accept its terms on {ENDPOINT}/{repository} "
            f"and give a token ({CREDENTIAL})"
        )
    if code == "RepoNotFound":
        if status == 401 and not credential:
            return f"there is no repository {repository}, or it is private and needs a token ({CREDENTIAL})"
        return f"there is no repository {repository}, or the token's account may not see it"
    if code == "RevisionNotFound":
        return f"{repository} has no commit {source.revision}: pin the model anew (`hal models pin`)"
    if code == "EntryNotFound":
        return f"{repository} has no file {source.path} at commit {source.revision[:12]}: pin the model anew"
    if headers.get("X-Error-Message") == DISABLED:
        return f"{repository} has been disabled by the hub"
    if status == 401 and credential:
        return f"the hub refuses the token: renew it ({CREDENTIAL})"
    return None
