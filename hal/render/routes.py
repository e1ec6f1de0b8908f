"""The routes as the selector reads them (services/selector/routes.py)."""

from __future__ import annotations

from hal.render.files import RenderedFile, origin
from hal.spec.loading import LoadedSpec
from hal.spec.routes import loaded_json

PATH = "/etc/hal/routes.json"


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The file of routes, without any too: an empty list says so."""
    return {PATH: RenderedFile(loaded_json(loaded, origin(loaded)))}
