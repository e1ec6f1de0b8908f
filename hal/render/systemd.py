"""The systemd units: the target, the gateway, the selector, and one unit per engine from one template."""

from __future__ import annotations

import re

from hal.engines import Engine
from hal.engines.gpu import Gpu, gpu_of
from hal.models import MARKERS
from hal.render import arriving, attestor, control, gateway, resolver, selector
from hal.render import engine as launching
from hal.render.files import PROGRAM, RenderedFile, link, text
from hal.render.memory import SLICE, engines_share
from hal.render.sandbox import Exemption, sandbox
from hal.spec.loading import LoadedSpec
from hal.spec.routes import haproxy_lines

UNITS = "/usr/lib/systemd/system"

GATEWAY_EXEMPTIONS = {
    "IPAddressDeny": Exemption("", "the gateway is what the network talks to"),
    "IPAddressAllow": Exemption("", "see IPAddressDeny"),
    "UMask": Exemption("0007", "the selector, of the same group, uses the admin socket"),
}

COMPILING = Exemption("no", "a route has a pattern that PCRE compiles to machine code when HAProxy starts")

SELECTOR_EXEMPTIONS = {
    "UMask": Exemption("0007", "the gateway, of the same group, uses the status socket"),
}

_NEEDS_QUOTES = re.compile(r"""[\s"'\\;]""")


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The units, what they start, and the target that the machine boots into."""
    found = {
        f"{UNITS}/appliance.target": text(
            "appliance.target",
            loaded,
            engines=selector.at_boot(loaded),
            control=control.needed(loaded),
            provision=arriving.needed(loaded),
            resolver=resolver.needed(loaded),
        ),
        "/etc/systemd/system/default.target": link(f"{UNITS}/appliance.target"),
        f"{UNITS}/hal-gateway.socket": text("hal-gateway.socket", loaded),
        f"{UNITS}/hal-gateway.service": text(
            "hal-gateway.service",
            loaded,
            make_key=gateway.MAKE_KEY,
            credentials=gateway.credentials(loaded),
            sandbox=sandbox(gateway_exemptions(loaded)),
        ),
        f"{UNITS}/hal-selector.service": text(
            "hal-selector.service",
            loaded,
            state=selector.STATE.removeprefix("/var/lib/"),
            control_group=selector.GROUP,
            sandbox=sandbox(SELECTOR_EXEMPTIONS),
        ),
        "/usr/bin/hal-selector": RenderedFile(text("hal-selector", loaded).content, PROGRAM),
        f"{UNITS}/hal-attestor.socket": text("hal-attestor.socket", loaded, socket=attestor.SOCKET),
        f"{UNITS}/hal-attestor.service": text(
            "hal-attestor.service",
            loaded,
            program=attestor.PROGRAM_PATH,
            access=attestor.ACCESS,
            user=attestor.USER,
            tee=attestor.confidential(loaded),
            sandbox=sandbox(attestor.exemptions(loaded)),
        ),
    }
    if control.needed(loaded):
        found[f"{UNITS}/hal-control.service"] = text(
            "hal-control.service",
            loaded,
            program=control.PROGRAM_PATH,
            group=selector.GROUP,
            sandbox=sandbox(control.exemptions(loaded)),
        )
    if arriving.needed(loaded):
        found[f"{UNITS}/hal-provision.service"] = text(
            "hal-provision.service",
            loaded,
            program=arriving.PROGRAM_PATH,
            user=arriving.USER,
            state_partition=selector.STATE_DIRECTORY,
            runtime=arriving.RUNTIME,
            markers=MARKERS,
            credentials=arriving.credentials(loaded),
            sandbox=sandbox(arriving.EXEMPTIONS),
        )
    if resolver.needed(loaded):
        found |= resolver.units(loaded, UNITS)
    found[f"{UNITS}/{SLICE}.slice"] = text("engines.slice", loaded, share=engines_share(loaded))
    for engine in loaded.engines:
        gpu = gpu_of(engine, loaded.choice(engine))
        found[f"{UNITS}/{engine.name}.service"] = text(
            "engine.service",
            loaded,
            engine=engine,
            command=" ".join(quoted(argument) for argument in launching.command(engine)),
            mounts=" ".join(needed_mounts(loaded, engine)),
            gpu=gpu,
            slice=SLICE,
            sandbox=sandbox(exemptions(engine, gpu)),
        )
    return found


def gateway_exemptions(loaded: LoadedSpec) -> dict[str, Exemption]:
    """What the gateway's sandbox has otherwise: more only where a route cannot be asked for without."""
    # acl NAME WHAT -m HOW …
    compiles = any(line.split(" ")[4:5] == ["reg"] for line in haproxy_lines(loaded))
    return GATEWAY_EXEMPTIONS | ({"MemoryDenyWriteExecute": COMPILING} if compiles else {})


def exemptions(engine: Engine, gpu: Gpu | None) -> dict[str, Exemption]:
    """What an engine's file, and the GPU that it is to compute on, change of the sandbox."""
    found = {}
    if gpu is not None:
        found = {
            "PrivateDevices": Exemption("no", f"the engine computes on a GPU ({gpu.kind})"),
            "DeviceAllow": Exemption("\n".join(gpu.allowed), "the GPU's device nodes, and no others"),
        }
    return found | {
        name: Exemption(exception.value, exception.reason) for name, exception in engine.sandbox.items()
    }


def needed_mounts(loaded: LoadedSpec, engine: Engine) -> list[str]:
    """Directories that must be mounted before the engine starts: its runtime and its model.

    systemd itself adds those of StateDirectory= and CacheDirectory=.
    """
    found = [f"/opt/{engine.name}"]
    model = loaded.served(engine)
    if model is not None:
        found.append(model.mountpoint if model.packed else arriving.MODELS)
    return found


def quoted(argument: str) -> str:
    """An argument for `ExecStart=` (systemd.service(5), "Command lines"); `${NAME}` stays a variable."""
    escaped = argument.replace("%", "%%")
    if escaped and not _NEEDS_QUOTES.search(escaped):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
