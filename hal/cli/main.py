"""The `hal` command: parse, call one function, print. No logic lives here.

Modules that are slow to load are imported by the commands that need them, so that `hal --help` and a build
with nothing to do stay quick.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import hal
from hal.cli.measure import measure
from hal.cli.models import models
from hal.cli.options import JSON, OUT, gather_inputs, make_reporter, source_options
from hal.cli.pack import pack
from hal.cli.sbom import provenance, sbom
from hal.cli.sign import sign
from hal.cli.sources import sources
from hal.cli.verify import collateral, verify
from hal.errors import EXIT_FAILED, HalError

if TYPE_CHECKING:
    pass


class Commands(click.Group):
    """A group that explains a HalError in a few lines and exits with its code, whatever command raised it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HalError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"{click.style('error:', fg='red')} {error.message}", err=True)
            for line in error.details:
                click.echo(line, err=True)
            if error.hint:
                click.echo(f"{click.style('hint:', fg='yellow')} {error.hint}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(EXIT_FAILED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(hal.__version__, prog_name="hal")
@click.option("--debug", is_flag=True, help="Show each program that is run, and tracebacks.")
def main(debug: bool) -> None:
    """Build and boot confidential inference appliances.

    SPEC is a YAML file, or the name of a ready-made profile such as `starter`.

    \b
      hal build starter          make build/starter/
      hal boot starter --wait    boot it in QEMU and say how to talk to it
      hal test starter           boot it and check it from inside
    """
    os.umask(0o022)  # the caller's must not reach the output
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", stream=sys.stderr
    )


main.add_command(pack)
main.add_command(models)
main.add_command(measure)
main.add_command(sbom)
main.add_command(provenance)
main.add_command(sources)
main.add_command(verify)
main.add_command(collateral)
main.add_command(sign)


@main.command()
@click.argument("spec")
@OUT
@source_options
@JSON
def build(spec: str, out: Path, as_json: bool, **sources: Any) -> None:
    """Build an appliance: disk, kernel, initrd, UKI and manifest in OUT/NAME/."""
    from hal import build as building
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    reporter = make_reporter(as_json)
    built = building.build(loaded, out, gather_inputs(loaded, reporter, **sources), reporter)
    if as_json:
        click.echo(json.dumps({"event": "built", "directory": str(built.directory), "fresh": built.fresh}))
    else:
        from hal.cli.summary import built_summary

        built_summary(built, spec)


@main.command()
@click.argument("spec")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where to write."
)
def render(spec: str, out: Path) -> None:
    """Write every text file that the appliance would hold; nothing is built."""
    from hal.image.root import write_files
    from hal.lock.file import load_lock
    from hal.render import render as rendering
    from hal.spec.loading import load_spec

    files = rendering(load_spec(spec), [], int(load_lock().debian.created.timestamp()))
    if out.exists() and any(out.iterdir()):
        raise HalError(f"{out} is not empty", "give a directory that is empty or not there yet")
    write_files(files, out)
    for name in files:
        click.echo(name)


@main.command()
@click.option(
    "--only",
    multiple=True,
    metavar="SET",
    help="Only this set of Debian packages (hal/bases/debian.yaml); all else stays, the lock's time too.",
)
@source_options
def lock(
    only: tuple[str, ...],
    lock_path: Path | None,
    mirrors: tuple[str, ...],
    snapshot: str | None,
    offline: bool,
    locked: bool,
    artifacts: tuple[str, ...],
    buildroot: Path | None,
    sources_file: Path | None,
) -> None:
    """Pin what is there now: resolve Debian packages and wheels anew and write hal.lock."""
    from hal.fetch.sources import Mirrors
    from hal.lock.file import LOCK_PATH
    from hal.lock.resolve import refresh, refresh_sets

    if offline or locked or artifacts or buildroot or sources_file:
        refused = "--offline, --locked, --artifact, --buildroot or --sources"
        raise click.UsageError(f"`hal lock` asks the archives: no {refused}")
    path = lock_path or LOCK_PATH
    known = Mirrors.choose(mirrors, snapshot)
    changes = refresh_sets(only, path, known) if only else refresh(path, known)
    for change in changes:
        click.echo(change)
    click.echo(f"wrote {path}")


