"""What commands print for people at their end: tables and the next step. Programs use `--json`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hal.documents.size import format_size

if TYPE_CHECKING:
    from hal.build import Built
    from hal.doctor import Finding
    from hal.measure.document import Measurements
    from hal.measure.explain import Difference
    from hal.models.fit import ModelRow
    from hal.packs.exported import ExportedPack
    from hal.profiles import Profile
    from hal.repro import Comparison

DISK = "disk.img"
"""The appliance's own disk: what is not on it is a model's."""

DEFAULT_OUT = Path("build")
"""Where builds go unless `--out` says otherwise."""

ONE_LINE = 240
"""Columns that a table may take whose rows stay on a line each, however narrow the terminal."""

STATES = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def built_summary(built: Built, spec: str) -> None:
    """The artefacts and their sizes, and how to boot what was built; `spec` is what the user called it."""
    from hal.measure.document import NAME
    from hal.sbom.document import NAME as BILL

    console = _console()
    manifest = built.manifest
    directory = escape(str(built.directory))
    if not built.fresh:
        console.print(f"{directory}: up to date")
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
            if pack.get("disk", DISK) == DISK
        ),
        *(
            (pack["disk"], artefacts[pack["disk"]]["size"], f"the disk of {pack['name']}: attach it as well")
            for pack in manifest["packs"]
            if pack.get("disk", DISK) != DISK
        ),
        ("uki.efi", artefacts["uki.efi"]["size"], "kernel, initrd and command line as one EFI program"),
        ("vmlinuz", artefacts["vmlinuz"]["size"], f"Linux {manifest['kernel']}, for direct kernel boot"),
        ("initrd", artefacts["initrd"]["size"], "opens the root by its hash, or stops"),
        (NAME, artefacts[NAME]["size"], "what it will measure as: `hal verify` compares with it"),
        (BILL, artefacts[BILL]["size"], "all that is in it, with licences and digests (CycloneDX)"),
    ]
    for name, size, text in rows:
        table.add_row(name, format_size(size), text)
    console.print(table)
    for item in manifest["substitutions"]:
        console.print(f"[yellow]note:[/] {item['package']}: {item['used']} in place of {item['locked']}")
    out = built.directory.parent
    elsewhere = [] if out == DEFAULT_OUT else ["--out", str(out)]
    console.print(f"\nBuilt [bold]{directory}[/]. Boot it and talk to it:\n")
    console.print(f"  .venv/bin/hal {escape(shlex.join(['boot', spec, *elsewhere, '--wait']))}")


def repro_summary(result: Comparison) -> None:
    """A line for each artefact: the same or not."""
    console = _console()
    for name in result.compared:
        console.print(f"{'[red]differs[/]' if name in result.differing else '[green]equal  [/]'} {name}")


def measurements_summary(found: Measurements) -> None:
    """The values by platform and shape, and what was not computed."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("platform", "machine", "register", "value"):
        table.add_column(column)
    platforms = found.platforms
    for launch in platforms.sev_snp:
        machine = f"{launch.vcpus} vCPUs {launch.vcpu_type}"
        table.add_row("sev-snp", machine, "launch digest", launch.launch_digest)
    for part in found.partial.tdx:
        values = {"MRTD": part.mrtd, "RTMR 1": part.rtmr1, "RTMR 2": part.rtmr2, "RTMR 3": part.rtmr3}
        for name, value in values.items():
            table.add_row("tdx", f"{part.boot} boot, {part.behaviour}", name, value)
    for whole in platforms.tdx:
        machine = f"{whole.vcpus} vCPUs, {format_size(whole.memory)}"
        table.add_row("tdx", f"{whole.boot} boot, {whole.behaviour}, {machine}", "RTMR 0", whole.rtmr0)
    for entry in platforms.tpm:
        machine = "uki boot, secure" if entry.secure_boot else "uki boot"
        for number in sorted(entry.pcrs, key=int):
            table.add_row("tpm", machine, f"PCR {number}", entry.pcrs[number])
    console = _console()
    console.width = max(console.width, ONE_LINE)
    image = found.image
    debug = ", [yellow]debug[/]: verifiers refuse it" if image.debug else ""
    console.print(f"[bold]{escape(image.name)} {escape(image.version)}[/]{debug}")
    console.print(f"root hash {found.root_hash}, manifest {found.manifest_sha256}")
    console.print(table)
    for refusal in found.refused:
        console.print(f"[yellow]not computed:[/] {refusal.platform} {refusal.value}: {escape(refusal.why)}")


