"""`hal measure`: what a build measures as, and why two builds do not measure alike."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hal.cli.options import JSON, OUT, gather_inputs, make_reporter, source_options
from hal.errors import UsageError

Pair = tuple[Path, Path] | None


@click.command()
@click.argument("spec", required=False)
@OUT
@click.option(
    "--firmware",
    multiple=True,
    metavar="PLATFORM=FILE[#sha256=DIGEST]",
    help="Firmware of sev-snp or tdx machines: their values begin with it.",
)
@click.option(
    "--vcpus", multiple=True, type=click.IntRange(1, 512), help="Virtual CPUs (sev-snp); default: 1 to 64."
)
@click.option("--vcpu-type", "vcpu_types", multiple=True, metavar="MODEL", help="QEMU's CPU model (sev-snp).")
@click.option("--rtmr0", metavar="HEX", help="RTMR 0 of a tdx machine of the spec's shape that you trust.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the document there.",
)
@click.option(
    "--explain",
    nargs=2,
    type=click.Path(path_type=Path, exists=True),
    metavar="A B",
    help="Say which inputs make two measurements differ: two files, or two builds' directories.",
)
@source_options
@JSON
def measure(
    spec: str | None, out: Path, write: Path | None, explain: Pair, as_json: bool, **options: Any
) -> None:
    """Compute what an appliance will measure as; nothing is booted. It is built first when that is due."""
    shape = {name: options.pop(name) for name in ("firmware", "vcpus", "vcpu_types", "rtmr0")}
    if explain is not None:
        if spec is not None:
            raise UsageError("--explain compares two builds, and takes no SPEC")
        _explain(*explain, as_json=as_json)
    elif spec is None:
        raise UsageError("nothing to measure", "give a SPEC, or `--explain A B`")
    else:
        _measure(spec, out, shape, options, write, as_json=as_json)


def _measure(
    spec: str, out: Path, shape: dict[str, Any], sources: dict[str, Any], write: Path | None, *, as_json: bool
) -> None:
    from hal import build as building
    from hal.cli.summary import measurements_summary
    from hal.measure.compute import Files, with_firmware
    from hal.measure.document import read
    from hal.measure.shapes import wishes
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    wanted = wishes(loaded.spec.machine, **shape)  # refused before a build of minutes
    reporter = make_reporter(as_json)
    inputs = gather_inputs(loaded, reporter, **sources)
    built = building.build(loaded, out, inputs, reporter)
    found = read(built.directory)
    if wanted.firmware:
        tools = building.prepare_tools(inputs, reporter)
        found = with_firmware(found, Files.of(built.directory, tools.tree), wanted)
    if write is not None:
        write.write_text(found.text())
    if as_json:
        click.echo(found.text(), nl=False)
    else:
        measurements_summary(found)


def _explain(first: Path, second: Path, *, as_json: bool) -> None:
    from hal.cli.summary import differences_summary
    from hal.measure.explain import explain

    found = explain(first, second)
    if as_json:
        click.echo(json.dumps([asdict(difference) for difference in found]))
    else:
        differences_summary(found)
