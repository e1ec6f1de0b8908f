"""`hal sources`: what builds take from outside, brought in, or carried to a machine without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hal.cli.options import JSON, gather_inputs, make_reporter, source_options

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("spec", required=False)
@click.option("--pack", "packed", type=FILE, metavar="FILE", help="Write them all into one archive.")
@click.option(
    "--unpack",
    "unpacked",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Take such an archive into the cache; needs no SPEC.",
)
@source_options
@JSON
def sources(
    spec: str | None, packed: Path | None, unpacked: Path | None, as_json: bool, **options: Any
) -> None:
    """Bring in everything that a build of SPEC reads, for later builds with --offline."""
    from hal.build import package_sets, prepare_tools
    from hal.cache import Cache
    from hal.sourcepack import collect, needs_release, pack, unpack
    from hal.spec.loading import load_spec

    if (spec is None) == (unpacked is None) or (packed and unpacked):
        raise click.UsageError("name a SPEC, with --pack FILE or without; or --unpack FILE alone")
    if unpacked is not None:
        new, total = unpack(unpacked, Cache())
        if as_json:
            click.echo(json.dumps({"event": "unpacked", "files": total, "new": new}))
        else:
            click.echo(f"{unpacked}: {total} files, {new} of them new; now build with --offline")
        return
    assert spec is not None
    loaded, reporter = load_spec(spec), make_reporter(as_json)
    inputs = gather_inputs(loaded, reporter, sets=package_sets(loaded), whole=True, **options)
    found = collect(loaded, inputs, prepare_tools(inputs, reporter), reporter)
    if packed is not None:
        pack(found, packed)
    if as_json:
        click.echo(json.dumps({"event": "sources", "files": len(found.files), "bytes": found.size}))
        return
    click.echo(f"{len(found.files)} files, {found.size / 1e6:,.0f} MB{f', in {packed}' if packed else ''}")
    if packed is not None and needs_release(found):
        click.echo("the tree that was given with --buildroot is not in it: take it along")
