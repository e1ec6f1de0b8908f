"""`hal pack`: engines' and models' packs by themselves. Parse, call one function, print."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hal.cli.models import wishes_options
from hal.cli.options import JSON, gather_inputs, make_reporter, source_options
from hal.errors import HalError

if TYPE_CHECKING:
    from hal.packs.build import Pack
    from hal.packs.exported import ExportedPack
    from hal.sandbox import Sandbox

ROOT_HASH = click.option("--root-hash", metavar="HEX", help="The root hash that it must have.")
DIRECTORY = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))


@click.group()
def pack() -> None:
    """Build, look at and carry the packs of engines and models."""


@pack.command()
@click.argument("spec")
@source_options
@JSON
def build(spec: str, as_json: bool, **sources: Any) -> None:
    """Make the packs of SPEC, and say where they are and how large."""
    from hal.cli.summary import packs_summary
    from hal.packs.exported import described

    found = [described(made) for made in _packs(spec, sources, as_json=as_json)[0]]
    if as_json:
        click.echo(json.dumps([{**_about(one), "path": str(one.image)} for one in found]))
    else:
        packs_summary(found)


@pack.command()
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE...")
@wishes_options
@click.option(
    "--out",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory that the pack is written to; default: build/packs/NAME.",
)
@click.option(
    "--disk",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a disk to be attached, FILE, and no directory unless --out names one.",
)
@source_options
def model(
    references: tuple[str, ...],
    directory: Path | None,
    disk: Path | None,
    name: str,
    format: str | None,
    license: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    endpoint: str,
    **sources: Any,
) -> None:
    """Make the pack of a model: of a directory, of a hub's or a registry's, or of one that hal knows.

    REFERENCE is as in `hal models pin`, a model's name, or its file NAME.yaml.
    """
    from hal.build import make_model_pack, prepare_tools
    from hal.packs.chosen import PACKS, referenced, write_disk
    from hal.packs.exported import export_pack
    from hal.pinning import Wishes

    if endpoint:  # what is pinned is fetched from there, too
        os.environ |= {"HF_ENDPOINT": endpoint, "HAL_OLLAMA_REGISTRY": endpoint}
    wishes = Wishes(name, format or "", license, include, exclude, endpoint)
    meant, folder = referenced(references, wishes)
    reporter = make_reporter(False)
    inputs = gather_inputs(None, reporter, sets=("tools",), models=(meant,), **sources)
    tools = prepare_tools(inputs, reporter)
    made = make_model_pack(meant, folder, inputs, tools, reporter)
    if directory is not None or disk is None:
        directory = directory or PACKS / meant.name
        export_pack(made, directory)
        click.echo(f"wrote {directory}, root hash {made.ref.root_hash}")
    if disk is not None:
        write_disk(made, disk, tools)
        click.echo(f"wrote {disk}, a disk with the partition {made.ref.label}")


@pack.command()
@click.argument("spec")
@click.argument("name")
@DIRECTORY
@source_options
def export(spec: str, name: str, directory: Path, **sources: Any) -> None:
    """Write the pack NAME of SPEC to DIRECTORY, to be carried elsewhere."""
    from hal.packs.exported import export_pack

    made, _ = _packs(spec, sources)
    for one in made:
        if one.ref.name == name:
            export_pack(one, directory)
            click.echo(f"wrote {directory}, root hash {one.ref.root_hash}")
            return
    raise HalError(f"{spec} has no pack {name}", f"it has {', '.join(one.ref.name for one in made)}")


@pack.command()
@DIRECTORY
@JSON
def inspect(directory: Path, as_json: bool) -> None:
    """Say what an exported pack is; nothing of it is verified."""
    from hal.cli.summary import packs_summary
    from hal.packs.exported import read_exported

    found = read_exported(directory)
    if as_json:
        click.echo(json.dumps(_about(found)))
    else:
        packs_summary([found])


@pack.command()
@DIRECTORY
@ROOT_HASH
@source_options
def verify(directory: Path, root_hash: str | None, **sources: Any) -> None:
    """Check every block of an exported pack against its root hash."""
    from hal.packs.exported import read_exported
    from hal.packs.exported import verify as verifying

    found = read_exported(directory)
    verifying(found, _tools(sources), root_hash)
    click.echo(f"{directory}: {found.ref.kind} pack {found.ref.name}, every block fits {found.ref.root_hash}")


@pack.command("import")
@DIRECTORY
@ROOT_HASH
@source_options
def import_(directory: Path, root_hash: str | None, **sources: Any) -> None:
    """Verify an exported pack and take it into the cache, where builds find it."""
    from hal.cache import Cache
    from hal.packs.exported import import_pack, read_exported

    found = read_exported(directory)
    import_pack(found, _tools(sources), Cache(), root_hash)
    click.echo(f"{found.ref.name}: in the cache, root hash {found.ref.root_hash}")


def _about(one: ExportedPack) -> dict[str, Any]:
    return {
        **asdict(one.ref),
        "size": one.size,
        "inputs": one.inputs,
        "unpacked": dict(one.unpacked),
        "files": [{"sha256": digest, "name": name} for digest, name in one.files],
    }


def _packs(spec: str, sources: dict[str, Any], *, as_json: bool = False) -> tuple[list[Pack], Sandbox]:
    from hal.build import make_packs, prepare_tools
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    reporter = make_reporter(as_json)
    inputs = gather_inputs(loaded, reporter, sets=("tools",), **sources)
    tools = prepare_tools(inputs, reporter)
    return list(make_packs(loaded, inputs, tools, reporter)), tools


def _tools(sources: dict[str, Any]) -> Sandbox:
    from hal.build import prepare_tools

    reporter = make_reporter(False)
    return prepare_tools(gather_inputs(None, reporter, sets=("tools",), **sources), reporter)
