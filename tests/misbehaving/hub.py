"""The Hugging Face hub's API, as tables of a misbehaving server: enough for hal and for `huggingface_hub`.

A large file lies behind a redirect, as on the hub, where another host has it. The redirect's headers tell the
file's SHA-256 and size.
Source: https://huggingface.co/docs/hub/api and huggingface_hub/file_download.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.misbehaving.server import MisbehavingServer

SMALL = 10_000
"""Files below are in git itself, without a redirect."""


@dataclass(frozen=True)
class Repository:
    """A repository that a server has; `storage` may be another server, which then holds the large files."""

    server: MisbehavingServer
    storage: MisbehavingServer
    name: str
    revision: str

    def resolve(self, file: str) -> str:
        """The path that clients ask for."""
        return f"/{self.name}/resolve/{self.revision}/{file}"

    def stored(self, content: bytes) -> str:
        """The path, in `storage`, of a large file's content."""
        return f"/storage/{hashlib.sha256(content).hexdigest()}"


def add_repository(
    server: MisbehavingServer,
    name: str,
    revision: str,
    files: Mapping[str, bytes],
    *,
    storage: MisbehavingServer | None = None,
    branch: str = "main",
    gated: str = "",
    license: str = "apache-2.0",
) -> Repository:
    """Give a server a repository at a commit. `gated`: the token without which its files are refused."""
    repository = Repository(server, storage or server, name, revision)
    siblings = [_sibling(file, content) for file, content in sorted(files.items())]
    about = {
        "_id": "0" * 24,
        "id": name,
        "modelId": name,
        "sha": revision,
        "private": False,
        "gated": "manual" if gated else False,
        "disabled": False,
        "tags": [f"license:{license}"],
        "cardData": {"license": license},
        "siblings": siblings,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "lastModified": "2026-01-01T00:00:00.000Z",
        "downloads": 0,
        "likes": 0,
    }
    tree = [{**sibling, "type": "file", "path": sibling["rfilename"]} for sibling in siblings]
    for commit in (revision, branch):
        server.files[f"/api/models/{name}/revision/{commit}"] = json.dumps(about).encode()
        server.files[f"/api/models/{name}/tree/{commit}"] = json.dumps(tree).encode()
    server.files[f"/api/models/{name}"] = json.dumps(about).encode()
    for path in list(server.files):
        if path.startswith("/api/"):
            server.headers[path] = {"Content-Type": "application/json"}
    for file, content in files.items():
        path = repository.resolve(file)
        digest = hashlib.sha256(content).hexdigest()
        said = {"X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if len(content) < SMALL:
            server.files[path] = content
            server.etags[path] = f'"{_blob(content)}"'
            server.headers[path] = said
        else:
            stored = repository.stored(content)
            repository.storage.files[stored] = content
            repository.storage.etags[stored] = f'"{digest[:32]}"'
            server.redirects[path] = f"{repository.storage.url}{stored}?signature=secret"
            server.headers[path] = said | {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
            }
    nothing = refusal("RepoNotFound", 401, "Repository not found")
    unknown = refusal("RevisionNotFound", 404, "Invalid rev id")
    server.missing |= {
        "/": nothing,
        "/storage/": (404, {}),
        f"/api/models/{name}/": unknown,
        f"/{name}/resolve/": unknown,
        f"/{name}/resolve/{revision}/": refusal("EntryNotFound", 404, "Entry not found"),
    }
    if gated:
        prefix = f"/{name}/resolve/"
        server.tokens[prefix] = gated
        server.refusals[prefix] = refusal("GatedRepo", 403, f"Access to model {name} is restricted.")
    return repository


def refusal(code: str, status: int, message: str) -> tuple[int, dict[str, str]]:
    """How the hub turns a request away: GatedRepo, RepoNotFound, RevisionNotFound, EntryNotFound."""
    return status, {"X-Error-Code": code, "X-Error-Message": message}


def _sibling(file: str, content: bytes) -> dict[str, object]:
    blob = _blob(content)
    known: dict[str, object] = {"rfilename": file, "size": len(content), "blobId": blob, "oid": blob}
    if len(content) >= SMALL:
        digest = hashlib.sha256(content).hexdigest()
        known["lfs"] = {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 134}
    return known


def _blob(content: bytes) -> str:
    """git's own name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
