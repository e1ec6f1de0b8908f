"""`hal models`: what a spec's models are and what they need, and pinning further ones. Parse, call, print."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hal.cli.options import JSON
from hal.errors import UsageError


class Listing(click.Group):
    """A group whose command `list` may be left out: `hal models SPEC`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Listing)
def models() -> None:
    """List the models of a spec (`hal models SPEC`), or those that hal knows; pin further ones."""


@models.command("list")
@click.argument("spec", required=False)
@JSON
def list_(spec: str | None, as_json: bool) -> None:
    """What the models of SPEC are, where they come from, how large they are, and which GPUs they fit.

    Without SPEC: the models that hal knows by name.
    """
    from hal.cli.summary import models_summary
    from hal.models.fit import known_models, spec_models
    from hal.spec.loading import load_spec

    found = spec_models(load_spec(spec)) if spec else known_models()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found]))
    else:
        models_summary(found)


def wishes_options(command: Any) -> Any:
    """The options that say what of a published model is meant."""
    for option in reversed(
        (
            click.option("--name", default="", help="The model's name; default: made from the reference."),
            click.option(
                "--format",
                type=click.Choice(["gguf", "safetensors", "ollama"]),
                default=None,
                help="Format of the weights.",
            ),
            click.option("--license", default="", help="SPDX identifier; default: what its makers say."),
            click.option("--include", multiple=True, metavar="GLOB", help="Only these files."),
            click.option("--exclude", multiple=True, metavar="GLOB", help="All but these files."),
            click.option("--endpoint", default="", metavar="URL", help="Another hub or registry: a mirror."),
        )
    ):
        command = option(command)
    return command


@models.command()
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE...")
@wishes_options
@click.option(
    "--delivery",
    type=click.Choice(["image", "disk", "network", "import"]),
    help="How it comes into appliances.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a model's file, NAME.yaml."
)
@JSON
def pin(
    references: tuple[str, ...], delivery: str | None, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Print a model's entry for a spec, with every file pinned by size and SHA-256.

    \b
    REFERENCE is one of
      huggingface:ORG/NAME[@REVISION]   a repository of the Hugging Face hub
      ollama:NAME[:TAG]                 a model of Ollama's registry
      https://URL...                    files behind URLs
      DIRECTORY                         files on this machine

    Of a repository: safetensors weights, configuration and tokenizer, unless --include says otherwise.
    HF_TOKEN is sent to the hub where it is set; HF_ENDPOINT names a mirror, as --endpoint does.
    """
    from hal.pinning import Wishes, pin
    from hal.pinning.entry import entry, write_entry

    if out is not None:
        if out.suffix != ".yaml":
            raise UsageError(f"--out {out}: a model's file ends in .yaml, and is named after the model")
        options["name"] = options["name"] or out.stem
    model = pin(references, Wishes(**{**options, "format": options["format"] or ""}))
    if delivery is not None:
        model = model.model_copy(update={"delivery": delivery})
    if out is not None:
        write_entry(model, out)
        click.echo(f"wrote {out}; a spec takes it as `models: [./{out.name}]`")
    elif as_json:
        click.echo(json.dumps(model.model_dump(mode="json")))
    else:
        click.echo(entry(model, item=True), nl=False)
