"""The provisioner's configuration, /etc/hal/provision.json, which hal renders and nobody edits."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from .entry import ConfigError as ConfigError
from .entry import Entry
from .pins import (
    DELIVERIES,
    HttpsSource,
    HuggingfaceSource,
    OllamaSource,
    Pack,
    PinnedFile,
    PinnedModel,
    Source,
    identifier,
)

CONFIG = "/etc/hal/provision.json"
RESERVE = 64 * 1024 * 1024
"""Bytes that stay free on the state partition, for all others that write there."""

_MODEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_PATH = re.compile(r"/\S*")
_LINE = re.compile(r"[^\x00-\x1f\x7f]{0,1000}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class Policy(NamedTuple):
    """How failures are met; times in seconds (services/provisioner/core/policy.py).

    `attempts` failures in a row end a round; the waits between them grow from `first` by `factor` up to
    `cap`, give or take the share `jitter`. No byte for `stall` seconds is a failure. A model has `deadline`
    seconds in all (None: no end). A failed round begins anew after `rest`.
    """

    attempts: int = 20
    first: float = 5.0
    factor: float = 2.0
    jitter: float = 0.2
    cap: float = 300.0
    stall: float = 60.0
    deadline: float | None = None
    rest: float = 3600.0


class Mirrors(NamedTuple):
    """Base URLs by kind of source, tried in this order before the source itself."""

    https: tuple[str, ...] = ()
    huggingface: tuple[str, ...] = ()
    ollama: tuple[str, ...] = ()


class Config(NamedTuple):
    """What the provisioner is told.

    `built` is the time of the lock (Unix): the clock cannot be earlier. `directory` holds the models,
    `state_directory` parts and state.json, `runtime_directory` status.json and the control socket, `markers`
    a file for each model that this boot has verified; `boot_report` is the initrd's. `quota`: bytes that
    models and parts take at most (None: what is free); `reserve`: bytes that stay free. `concurrency`: files
    fetched at once; `bandwidth`: bytes per second of all together (None: no limit). `mirrors_only`: sources
    themselves are never asked. `huggingface_credential` is a file with a token (None: there is none); `ca` a
    file of certificates that are trusted too.
    """

    models: tuple[PinnedModel, ...]
    directory: str
    state_directory: str
    runtime_directory: str
    markers: str
    boot_report: str = ""
    built: float = 0.0
    quota: int | None = None
    reserve: int = RESERVE
    concurrency: int = 2
    bandwidth: int | None = None
    policy: Policy = Policy()
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    ca: str | None = None
    mirrors: Mirrors = Mirrors()
    mirrors_only: bool = False
    huggingface_credential: str | None = None

    def model(self, name: str) -> PinnedModel:
        """The model of this name.

        Raises:
            KeyError: there is none.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(name)

    @property
    def status_file(self) -> str:
        """What is read by `hal-provision status` and the selector."""
        return f"{self.runtime_directory}/status.json"

    @property
    def control_socket(self) -> str:
        """Where commands are taken."""
        return f"{self.runtime_directory}/control.sock"


def read(path: str = CONFIG) -> Config:
    """The configuration in a file.

    Raises:
        ConfigError: it cannot be read, or is wrong; the message begins with the path.
    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs at start-up)
            return parse(file.read())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(text: str) -> Config:
    """The configuration in a JSON text.

    Raises:
        ConfigError: not JSON, a key missing, unknown or of a wrong kind, or pins that contradict themselves.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is no JSON: {error}") from None
    top = Entry(data, "")
    top.drop("generated")
    config = Config(
        models=tuple(top.each("models", _model)),
        directory=top.text("directory", _PATH),
        state_directory=top.text("state_directory", _PATH),
        runtime_directory=top.text("runtime_directory", _PATH),
        markers=top.text("markers", _PATH),
        boot_report=top.text("boot_report", _PATH, ""),
        built=top.number("built", 0.0),
        quota=top.optional("quota", top.whole),
        reserve=top.whole("reserve", RESERVE),
        concurrency=top.whole("concurrency", 2, least=1, most=32),
        bandwidth=top.optional("bandwidth", lambda key: top.whole(key, least=1)),
        policy=_policy(top.entry("policy")),
        proxy=top.optional("proxy", lambda key: top.text(key, _URL)),
        no_proxy=top.texts("no_proxy", _LINE),
        ca=top.optional("ca", lambda key: top.text(key, _PATH)),
        mirrors=_mirrors(top.entry("mirrors")),
        mirrors_only=top.flag("mirrors_only", False),
        huggingface_credential=top.optional("huggingface_credential", lambda key: top.text(key, _PATH)),
    )
    top.end()
    names = [model.name for model in config.models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"models: two are named {twice}")
    return config


