"""What the Hugging Face hub and an Ollama registry say, in words that tell what to do; where tokens go."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.provisioner.config import Config, Mirrors
from services.provisioner.network import huggingface, ollama
from services.provisioner.network.places import places
from services.provisioner.network.session import Network
from services.provisioner.pins import HuggingfaceSource, OllamaSource, PinnedFile
from tests.misbehaving.certificates import Authority
from tests.misbehaving.hub import Repository, add_repository, refusal
from tests.misbehaving.registry import Tag, add_tag
from tests.misbehaving.server import Fault, MisbehavingServer, misbehaving_server
from tests.services.provision_cases import CONTENT, REVISION, SHA256, SIZE, Outcome, World, bring, settings

TOKEN = "hf_secretsecret"
NAME = "org/tiny"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def hub(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    """A server in the place of the hub itself."""
    with misbehaving_server(tls=authority.server()) as server:
        monkeypatch.setattr(huggingface, "ENDPOINT", server.url)
        yield server


@pytest.fixture
def storage(authority: Authority) -> Iterator[MisbehavingServer]:
    """Another host, where the hub has its large files."""
    with misbehaving_server(tls=authority.server()) as server:
        yield server


@pytest.fixture
def config(authority: Authority, tmp_path: Path) -> Config:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return settings(ca=str(authority.file), huggingface_credential=str(tmp_path / "token"))


def wanted(path: str = "model.gguf", repository: str = NAME, revision: str = REVISION) -> PinnedFile:
    return PinnedFile(path, SIZE, SHA256, HuggingfaceSource(repository, revision, path))


def ask(server: MisbehavingServer, config: Config, folder: Path, file: PinnedFile | None = None) -> Outcome:
    outcome = bring(World(file or wanted(), config, server, "", ""), folder)
    assert TOKEN not in "".join(outcome.errors)
    return outcome


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: MisbehavingServer, storage: MisbehavingServer, config: Config, tmp_path: Path
) -> None:
    add_repository(hub, NAME, REVISION, {"model.gguf": CONTENT}, storage=storage, gated=TOKEN)
    assert ask(hub, config, tmp_path).error == ""
    assert {request.authorization for request in hub.requests} == {f"Bearer {TOKEN}"}
    assert {request.authorization for request in storage.requests} == {None}


def test_the_token_goes_to_no_mirror(hub: MisbehavingServer, config: Config, tmp_path: Path) -> None:
    with misbehaving_server() as mirror:
        add_repository(mirror, NAME, REVISION, {"model.gguf": CONTENT})
        config = config._replace(mirrors=Mirrors(huggingface=(mirror.url,)))
        assert ask(hub, config, tmp_path).error == ""
        assert {request.authorization for request in mirror.requests} == {None}
    assert hub.requests == []


@pytest.mark.parametrize(
    ("code", "status", "token", "words"),
    [
        ("GatedRepo", 401, False, "org/tiny is gated: accept its terms on https"),
        ("GatedRepo", 401, False, "give a token (provision.huggingface_credential)"),
        ("GatedRepo", 403, True, "is gated and the token's account has no access: accept its terms on"),
        ("RepoNotFound", 401, False, "there is no repository org/tiny, or it is private and needs a token"),
        ("RepoNotFound", 404, True, "there is no repository org/tiny, or the token's account may not see it"),
        ("RevisionNotFound", 404, False, f"org/tiny has no commit {REVISION}: pin the model anew"),
        (
            "EntryNotFound",
            404,
            False,
            "org/tiny has no file model.gguf at commit 555555555555: pin the",
        ),
        ("disabled", 403, False, "org/tiny has been disabled by the hub"),
        ("", 401, False, "there is no repository org/tiny, or it is private and needs a token"),
        ("", 401, True, "the hub refuses the token: renew it (provision.huggingface_credential)"),
        ("", 404, True, "HTTP 404 Not Found: there is no such file under https://127.0.0.1:"),
    ],
)
def test_the_hubs_refusals_are_final_and_say_what_to_do(
    code: str, status: int, token: bool, words: str, hub: MisbehavingServer, config: Config, tmp_path: Path
) -> None:
    message = "Access to this resource is disabled." if code == "disabled" else "no"
    hub.refusals["/"] = refusal(code, status, message)
    outcome = ask(hub, config if token else config._replace(huggingface_credential=None), tmp_path)
    assert outcome.attempts == 1 and words in outcome.error


def test_what_a_repository_lacks_is_told(hub: MisbehavingServer, config: Config, tmp_path: Path) -> None:
    add_repository(hub, NAME, REVISION, {"model.gguf": CONTENT, "config.json": b"{}"})
    assert "has no file other.gguf" in ask(hub, config, tmp_path, wanted("other.gguf")).error
    assert "has no commit 6666" in ask(hub, config, tmp_path, wanted(revision="6" * 40)).error
    assert (
        "there is no repository org/else" in ask(hub, config, tmp_path, wanted(repository="org/else")).error
    )


def test_a_mirrors_refusal_speaks_of_no_token(hub: MisbehavingServer, config: Config, tmp_path: Path) -> None:
    hub.refusals["/"] = refusal("GatedRepo", 401, "no")
    config = config._replace(mirrors=Mirrors(huggingface=(hub.url,)), mirrors_only=True)
    error = ask(hub, config, tmp_path).error
    assert "HTTP 401" in error and "credential" not in error


def test_a_gated_repository_without_a_token(hub: MisbehavingServer, config: Config, tmp_path: Path) -> None:
    add_repository(hub, NAME, REVISION, {"model.gguf": CONTENT}, gated=TOKEN)
    outcome = ask(hub, config._replace(huggingface_credential=None), tmp_path)
    assert outcome.attempts == 1 and "is gated" in outcome.error
    # A credential that is configured and not there is no token.
    outcome = ask(hub, config._replace(huggingface_credential=str(tmp_path / "none")), tmp_path)
    assert "is gated" in outcome.error


def test_no_token_goes_out_while_the_clock_is_wrong(
    authority: Authority, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config._replace(built=time.time())
    with misbehaving_server(tls=authority.server()) as server:
        monkeypatch.setattr(huggingface, "ENDPOINT", server.url)
        add_repository(server, NAME, REVISION, {"model.gguf": CONTENT})
        world = World(wanted(), config, server, "", "")
        network = Network(config, clock=lambda: 0.0)
        # A public file needs none.
        assert bring(world, tmp_path, network=network).error == ""
        add_repository(server, NAME, REVISION, {"model.gguf": CONTENT}, gated=TOKEN)
        outcome = bring(world, tmp_path, network=network)
        assert outcome.attempts == 20
        assert "the token is not sent while this machine's clock is wrong: set it" in outcome.error
        assert {request.authorization for request in server.requests} == {None}


def test_no_token_goes_out_over_plain_http(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with misbehaving_server() as server:
        monkeypatch.setattr(huggingface, "ENDPOINT", server.url)
        add_repository(server, NAME, REVISION, {"model.gguf": CONTENT})
        assert ask(server, config, tmp_path).error == ""
        assert {request.authorization for request in server.requests} == {None}


def test_signed_links_are_never_told(
    hub: MisbehavingServer, config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="hal")
    repository = add_repository(hub, NAME, REVISION, {"model.gguf": CONTENT})
    hub.faults[repository.stored(CONTENT)] = [Fault("status", status=404), Fault("reset")]
    outcome = ask(hub, config, tmp_path)
    assert "signature" not in "".join(outcome.errors) + caplog.text + outcome.error


@pytest.fixture
def tag(storage: MisbehavingServer) -> Tag:
    return add_tag(storage, "library/tiny", "135m", {"model": CONTENT, "template": b"{{ .Prompt }}"})


def manifest_file(tag: Tag) -> PinnedFile:
    digest = hashlib.sha256(tag.manifest).hexdigest()
    return PinnedFile("manifest.json", len(tag.manifest), digest, OllamaSource(tag.model, tag.tag))


def registry(config: Config, tag: Tag) -> Config:
    return config._replace(mirrors=Mirrors(ollama=(tag.server.url,)), mirrors_only=True)


def test_a_tags_manifest_is_fetched_by_its_type(tag: Tag, config: Config, tmp_path: Path) -> None:
    world = World(manifest_file(tag), registry(config, tag), tag.server, "", "")
    assert bring(world, tmp_path, content=tag.manifest).error == ""
    (request,) = tag.server.asked(tag.manifest_path)
    assert request.accept == ollama.MANIFEST_TYPE and request.range is None


@pytest.mark.parametrize("same_length", [True, False])
def test_a_tag_that_moved_is_final_and_names_both_digests(
    same_length: bool, tag: Tag, config: Config, tmp_path: Path
) -> None:
    file = manifest_file(tag)
    moved = json.loads(tag.manifest)
    if same_length:
        moved["layers"][0]["digest"] = moved["layers"][0]["digest"][::-1]
    else:
        moved["layers"].pop()
    content = json.dumps(moved).encode()
    assert (len(content) == file.size) is same_length
    tag.server.files[tag.manifest_path] = content
    outcome = bring(World(file, registry(config, tag), tag.server, "", ""), tmp_path)
    assert outcome.attempts == 1
    assert "the tag library/tiny:135m has moved" in outcome.error
    assert file.sha256 in outcome.error and hashlib.sha256(content).hexdigest() in outcome.error


@pytest.mark.parametrize(
    "fault", [Fault("truncate", 20), Fault("short", 20), Fault("wrong"), Fault("status")]
)
def test_a_manifest_that_is_merely_broken_is_fetched_again(
    fault: Fault, tag: Tag, config: Config, tmp_path: Path
) -> None:
    tag.server.faults[tag.manifest_path] = [fault]
    world = World(manifest_file(tag), registry(config, tag), tag.server, "", "")
    assert bring(world, tmp_path, content=tag.manifest).error == ""
    assert len(tag.server.asked(tag.manifest_path)) == 2


def test_a_tag_that_is_not_there(tag: Tag, config: Config, tmp_path: Path) -> None:
    file = manifest_file(tag)._replace(source=OllamaSource("library/tiny", "1b"))
    outcome = bring(World(file, registry(config, tag), tag.server, "", ""), tmp_path)
    assert outcome.attempts == 1 and "HTTP 404" in outcome.error and "manifests/1b" in outcome.error


def test_places_are_the_mirrors_in_order_and_then_the_source() -> None:
    mirrors = Mirrors(("http://a/x/", "http://b"), ("http://hub",), ("http://registry/sub/",))
    config = settings(mirrors=mirrors, huggingface_credential="/run/credentials/hf")
    found = places(config, wanted("sub/model one.gguf"))
    path = f"org/tiny/resolve/{REVISION}/sub/model%20one.gguf"
    assert [place.url for place in found] == [f"http://hub/{path}", f"{huggingface.ENDPOINT}/{path}"]
    assert [place.credential for place in found] == [None, "/run/credentials/hf"]
    blob = PinnedFile(f"blobs/sha256-{SHA256}", SIZE, SHA256, OllamaSource("library/tiny", "135m"))
    assert [place.url for place in places(config, blob)] == [
        f"http://registry/sub/v2/library/tiny/blobs/sha256:{SHA256}",
        f"https://registry.ollama.ai/v2/library/tiny/blobs/sha256:{SHA256}",
    ]
    assert places(config._replace(mirrors_only=True), blob)[0].mirror
    assert len(places(config._replace(mirrors_only=True), blob)) == 1
    assert places(config, PinnedFile("given", 1, SHA256)) == []


def test_a_place_is_shown_without_its_secrets() -> None:
    config = settings(mirrors=Mirrors(https=("https://user:pass@mirror.test/a?key=secret",)))
    file = PinnedFile("f", 1, SHA256, wanted().source)
    place = places(config._replace(mirrors=Mirrors(huggingface=("https://u:p@m.test",))), file)[0]
    assert place.shown == f"https://m.test/org/tiny/resolve/{REVISION}/model.gguf"


def test_the_fixture_speaks_the_hubs_api_as_its_own_client_does(tmp_path: Path) -> None:
    client = pytest.importorskip("huggingface_hub")
    with misbehaving_server() as server, misbehaving_server("127.0.0.2") as storage:
        files = {"model.gguf": CONTENT, "config.json": b'{"a": 1}'}
        repository: Repository = add_repository(server, NAME, REVISION, files, gated=TOKEN, storage=storage)
        api = client.HfApi(endpoint=server.url, token=TOKEN)
        about = api.model_info(NAME, revision=REVISION, files_metadata=True)
        known = {
            file.rfilename: (file.size, file.lfs.sha256 if file.lfs else None) for file in about.siblings
        }
        assert known == {"model.gguf": (SIZE, SHA256), "config.json": (8, None)}
        options = {"revision": REVISION, "cache_dir": tmp_path, "endpoint": server.url}
        path = client.hf_hub_download(NAME, "model.gguf", token=TOKEN, **options)
        assert Path(path).read_bytes() == CONTENT
        with pytest.raises(client.errors.GatedRepoError):
            client.hf_hub_download(NAME, "config.json", token=False, **options)
        with pytest.raises(client.errors.EntryNotFoundError):
            client.hf_hub_download(NAME, "none", token=TOKEN, **options)
        with pytest.raises(client.errors.RepositoryNotFoundError):
            api.model_info("org/none")
        with pytest.raises(client.errors.RevisionNotFoundError):
            api.model_info(NAME, revision="6" * 40)
    assert repository.resolve("x").startswith("/org/tiny/resolve/")
