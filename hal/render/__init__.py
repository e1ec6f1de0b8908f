"""From a spec to every text file that its appliance holds. Pure: values in, text out, nothing is written.

The text lies in `templates/`, beside the modules that fill it in: system.py (accounts, network, journal,
mounts), engine.py (the launcher), systemd.py (units), sysv.py (init scripts), gateway.py (HAProxy),
selector.py and control.py (the selector, and what starts engines for it), provision.py (the provisioner),
attestor.py (the attestor), ssh.py (systemd's debug images only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hal.render.files import Rendered, RenderedFile

if TYPE_CHECKING:
    from hal.packs.reference import PackRef
    from hal.spec.loading import LoadedSpec

__all__ = ["Rendered", "RenderedFile", "render"]


def render(loaded: LoadedSpec, packs: Sequence[PackRef], built: int = 0) -> Rendered:
    """All files of the appliance, by absolute path in the image, sorted.

    `packs` are the engine and model packs that the appliance mounts; `built` is the lock's time in seconds
    since 1970, before which no clock of the appliance can be right. Equal inputs give equal text.
    """
    # Here, since jinja2 costs the other commands' start-up.
    from hal.render import (
        attestor,
        control,
        engine,
        gateway,
        manifest,
        provision,
        routes,
        selector,
        ssh,
        system,
        systemd,
        sysv,
    )

    found: dict[str, RenderedFile] = {}
    found |= system.files(loaded, packs)
    found |= manifest.files(loaded, packs)
    found |= engine.files(loaded)
    found |= gateway.files(loaded)
    found |= selector.files(loaded)
    found |= routes.files(loaded)
    found |= control.files(loaded)
    found |= provision.files(loaded, packs, built)
    found |= attestor.files(loaded)
    if loaded.spec.init == "sysv":
        found |= sysv.files(loaded)
    else:
        found |= system.systemd_files(loaded)
        found |= systemd.files(loaded)
        if loaded.spec.variant == "debug":
            found |= ssh.files(loaded)
    return dict(sorted(found.items()))
