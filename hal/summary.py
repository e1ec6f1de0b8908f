"""What commands print for people at their end: tables and the next step. Programs use `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hal.size import format_size

if TYPE_CHECKING:
    from hal.build import Built
    from hal.doctor import Finding
    from hal.profiles import Profile
    from hal.repro import Comparison

STATES = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def built_summary(built: Built, spec: str) -> None:
    """The artefacts and their sizes, and how to boot what was built."""
    console = _console()
    manifest = built.manifest
    if not built.fresh:
        console.print(f"{built.directory}: up to date")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("artefact")
    table.add_column("size", justify="right")
    table.add_column("what it is", style="dim")
    artefacts = manifest["artefacts"]
    rows = [
        ("disk.img", artefacts["disk.img"]["size"], "the whole disk (sparse): attach it to any machine"),
        (
            "  root",
            manifest["root"]["size"],
            f"EROFS, dm-verity root hash {manifest['root']['root_hash'][:16]}…",
        ),
        *(
            (f"  {pack['name']}", pack["size"], f"{pack['kind']} pack, root hash {pack['root_hash'][:16]}…")
            for pack in manifest["packs"]
        ),
        ("uki.efi", artefacts["uki.efi"]["size"], "kernel, initrd and command line as one EFI program"),
        ("vmlinuz", artefacts["vmlinuz"]["size"], f"Linux {manifest['kernel']}, for direct kernel boot"),
        ("initrd", artefacts["initrd"]["size"], "opens the root by its hash, or stops"),
    ]
    for name, size, text in rows:
        table.add_row(name, format_size(size), text)
    console.print(table)
    for item in manifest["substitutions"]:
        console.print(f"[yellow]note:[/] {item['package']}: {item['used']} in place of {item['locked']}")
    console.print(f"\nBuilt [bold]{built.directory}[/]. Boot it and talk to it:\n")
    console.print(f"  .venv/bin/hal boot {spec} --wait")


def repro_summary(result: Comparison) -> None:
    """A line for each artefact: the same or not."""
    console = _console()
    for name in result.compared:
        console.print(f"{'[red]differs[/]' if name in result.differing else '[green]equal  [/]'} {name}")


def doctor_summary(findings: Iterable[Finding]) -> None:
    """What the host has and lacks, with the command that mends each lack."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("check", "state", "what it means", "to mend it"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.name, STATES[finding.state], finding.meaning, finding.mend or "")
    _console().print(table)


def profiles_summary(profiles: Iterable[Profile]) -> None:
    """The ready-made specs, a line each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("profile", "what it is"):
        table.add_column(column)
    for profile in profiles:
        table.add_row(profile.name, profile.summary)
    _console().print(table)
