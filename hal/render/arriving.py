"""Models that are not in the image, and hal-provision, which brings them in.

They lie on the state partition, which the host can alter: hal-provision checks them in each boot, and an
engine opens one only where a marker says that it was found good.
"""

from __future__ import annotations

from collections.abc import Mapping

from hal.models import Model
from hal.render.files import PROGRAM, RenderedFile, link, text
from hal.render.sandbox import Exemption
from hal.spec.loading import LoadedSpec

PROGRAM_PATH = "/usr/bin/hal-provision"
USER = "hal-provision"
USER_ID = 903

MODELS = "/var/lib/hal/models"
STATE = "/var/lib/hal/provisioner"
RUNTIME = "/run/hal/provisioner"
STATUS = f"{RUNTIME}/status.json"

DIRECTORIES = ((MODELS, "0755", USER), (STATE, "0700", USER))
"""Its own on the state partition: path, mode, owner."""

EXEMPTIONS: Mapping[str, Exemption] = {
    "IPAddressDeny": Exemption("", "it fetches models from wherever the spec says"),
    "IPAddressAllow": Exemption("", "see IPAddressDeny"),
}


def arriving(loaded: LoadedSpec) -> tuple[Model, ...]:
    """The models that are fetched or given after the machine has started."""
    return tuple(model for model in loaded.models if not model.packed)


def needed(loaded: LoadedSpec) -> bool:
    """Whether there is anything to bring in."""
    return bool(arriving(loaded))


def credentials(loaded: LoadedSpec) -> tuple[str, ...]:
    """The names of the credentials that hal-provision needs."""
    name = loaded.spec.provision.huggingface_credential
    return (name,) if name and needed(loaded) else ()


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The program, and a link for each model from where engines look for it to where it will lie."""
    if not needed(loaded):
        return {}
    found = {model.mountpoint: link(f"{MODELS}/{model.name}") for model in arriving(loaded)}
    return found | {PROGRAM_PATH: RenderedFile(text("hal-provision", loaded).content, PROGRAM)}
