"""`hal sbom` and `hal provenance`: what an appliance is made of, and from what its build was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hal.cli.options import OUT, gather_inputs, make_reporter, source_options
from hal.errors import HalError


@click.command()
@click.argument("spec")
@click.option(
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there; default: standard output.",
)
@source_options
def sbom(spec: str, file: Path | None, **sources: Any) -> None:
    """Print an appliance's bill of materials (CycloneDX 1.6); every build has the same as sbom.cdx.json.

    Its parts are made when they are not in the cache; no image is built.
    """
    from hal import build as building
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    reporter = make_reporter(False)
    _hand_out(building.bill_of_materials(loaded, gather_inputs(loaded, reporter, **sources), reporter), file)


@click.command()
@click.argument("spec")
@OUT
@click.option(
    "--write",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there; default: standard output.",
)
@source_options
def provenance(spec: str, out: Path, file: Path | None, **sources: Any) -> None:
    """Print the provenance of a build (in-toto, SLSA 1.0), with every file of it however large.

    It is built first when that is due. A build's own provenance.intoto.json leaves out disks above 8 GiB.
    """
    from hal import build as building
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    reporter = make_reporter(False)
    _hand_out(building.provenance(loaded, out, gather_inputs(loaded, reporter, **sources), reporter), file)


def _hand_out(text: str, file: Path | None) -> None:
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise HalError(f"{file}: {error.strerror}", "give `--out` or `--write` another file") from None
