"""ssh into debug images: socket-activated, with a host key made at boot and root's key from a credential."""

from __future__ import annotations

from hal.render.files import RenderedFile, text
from hal.render.sandbox import Exemption, sandbox
from hal.render.systemd import UNITS
from hal.spec.loading import LoadedSpec

KEY_EXEMPTIONS = {
    "IPAddressAllow": Exemption("", "making a key needs no network"),
    "RestrictAddressFamilies": Exemption("none", "see IPAddressAllow"),
    "PrivateUsers": Exemption("no", "the key belongs to root, for whom sshd reads it"),
}


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The units and sshd's configuration; only `variant: debug` has them."""
    return {
        f"{UNITS}/hal-ssh.socket": text("hal-ssh.socket", loaded),
        f"{UNITS}/hal-ssh@.service": text("hal-ssh@.service", loaded),
        f"{UNITS}/hal-ssh-key.service": text("hal-ssh-key.service", loaded, sandbox=sandbox(KEY_EXEMPTIONS)),
        "/etc/hal/ssh/sshd_config": text("sshd_config", loaded),
    }
