"""`hal verify`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hal.attest.policy import PLATFORMS, TCB_STATUSES, Policy, parse_tcb
from hal.cli.options import JSON
from hal.errors import EXIT_FAILED, HalError

if TYPE_CHECKING:
    from hal.attest.verdict import Verdict

STATES = {True: "[green]ok[/]", False: "[red]FAILED[/]", None: "[yellow]open[/]"}

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("url")
@click.option(
    "--measurements",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="measurements.json of the build that should be running.",
)
@click.option(
    "--measurements-key",
    type=FILE,
    help="Accept measurements only with a signature by this key (PEM) beside them, as `hal sign` makes.",
)
@click.option("--platform", type=click.Choice(PLATFORMS), help="Accept only evidence of this platform.")
@click.option(
    "--allow-debug", is_flag=True, help="Accept debug images, and SEV-SNP guests that their host may debug."
)
@click.option(
    "--tpm-key", type=FILE, help="The attestation key of the machine's TPM (PEM, DER, TPMT_PUBLIC)."
)
@click.option(
    "--minimum-tcb",
    metavar="PART=N,…",
    help="SEV-SNP: the lowest TCB accepted: bootloader, tee, snp, microcode, fmc.",
)
@click.option(
    "--allow-tcb",
    multiple=True,
    type=click.Choice(TCB_STATUSES),
    help="TDX: a TCB status accepted besides UpToDate.",
)
@click.option(
    "--collateral",
    "collateral_files",
    multiple=True,
    type=FILE,
    help="AMD's certificates (PEM, DER), Intel's collateral (JSON), or what `hal collateral` wrote.",
)
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds.")
@JSON
def verify(
    url: str,
    measurements: Path,
    measurements_key: Path | None,
    platform: str | None,
    allow_debug: bool,
    tpm_key: Path | None,
    minimum_tcb: str | None,
    allow_tcb: tuple[str, ...],
    collateral_files: tuple[Path, ...],
    timeout: float,
    as_json: bool,
) -> None:
    """Verify that the appliance at URL runs what MEASUREMENTS say, and that the key of its TLS is its own.

    Exit code 0: every check holds. 1: one does not. 2: the command line or the measurements are wrong.
    """
    from hal import verify as verifying
    from hal.attest.tpm import read_tpm_key

    policy = Policy(
        platform=platform,  # type: ignore[arg-type]  # click's choice is no literal
        allow_debug=allow_debug,
        minimum_tcb=parse_tcb(minimum_tcb) if minimum_tcb else None,
        tcb_statuses=frozenset({"UpToDate", *allow_tcb}),
        tpm_key=read_tpm_key(tpm_key) if tpm_key else None,
        collateral=verifying.read_collateral(collateral_files),
    )
    expected = verifying.read_measurements(measurements, measurements_key)
    verdict = verifying.verify(url, expected, policy, timeout)
    if as_json:
        click.echo(json.dumps(as_data(url, verdict)))
    else:
        _show(url, verdict)
    if not verdict.verified:
        raise SystemExit(EXIT_FAILED)


@click.command()
@click.argument("url")
@click.option("--write", type=FILE, metavar="FILE", help="Write it there; default: standard output.")
@click.option("--amd", metavar="URL", help="Ask this server instead of AMD's key distribution service.")
@click.option("--intel", metavar="URL", help="Ask this server (a PCCS) instead of Intel's service.")
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds.")
def collateral(url: str, write: Path | None, amd: str | None, intel: str | None, timeout: float) -> None:
    """Fetch what AMD or Intel publish about the machine at URL, for `hal verify --collateral`.

    Nothing is verified by this, and nobody need trust the file: it carries the vendor's signatures.
    """
    from hal import verify as verifying

    text = verifying.fetch_collateral(url, amd=amd, intel=intel, timeout=timeout).text()
    if write is None:
        click.echo(text, nl=False)
        return
    try:
        write.write_text(text)
    except OSError as error:
        raise HalError(f"cannot write {write}: {error.strerror}") from None
    click.echo(f"wrote {write}: now `hal verify {url} --collateral {write} --measurements FILE`")


def as_data(url: str, verdict: Verdict) -> dict[str, object]:
    """A verdict for programs."""
    return {
        "url": url,
        "verified": verdict.verified,
        "platform": verdict.platform,
        "tls_key_sha256": verdict.tls_key_sha256.hex(),
        "checks": [vars(check) for check in verdict.checks],
    }


def _show(url: str, verdict: Verdict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("check", "state", "what was found"):
        table.add_column(column, overflow="fold")
    for check in verdict.checks:
        table.add_row(check.name, STATES[check.ok], escape(check.words))
    console = Console(highlight=False)
    console.print(table)
    failed = sum(check.ok is not True for check in verdict.checks)
    console.print(
        f"\n{escape(url)}: "
        + (
            "[green]verified[/]"
            if verdict.verified
            else f"[red]NOT verified[/]; checks that do not hold: {failed}"
        )
    )