def _policy(entry: Entry) -> Policy:
    usual = Policy()
    policy = Policy(
        attempts=entry.whole("attempts", usual.attempts, least=1, most=10_000),
        first=entry.number("first", usual.first),
        factor=entry.number("factor", usual.factor, least=1.0, most=100.0),
        jitter=entry.number("jitter", usual.jitter, most=1.0),
        cap=entry.number("cap", usual.cap),
        stall=entry.number("stall", usual.stall, least=0.01),
        deadline=entry.optional("deadline", entry.number),
        rest=entry.number("rest", usual.rest),
    )
    entry.end()
    return policy


def _mirrors(entry: Entry) -> Mirrors:
    mirrors = Mirrors(*(entry.texts(kind, _URL) for kind in Mirrors._fields))
    entry.end()
    return mirrors


def _model(entry: Entry) -> PinnedModel:
    model = PinnedModel(
        name=entry.text("name", _MODEL),
        delivery=entry.text("delivery", re.compile("|".join(DELIVERIES)), "image"),
        id=entry.text("id", _ID),
        size=entry.whole("size"),
        files=tuple(entry.each("files", _file)),
        license=entry.text("license", _LINE, "NOASSERTION"),
        format=entry.text("format", _LINE, ""),
        pack=entry.optional("pack", lambda key: _pack(entry.entry(key))),
    )
    entry.end()
    if not model.files:
        raise ConfigError(f"{entry.where}: it has no files")
    names: set[str] = set()
    for file in model.files:
        if file.name in names:
            raise ConfigError(f"{entry.where}: two files are named {file.name}")
        names.add(file.name)
    for name in names:
        folders = name.split("/")[:-1]
        if any("/".join(folders[:depth]) in names for depth in range(1, len(folders) + 1)):
            raise ConfigError(f"{entry.where}: the file {name} lies in a folder that is a file too")
    if model.size != sum(file.size for file in model.files):
        raise ConfigError(f"{entry.where}: size {model.size} is not that of its files together")
    if model.id != identifier(model.files):
        raise ConfigError(f"{entry.where}: the id {model.id} is not that of its files")
    for file in model.files:
        if model.delivery == "network" and file.source is None:
            raise ConfigError(f"{entry.where}: the file {file.name} has no source, and is to be fetched")
    return model


def _pack(entry: Entry) -> Pack:
    pack = Pack(entry.text("label", _LINE), entry.text("root_hash", _SHA256), entry.text("mountpoint", _PATH))
    entry.end()
    return pack


def _file(entry: Entry) -> PinnedFile:
    file = PinnedFile(
        name=entry.text("name", _FILE),
        size=entry.whole("size"),
        sha256=entry.text("sha256", _SHA256),
        source=entry.optional("source", lambda key: _source(entry.entry(key))),
    )
    entry.end()
    return file


def _source(entry: Entry) -> Source:
    kind = entry.text("kind", _LINE)
    source: Source
    if kind == "https":
        source = HttpsSource(entry.text("url", _URL))
    elif kind == "huggingface":
        source = HuggingfaceSource(
            entry.text("repository", _REPOSITORY), entry.text("revision", _COMMIT), entry.text("path", _FILE)
        )
    elif kind == "ollama":
        source = OllamaSource(entry.text("model", _REPOSITORY), entry.text("tag", _PART))
    else:
        raise ConfigError(f"{entry.where}.kind: {kind!r:.40} is not https, huggingface or ollama")
    entry.end()
    return source
