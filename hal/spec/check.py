"""What cannot work although every value of a spec is right by itself, and what hal cannot build yet.

Each check is a pure function of an `Appliance` under test, and names the parts of the spec that it looks
at: where one of those is wrong already, the check is left out, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from hal.documents.document import KeyPath, Problem, did_you_mean
from hal.documents.size import format_size
from hal.engines import Engine, RemoteEngine
from hal.engines.environment import settings_problems
from hal.engines.gpu import gpu_of
from hal.models import FileSource
from hal.spec import check_gateway, check_provision
from hal.spec.check_provision import LEAST_STATE
from hal.spec.chosen import Chosen, repeated
from hal.spec.model import EngineChoice, Spec

MIB = 1 << 20
GIB = 1 << 30

SYSTEM_MEMORY = 256 * MIB
"""What the kernel, systemd, the gateway and the selector take, with room for their caches."""

LABEL_CHARACTERS = 36
"""What a GPT partition's name holds (UEFI specification, 5.3.3); the longest is NAME_VERSION_verity."""

SSH_PORT = 22

NOT_YET: tuple[tuple[str, str], ...] = (("arch", "aarch64"),)
"""Values that the schema knows and this version of hal cannot build. Whoever builds one takes its row out."""

TOKEN_HINT = (
    "make a token with `openssl rand -hex 32`, and its sha256 with `printf %s TOKEN | sha256sum`; "
    "for a first try, `variant: debug` needs none"
)


def unsupported(spec: Spec) -> list[Problem]:
    """Values of a valid spec that this version of hal cannot build."""
    problems = []
    for key, value in NOT_YET:
        text = f"{value} is not available in this version of hal"
        if key == "engines":
            problems += [
                Problem((key, index), text)
                for index, choice in enumerate(spec.engines)
                if choice.name == value
            ]
        elif getattr(spec, key) == value:
            problems.append(Problem((key,), text))
    return problems


def impossible(chosen: Chosen, wrong: Collection[KeyPath] = ()) -> Iterator[Problem]:
    """All that cannot work in an appliance; checks that look at a `wrong` part of the spec are left out."""
    for parts, check in CHECKS:
        if not any(_overlap(part, path) for part in parts for path in wrong):
            yield from check(chosen)


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    return all(a == b for a, b in zip(one, other, strict=False))


def _names(chosen: Chosen) -> Iterator[Problem]:
    spec = chosen.spec
    longest = f"{spec.appliance.name}_{spec.appliance.version}_verity"
    if len(longest) > LABEL_CHARACTERS:
        room = LABEL_CHARACTERS - len("__verity")
        yield Problem(
            ("appliance", "name"),
            f"name and version together may have {room} characters (they label partitions), "
            f"not {len(spec.appliance.name) + len(spec.appliance.version)}",
        )


def _engines_twice(chosen: Chosen) -> Iterator[Problem]:
    yield from repeated(("engines",), "engine", [choice.name for choice in chosen.spec.engines])


def _models_twice(chosen: Chosen) -> Iterator[Problem]:
    yield from repeated(("models",), "model", [choice.name for choice in chosen.spec.models])


def _production(chosen: Chosen) -> Iterator[Problem]:
    if chosen.spec.variant == "production" and not chosen.spec.gateway.tokens:
        text = "a production appliance needs at least one token: without, it refuses every request"
        yield Problem(("gateway", "tokens"), text, hint=TOKEN_HINT)


def _buildroot(chosen: Chosen) -> Iterator[Problem]:
    spec = chosen.spec
    if spec.base != "buildroot" and spec.buildroot != type(spec.buildroot)():
        yield Problem(("buildroot",), f"is for `base: buildroot`, and base is {spec.base}")
    for key in ("config", "kernel"):
        symbols = [_symbol(line) for line in getattr(spec.buildroot, key)]
        for index, symbol in enumerate(symbols):
            if symbol in symbols[:index]:
                yield Problem(("buildroot", key, index), f"{symbol} is there twice")
    if spec.buildroot.sources is not None and not (chosen.directory / spec.buildroot.sources).is_file():
        path = chosen.directory / spec.buildroot.sources
        yield Problem(("buildroot", "sources"), f"there is no file {path}")


def _symbol(line: str) -> str:
    return line.removeprefix("# ").partition("=")[0].partition(" ")[0]


def _tee(chosen: Chosen) -> Iterator[Problem]:
    spec = chosen.spec
    if spec.tee != "none" and spec.arch != "x86_64":
        yield Problem(("tee",), f"{spec.tee} exists on x86_64 only, and arch is {spec.arch}")


def _artifacts(chosen: Chosen) -> Iterator[Problem]:
    arch = chosen.spec.arch
    for index, _, engine in chosen.engines:
        if engine.artifacts and arch not in engine.artifacts:
            there = ", ".join(sorted(engine.artifacts))
            yield Problem(("engines", index), f"{engine.name} exists on {there} only, and arch is {arch}")