def differences_summary(found: Sequence[Difference]) -> None:
    """A line for each input that two measurements do not share, with what it reaches."""
    console = _console()
    if not found:
        console.print("[green]equal[/]: the same inputs")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("input", "in the first", "in the second", "reaches"):
        table.add_column(column, overflow="fold")
    for one in found:
        reaches = ", ".join(one.reaches) or "-"
        table.add_row(escape(one.input), escape(one.first), escape(one.second), reaches)
    console.width = max(console.width, ONE_LINE)
    console.print(table)


def doctor_summary(findings: Iterable[Finding]) -> None:
    """What the host has and lacks, with the command that mends each lack."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("check", "state", "what it means", "to mend it"):
        table.add_column(column)
    for finding in findings:
        table.add_row(
            finding.name, STATES[finding.state], escape(finding.meaning), escape(finding.mend or "")
        )
    _console().print(table)


def packs_summary(packs: Iterable[ExportedPack]) -> None:
    """Packs with their sizes, unpacked before and after what is left out, and as they are on a disk."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("pack")
    table.add_column("kind")
    for column in ("upstream", "trimmed", "packed"):
        table.add_column(column, justify="right")
    table.add_column("root hash")
    table.add_column("where", style="dim")
    for pack in packs:
        sizes = [
            format_size(pack.unpacked[key]) if key in pack.unpacked else "" for key in ("before", "after")
        ]
        table.add_row(
            escape(pack.ref.name),
            pack.ref.kind,
            *sizes,
            format_size(pack.size),
            f"{pack.ref.root_hash[:16]}…",
            escape(str(pack.image.parent)),
        )
    _console().print(table)


def models_summary(rows: Sequence[ModelRow]) -> None:
    """Models, a line each: where they come from, what they need, and on how many GPUs of a class they fit."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    classes = list(dict.fromkeys(name for row in rows for name in row.gpus))
    for column in ("model", "delivery", "from", "format", "size", "memory", "licence", "engines", *classes):
        right = column in ("size", "memory", *classes)
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        fits = [str(row.gpus[name] or "-") if name in row.gpus else "" for name in classes]
        sizes = (format_size(row.size), format_size(row.memory))
        about = [row.name, row.delivery, row.source, row.format, *sizes, row.license, ", ".join(row.engines)]
        table.add_row(*map(escape, about), *fits)
    console = _console()
    console.width = max(console.width, ONE_LINE)
    console.print(table)
    if classes:
        console.print(
            "[dim]the last columns: how many GPUs with so much memory it takes; -: it does not fit[/]"
        )


def profiles_summary(profiles: Sequence[Profile]) -> None:
    """The ready-made specs, a line each: what they need of a machine, and how large their disk is."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("profile", "memory", "CPUs", "GPU", "disk", "what it is"):
        table.add_column(column, justify="right" if column in ("memory", "CPUs", "disk") else "left")
    for profile in profiles:
        table.add_row(
            escape(profile.name),
            format_size(profile.memory),
            str(profile.cpus),
            profile.gpu or "-",
            _disk(profile),
            escape(profile.summary),
        )
    console = _console()
    console.width = max(console.width, ONE_LINE)
    console.print(table)
    if any(not profile.disk for profile in profiles):
        console.print("[dim]~ not built yet: an estimate from the sizes in the lock[/]")


def _disk(profile: Profile) -> str:
    if profile.disk:
        return format_size(profile.disk)
    return f"~{format_size(profile.estimate)}" if profile.estimate else "-"