@main.command()
@click.argument("spec")
@OUT
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7001,
    show_default=True,
    help="The host's port for the gateway; 0: any free one.",
)
@click.option(
    "--firmware",
    is_flag=False,
    flag_value="ovmf",
    metavar="[FILE]",
    help="Boot the UKI through UEFI firmware (hal's OVMF, or FILE); default: the kernel directly.",
)
@click.option(
    "--tee", type=click.Choice(["none", "sev-snp", "tdx"]), help="A confidential VM; default: the spec's."
)
@click.option("--tpm", is_flag=True, help="With a software TPM 2.0 (swtpm).")
@click.option("--cpus", type=click.IntRange(1), help="Virtual CPUs; default: the spec's.")
@click.option("--fresh", is_flag=True, help="Forget the state of earlier boots.")
@click.option(
    "--credential",
    "credentials",
    multiple=True,
    metavar="NAME=FILE",
    help="A secret for a debug image, as the API key of a remote endpoint.",
)
@click.option(
    "--without-disk",
    "without_disks",
    multiple=True,
    metavar="MODEL",
    help="Leave out the disk of a model with `delivery: disk`.",
)
@click.option("--wait", is_flag=True, help="Say when the gateway answers and when an engine serves.")
@click.option("--print", "print_only", is_flag=True, help="Print the QEMU command and do nothing.")
@source_options
@JSON
def boot(spec: str, out: Path, as_json: bool, **options: Any) -> None:
    """Boot an appliance in QEMU, until Ctrl-C; it is built first when that is due."""
    from hal import build as building
    from hal.machine import boot as booting
    from hal.machine import credentials
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    credentials.given(options["credentials"], loaded.spec.variant)  # refused before a build of minutes
    names = (
        "lock_path",
        "mirrors",
        "snapshot",
        "offline",
        "locked",
        "artifacts",
        "buildroot",
        "sources_file",
    )
    sources = {name: options.pop(name) for name in names}
    wait, print_only = options.pop("wait"), options.pop("print_only")
    reporter = make_reporter(as_json)
    inputs = gather_inputs(loaded, reporter, **sources)
    built = building.build(loaded, out, inputs, reporter)
    tools = building.prepare_tools(inputs, reporter)
    plan = booting.plan(loaded.spec, built.directory, booting.Wishes(**options))
    if print_only:
        click.echo(shlex.join(booting.command(plan, tools)))
    else:
        booting.run(plan, tools, fresh=options["fresh"], wait=wait, as_json=as_json)


@main.command()
@click.argument("spec")
@OUT
@click.option("-k", "expression", help="Only checks whose names match (pytest's -k).")
@source_options
def test(spec: str, out: Path, expression: str | None, **sources: Any) -> None:
    """Boot an appliance and run the checks of tests/appliance inside it."""
    from hal import build as building
    from hal.checks import run_checks
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    reporter = make_reporter(False)
    inputs = gather_inputs(loaded, reporter, **sources)
    building.build(loaded, out, inputs, reporter)
    raise SystemExit(run_checks(spec, out, expression, sources["artifacts"], inputs.buildroot))


@main.command()
@click.argument("spec")
@source_options
@JSON
def repro(spec: str, as_json: bool, **sources: Any) -> None:
    """Build twice, apart in place and time, and compare every artefact byte by byte."""
    from hal.cli.summary import repro_summary
    from hal.repro import compare_builds
    from hal.spec.loading import load_spec

    loaded = load_spec(spec)
    reporter = make_reporter(as_json)
    inputs = gather_inputs(loaded, reporter, whole=True, **sources)
    result = compare_builds(loaded, inputs, reporter)
    if as_json:
        click.echo(
            json.dumps({"event": "compared", "equal": result.equal, "differing": list(result.differing)})
        )
    else:
        repro_summary(result)
    if not result.equal:
        raise SystemExit(EXIT_FAILED)


@main.command()
@JSON
def doctor(as_json: bool) -> None:
    """Say what this host lacks for building and booting, and the command that installs it."""
    from hal.cli.summary import doctor_summary
    from hal.doctor import diagnose

    findings = diagnose()
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], default=str))
    else:
        doctor_summary(findings)
    if any(finding.state == "missing" for finding in findings):
        raise SystemExit(EXIT_FAILED)


@main.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from hal.spec.loading import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@OUT
@JSON
def profiles(out: Path, as_json: bool) -> None:
    """List the ready-made specs: what each needs, and how large its disk is (~: will be, about)."""
    from hal.cli.summary import profiles_summary
    from hal.profiles import list_profiles

    found = list_profiles(out)
    if as_json:
        click.echo(json.dumps([vars(profile) for profile in found], default=str))
    else:
        profiles_summary(found)


if __name__ == "__main__":
    main()
