"""What commands share: options, the reporter, and bringing in a spec's inputs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hal.inputs import Inputs
    from hal.models import Model
    from hal.progress import Reporter
    from hal.spec.loading import LoadedSpec

OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build"),
    show_default=True,
    help="Where builds go, one directory per appliance.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="JSON for programs, on standard output.")


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where inputs come from, shared by all commands that fetch."""
    options = [
        click.option(
            "--lock", "lock_path", type=click.Path(path_type=Path, dir_okay=False), help="Another hal.lock."
        ),
        click.option(
            "--mirror", "mirrors", multiple=True, metavar="URL|DIR", help="A Debian mirror, or a directory."
        ),
        click.option(
            "--snapshot", metavar="URL", help="A snapshot archive for packages that mirrors dropped."
        ),
        click.option("--offline", is_flag=True, help="Use the cache and local directories only."),
        click.option(
            "--buildroot",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            envvar="HAL_BUILDROOT",
            help="For `base: buildroot`: a tree of the pinned release at hand.",
        ),
        click.option(
            "--sources",
            "sources_file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            envvar="HAL_BUILDROOT_SOURCES",
            metavar="FILE",
            help="For `base: buildroot`: a sources file in place of the spec's.",
        ),
        click.option(
            "--locked", is_flag=True, help="Fail where a pinned package is gone, take no successor."
        ),
        click.option(
            "--artifact",
            "artifacts",
            multiple=True,
            metavar="ENGINE=FILE[#sha256=DIGEST]",
            help="An engine's release archive on this machine; a digest: for versions that hal does not pin.",
        ),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def make_reporter(as_json: bool) -> Reporter:
    from hal.progress import JsonLines, Lines, Terminal

    if as_json:
        return JsonLines()
    return Terminal() if sys.stderr.isatty() else Lines()


def gather_inputs(
    loaded: LoadedSpec | None,
    reporter: Reporter,
    *,
    sets: tuple[str, ...] | None = None,
    lock_path: Path | None,
    mirrors: tuple[str, ...],
    snapshot: str | None,
    offline: bool,
    locked: bool,
    artifacts: tuple[str, ...],
    buildroot: Path | None = None,
    sources_file: Path | None = None,
    whole: bool = False,
    models: Sequence[Model] = (),
) -> Inputs:
    """The inputs of a spec, brought in; `sets` are package sets in place of those that its build reads.

    `whole` brings in what cached packs were made from, too; `models` are further ones.
    """
    from hal.build import package_sets
    from hal.cache import Cache
    from hal.fetch.fetcher import Fetcher
    from hal.fetch.releases import parse_given
    from hal.fetch.sources import Mirrors
    from hal.inputs import GivenBuildroot, gather
    from hal.lock.file import LOCK_PATH, load_lock

    given = parse_given(artifacts)
    lock = load_lock(lock_path or LOCK_PATH)
    places = Mirrors.choose(mirrors, snapshot, lock.debian.created)
    fetcher = Fetcher(Cache(), places, offline=offline, progress=reporter)
    if sets is None:
        sets = package_sets(loaded) if loaded is not None else ()
    return gather(
        sets,
        loaded,
        lock,
        fetcher,
        reporter,
        locked=locked,
        given=given,
        whole=whole,
        models=models,
        buildroot=GivenBuildroot(buildroot, sources_file),
    )