def _ports(chosen: Chosen) -> Iterator[Problem]:
    taken = {chosen.spec.gateway.port: "the gateway"}
    if chosen.spec.variant == "debug":
        if chosen.spec.gateway.port == SSH_PORT:
            yield Problem(("gateway", "port"), f"port {SSH_PORT} is ssh's in a debug image")
        taken[SSH_PORT] = "ssh"
    if chosen.spec.gateway.guardrails is not None:
        port = chosen.spec.gateway.guardrails.port
        if port in taken:
            text = f"the guardrails and {taken[port]} cannot both listen on port {port}"
            yield Problem(("gateway", "guardrails", "port"), text)
        taken.setdefault(port, "the guardrails' listener")
    for index, choice, engine in chosen.engines:
        port = chosen.port(choice, engine)
        if port in taken:
            text = f"{engine.name} and {taken[port]} cannot both listen on port {port}"
            yield Problem(("engines", index, "port"), text)
        taken.setdefault(port, engine.name)


def _users(chosen: Chosen) -> Iterator[Problem]:
    users: dict[int, str] = {}
    for index, _, engine in chosen.engines:
        other = users.setdefault(engine.uid, engine.name)
        if other != engine.name:
            text = f"{engine.name} and {other} both have the user number {engine.uid}"
            yield Problem(("engines", index), text)


def _settings(chosen: Chosen) -> Iterator[Problem]:
    found: list[tuple[int, EngineChoice, Engine | RemoteEngine]] = [*chosen.engines, *chosen.remote_engines]
    for index, choice, engine in found:
        yield from (
            Problem(("engines", index, "settings", name), text)
            for name, text in settings_problems(engine, choice)
        )


def _served(chosen: Chosen) -> Iterator[Problem]:
    engines = [engine for _, _, engine in chosen.engines]
    for index, model in chosen.models:
        if not any(model.format in engine.formats for engine in engines):
            reads = "; ".join(
                [f"{e.name} reads {', '.join(e.formats) or 'none'}" for e in engines]
                + [f"{e.name} runs elsewhere" for _, _, e in chosen.remote_engines]
            )
            yield Problem(("models", index), f"no chosen engine can serve {model.format} weights: {reads}")
    for index, _, engine in chosen.engines:
        if engine.binds_models == "start" and engine.formats and chosen.served(engine) is None:
            formats = " or ".join(engine.formats)
            text = f"{engine.name} loads a model when it starts, and `models` has none in {formats}"
            yield Problem(("engines", index), text)


def _gpus(chosen: Chosen) -> Iterator[Problem]:
    """GPUs that a spec says the machine has: enough of them, and of memory for the model's weights.

    For every engine whose file has settings of these names; where the spec does not say, the engine finds out
    when it starts.
    """
    for index, choice, engine in chosen.engines:
        values = {name: setting.default for name, setting in engine.settings.items()} | choice.settings
        asked, gpus, vram = (values.get(name, 0) for name in ("tensor_parallel_size", "gpus", "vram"))
        path: KeyPath = ("engines", index, "settings", "tensor_parallel_size")
        if isinstance(asked, int) and asked > 1 and gpu_of(engine, choice) is None:
            yield Problem(path, f"{asked} GPUs are to share the model, and {engine.name} is to use none")
        elif isinstance(asked, int) and isinstance(gpus, int) and 0 < gpus < asked:
            yield Problem(path, f"is {asked}, and the machine has {gpus} GPUs (`gpus`)")
        model = chosen.served(engine)
        if not (model and isinstance(vram, int) and vram and gpu_of(engine, choice)):
            continue
        count = asked if isinstance(asked, int) and asked else max(1, int(gpus))
        share = float(values.get("gpu_memory_utilization", 1.0))
        weights, room = sum(file.size for file in model.files), int(count * vram * share * GIB)
        if weights > room:
            text = (
                f"{model.name} has {format_size(weights)} of weights and does not fit into {count} GPU(s) of "
                f"{vram} GiB, of which {engine.name} may take {share:.0%}"
            )
            yield Problem(("engines", index, "settings", "vram"), text)


def _memory(chosen: Chosen) -> Iterator[Problem]:
    parts = {"the system": SYSTEM_MEMORY}
    for _, _, engine in chosen.engines:
        parts[engine.name] = engine.resources.memory
        model = chosen.served(engine)
        if model is not None:
            parts[f"model {model.name}"] = model.memory_needed
    needed, given = sum(parts.values()), chosen.spec.machine.memory
    if given < needed:
        listed = ", ".join(f"{name} {format_size(size)}" for name, size in parts.items())
        text = f"{format_size(given)} is too little: {listed} make {format_size(needed)}"
        yield Problem(("machine", "memory"), text)


