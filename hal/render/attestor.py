"""hal-attestor, which answers with evidence, and the small root program that makes evidence open to it."""

from __future__ import annotations

from hal.render.files import PROGRAM, RenderedFile, text
from hal.render.sandbox import Exemption
from hal.spec.loading import LoadedSpec

USER = "hal-attestor"
USER_ID = 904

PROGRAM_PATH = "/usr/bin/hal-attestor"
ACCESS = "/usr/lib/hal/attestor-access"
"""What root runs before it."""

RUNTIME = "/run/hal/attestor"
SOCKET = f"{RUNTIME}/http.sock"
"""Where the gateway asks it; as in services/attestor/machine.py."""

CONFIGFS = "/sys/kernel/config"
REPORTS = f"{CONFIGFS}/tsm/report"
"""The kernel's interface to what a TEE signs."""

TPM = "/dev/tpmrm0"

QUESTIONS = 60
"""A minute, from one address."""


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """Its program, and what root does before."""
    access = text(
        "attestor-access",
        loaded,
        group=USER,
        configfs=CONFIGFS,
        reports=REPORTS,
        tpm=TPM,
        tee=confidential(loaded),
    )
    return {
        PROGRAM_PATH: RenderedFile(text("hal-attestor", loaded).content, PROGRAM),
        ACCESS: RenderedFile(access.content, PROGRAM),
    }


def confidential(loaded: LoadedSpec) -> bool:
    """Whether the image is for a TEE, and so has the kernel modules for one."""
    return loaded.spec.tee != "none"


def exemptions(loaded: LoadedSpec) -> dict[str, Exemption]:
    """What its unit has otherwise than all others."""
    found = {
        "PrivateDevices": Exemption("no", "it asks the TPM, where there is one"),
        "DeviceAllow": Exemption(f"{TPM} rw", "the TPM, and no other device"),
        "RestrictAddressFamilies": Exemption("AF_UNIX", "it is asked through a unix socket"),
        "IPAddressAllow": Exemption("", "it needs no network"),
        "PrivateNetwork": Exemption("yes", "see IPAddressAllow"),
    }
    if confidential(loaded):
        found["ReadWritePaths"] = Exemption(f"-{REPORTS}", "configfs-tsm takes what is to be signed")
    return found
