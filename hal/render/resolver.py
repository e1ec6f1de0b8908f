"""Name servers that come by DHCP: what knows them writes them down for glibc, and nothing waits for it."""

from __future__ import annotations

from hal.render import arriving
from hal.render.files import PROGRAM, RenderedFile, link, text
from hal.render.sandbox import Exemption, sandbox
from hal.spec.loading import LoadedSpec

DIRECTORY = "/run/hal/resolver"
FILE = f"{DIRECTORY}/resolv.conf"
PROGRAM_PATH = "/usr/lib/hal/resolver"

NETWORK_STATE = "/run/systemd/netif/state"
"""Where systemd-networkd writes what it has found out. It calls that file private; its version is pinned."""

EXEMPTIONS = {
    "IPAddressAllow": Exemption("", "it needs no network"),
    "RestrictAddressFamilies": Exemption("none", "see IPAddressAllow"),
}


def needed(loaded: LoadedSpec) -> bool:
    """Whether something asks for names, and only the network knows whom.

    The gateway asks the servers of the spec by itself; an image that fetches nothing boots without this.
    """
    return loaded.spec.network.dhcp and arriving.needed(loaded)


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """/etc/resolv.conf: those of the spec, or a link to the file that gets all of them at run time."""
    resolv = link(FILE) if needed(loaded) else text("resolv.conf", loaded)
    return {"/etc/resolv.conf": resolv}


def units(loaded: LoadedSpec, directory: str) -> dict[str, RenderedFile]:
    """What watches networkd, and the program that it starts; BusyBox's udhcpc runs a script anyway."""
    program = text("resolver", loaded, network_state=NETWORK_STATE, file=FILE)
    return {
        PROGRAM_PATH: RenderedFile(program.content, PROGRAM),
        f"{directory}/hal-resolver.path": text("hal-resolver.path", loaded, network_state=NETWORK_STATE),
        f"{directory}/hal-resolver.service": text(
            "hal-resolver.service",
            loaded,
            program=PROGRAM_PATH,
            directory=DIRECTORY,
            sandbox=sandbox(EXEMPTIONS),
        ),
    }