def _state(chosen: Chosen) -> Iterator[Problem]:
    size, models = chosen.spec.disk.state, [model for _, model in chosen.models]
    copied: dict[str, int] = {}
    for _, _, engine in chosen.engines:
        if engine.registration is not None:  # models in an engine's own format are linked, not copied
            weights = sum(m.size for m in models if m.format in engine.formats and m.format != engine.name)
            copied[engine.name] = engine.registration.copies * weights
    copies, come = sum(copied.values()), check_provision.on_state(models)
    needed = check_provision.state_needed(come + copies) if come else LEAST_STATE + copies
    if size >= needed:
        return
    if come:
        names = ", ".join(model.name for model in models if not model.packed)
        text = (
            f"{format_size(size)} is too little: the models that come at run time ({names}) need "
            f"{needed // MIB}M, with a reserve and what the file system takes for itself"
        )
    elif copies:
        text = (
            f"{format_size(size)} is too little: {next(iter(copied))} keeps the models on the state "
            f"partition, and needs {format_size(needed)} to take them in"
        )
    else:
        text = f"{format_size(size)} is too small for a file system: at least {format_size(LEAST_STATE)}"
    yield Problem(("disk", "state"), text)


def _selector(chosen: Chosen) -> Iterator[Problem]:
    spec = chosen.spec
    names = [choice.name for choice in spec.engines]
    asked: list[tuple[KeyPath, str]] = [
        (("selector", "preference", index), name) for index, name in enumerate(spec.selector.preference)
    ]
    yield from repeated(("selector", "preference"), "engine", list(spec.selector.preference))
    if spec.selector.policy != "auto":
        asked.insert(0, (("selector", "policy"), spec.selector.policy))
    for path, name in asked:
        if name not in names:
            also = ["auto", *names] if path[-1] == "policy" else names
            text = f"the engine {name} is not in `engines`{did_you_mean(name, also)}"
            yield Problem(path, f"{text}; it can be {', '.join(also)}")


def _network(chosen: Chosen) -> Iterator[Problem]:
    from ipaddress import ip_address, ip_interface  # few specs have an address

    network = chosen.spec.network
    for index, server in enumerate(network.dns):
        if _parsed(ip_address, server) is None:
            yield Problem(("network", "dns", index), f"{server!r} is no IP address")
    if network.dhcp:
        for key in ("address", "gateway"):
            if getattr(network, key) is not None:
                yield Problem(("network", key), "needs `dhcp: false`")
        return
    if network.address is None:
        yield Problem(("network", "address"), "is required where `dhcp` is false")
    address = None if network.address is None else _parsed(ip_interface, network.address)
    if network.address is not None and (address is None or "/" not in network.address):
        yield Problem(("network", "address"), f"{network.address!r} is no address such as 192.0.2.10/24")
    if network.gateway is not None:
        router = _parsed(ip_address, network.gateway)
        if router is None:
            yield Problem(("network", "gateway"), f"{network.gateway!r} is no IP address")
        elif address is not None and router not in address.network:
            yield Problem(("network", "gateway"), f"{router} is not in the network {address.network}")


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        return None


def _files(chosen: Chosen) -> Iterator[Problem]:
    """Model files that are said to be on this machine: there, and of the size given."""
    for index, model in chosen.models:
        for place, file in enumerate(model.files if model.packed else ()):
            if not isinstance(file.source, FileSource):
                continue
            path = chosen.directory / file.source.path
            at = ("models", index, "files", place)
            try:
                size = path.stat().st_size if path.is_file() else None
            except OSError as error:  # a name that no file system takes, a folder that may not be read
                yield Problem((*at, "source", "path"), f"{path}: {error.strerror}")
                continue
            if size is None:
                yield Problem((*at, "source", "path"), f"there is no file {path}")
            elif size != file.size:
                yield Problem((*at, "size"), f"{path} has {size} bytes, not {file.size}")


Check = Callable[[Chosen], Iterable[Problem]]

CHECKS: tuple[tuple[tuple[KeyPath, ...], Check], ...] = (
    ((("appliance",),), _names),
    ((("engines",),), _engines_twice),
    ((("models",),), _models_twice),
    ((("gateway", "tokens"),), check_gateway.tokens),
    ((("gateway", "limits"),), check_gateway.limits),
    ((("engines",), ("gateway",), ("network",), ("variant",)), check_gateway.remotes),
    ((("gateway",), ("network",)), check_gateway.guardrails),
    ((("engines",), ("gateway", "remotes"), ("gateway", "routes")), check_gateway.routes),
    ((("engines",), ("selector",)), check_gateway.exclusive),
    ((("variant",), ("gateway", "tokens")), _production),
    ((("tee",), ("arch",)), _tee),
    ((("base",), ("buildroot",)), _buildroot),
    ((("engines",), ("arch",)), _artifacts),
    ((("engines",), ("gateway", "port"), ("gateway", "guardrails"), ("variant",)), _ports),
    ((), _users),
    ((), _settings),
    ((("engines",), ("models",)), _served),
    ((("engines",), ("models",)), _gpus),
    ((("engines",), ("models",), ("machine", "memory")), _memory),
    ((("engines",), ("models",), ("disk", "state")), _state),
    ((("models",), ("offline",)), check_provision.delivery),
    ((("models",), ("network",), ("provision", "proxy")), check_provision.names),
    ((("provision",),), check_provision.provision),
    ((("models",), ("provision", "mirrors")), check_provision.mirrors),
    ((("models",), ("provision", "quota")), check_provision.quota),
    ((("engines",), ("selector",)), _selector),
    ((("network",),), _network),
    ((), _files),
)
"""Each check, with the parts of a spec that it looks at."""
