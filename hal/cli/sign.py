"""`hal sign`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hal.cli.options import JSON, gather_inputs, make_reporter, source_options
from hal.errors import UsageError

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("build", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The directory of the signed copy.",
)
@click.option("--secure-boot-key", type=FILE, help="The RSA key (PEM) that signs the UKI for secure boot.")
@click.option("--secure-boot-certificate", type=FILE, help="Its certificate (PEM), which firmware is given.")
@click.option("--key", type=FILE, help="The key (PEM) that signs measurements, manifest and provenance.")
@source_options
@JSON
def sign(
    build: Path,
    target: Path,
    secure_boot_key: Path | None,
    secure_boot_certificate: Path | None,
    key: Path | None,
    as_json: bool,
    **sources: Any,
) -> None:
    """Sign what `hal build` left in the directory BUILD, into a copy; BUILD stays as it is.

    Keys are the user's: hal makes none.
    """
    from hal.build import prepare_tools
    from hal.signing.build import PACKAGES, SecureBootKey, sign_build, signing_tools
    from hal.signing.signatures import read_private_key

    if (secure_boot_key is None) != (secure_boot_certificate is None):
        raise UsageError("secure boot takes a key and its certificate", "give both")
    pair = None
    if secure_boot_key is not None and secure_boot_certificate is not None:
        pair = SecureBootKey.read(secure_boot_key, secure_boot_certificate)
    documents = read_private_key(key) if key is not None else None
    reporter = make_reporter(as_json)
    inputs = gather_inputs(None, reporter, sets=("tools", PACKAGES), **sources)
    tools = prepare_tools(inputs, reporter)
    with reporter.step("signing"):
        signers = sign_build(
            build,
            target,
            secure_boot=pair,
            documents=documents,
            tools=tools,
            signing=signing_tools(inputs),
        )
    if as_json:
        click.echo(json.dumps({"event": "signed", "directory": str(target), "signed": signers}))
        return
    for purpose, digest in signers.items():
        click.echo(f"signed for {purpose.replace('_', ' ')} by {digest[:24]}…")
    click.echo(f"wrote {target}")
