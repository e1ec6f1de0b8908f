"""From a spec to `build/<name>/`: every stage takes the values before it and hands on a new one.

    lock ─fetch→ blobs ─┬→ tools tree (sandbox)
                        ├→ base tree, kernel, initrd ┐
                        └→ packs ── render ──────────┴→ root image → command line → UKI → disk

The finished directory takes its place in one rename; until then, and whenever a stage fails, the last good
one stays as it is.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hal
from hal.bases import Base, buildroot, debian
from hal.cache import Cache, remove_tree
from hal.errors import HalError
from hal.image.disk import DISK, command_line, disk_image, pack_disk, pack_disk_name, unified_kernel_image
from hal.image.kernel import initrd
from hal.image.root import RootImage, root_image, services_tree
from hal.inputs import Inputs
from hal.measure import document
from hal.measure.compute import Files, of_build
from hal.models import Model
from hal.packs.build import Pack, engine_pack, model_pack, model_pack_is_cached
from hal.progress import Reporter
from hal.records import NAMES as RECORDS
from hal.records import Records
from hal.render import Rendered, render
from hal.render.manifest import PATH as MANIFEST_INSIDE
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, Spec
from hal.tools import tools_tree
from hal.trees import file_digests, inputs_digest

RECIPE = "5"
"""Changes when an output changes for a reason that no other digest holds."""

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
ARTEFACTS = (DISK, "vmlinuz", "initrd", "cmdline", "uki.efi", document.NAME, MANIFEST, *RECORDS)

AT_FDCWD = -100
RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class Built:
    """A finished build: its directory, its manifest, and whether there was anything to do."""

    directory: Path
    manifest: Mapping[str, Any]
    fresh: bool


@dataclass(frozen=True)
class Parts:
    """What a root and a disk are made of: each part complete in the cache, named by its inputs."""

    base: Base
    initrd: Path
    packs: tuple[Pack, ...]
    services: Path
    records: Records


def image_id(spec: Spec) -> str:
    """The name of this image and version: the seed of its identifiers and the label of its root partition."""
    return f"{spec.appliance.name}_{spec.appliance.version}"


def base_sets(loaded: LoadedSpec) -> tuple[str, ...]:
    """The package sets of the lock that make this appliance's root, where its base is Debian."""
    spec, sysv = loaded.spec, loaded.spec.init == "sysv"
    return (
        "sysv" if sysv else "base",
        *(("sysv-debug" if sysv else "debug",) if spec.variant == "debug" else ()),
        *(("sysv-provision" if sysv else "provision",) if models_arrive(loaded) else ()),
    )


def models_arrive(loaded: LoadedSpec) -> bool:
    """Whether some model is not in the image, so that the appliance needs a provisioner."""
    return any(not model.packed for model in loaded.models)


def package_sets(loaded: LoadedSpec) -> tuple[str, ...]:
    """All package sets of the lock that a build of this spec reads."""
    if loaded.spec.base == "buildroot":
        return ("tools", *buildroot.PACKAGE_SETS)
    return ("tools", *base_sets(loaded), "kernel")


def file_of(pack: Pack, loaded: LoadedSpec) -> str:
    """The file of a build that a pack is in: the appliance's disk, or a disk of the model's own."""
    own = any(model.delivery == "disk" and model.name == pack.ref.name for model in loaded.models)
    return pack_disk_name(pack.ref.name) if own and pack.ref.kind == "model" else DISK


def build(loaded: LoadedSpec, out: Path, inputs: Inputs, reporter: Reporter) -> Built:
    """Build everything of a spec into `out/<name>/`; `inputs` hold the sets of `package_sets`.

    Raises:
        HalError: a stage failed; the last good output is as it was.
    """
    spec = loaded.spec
    tools = prepare_tools(inputs, reporter)
    parts = _parts(loaded, inputs, tools, reporter)
    rendered = render(loaded, [pack.ref for pack in parts.packs], inputs.epoch)
    fingerprint = _fingerprint(spec, parts, rendered, tools, inputs)
    target = out / spec.appliance.name
    if (current := _current(target, fingerprint)) is not None:
        return Built(target, current, fresh=False)
    work = Cache(out / ".work", "give `--out`")
    with work.lock(spec.appliance.name):
        old = _old(work, target)
        _recover(old, target)
        # Another build of this spec may have ended while this one waited for it.
        if (current := _current(target, fingerprint)) is not None:
            return Built(target, current, fresh=False)
        with work.temporary(spec.appliance.name) as directory:
            manifest = _assemble(loaded, parts, rendered, fingerprint, directory, inputs, tools, reporter)
            _publish(directory, target, old)
    return Built(target, manifest, fresh=True)


def prepare_tools(inputs: Inputs, reporter: Reporter) -> Sandbox:
    """The tools tree."""
    with reporter.step("tools tree"):
        return tools_tree(inputs.lock.packages("tools"), inputs.blobs, inputs.cache, inputs.epoch)


def _parts(loaded: LoadedSpec, inputs: Inputs, tools: Sandbox, reporter: Reporter) -> Parts:
    """Make (or find in the cache) every part, those that do not depend on each other side by side."""

    def packs() -> tuple[Pack, ...]:
        return make_packs(loaded, inputs, tools, reporter)

    with ThreadPoolExecutor() as pool:
        packs_job = pool.submit(packs)
        # Not in the pool: Ctrl-C reaches the main thread only, and a Buildroot build has to be ended by it.
        base = _base(loaded, inputs, tools, reporter)
        with reporter.step("initrd"):
            archive = initrd(base.kernel, loaded.spec.tee, tools, inputs.cache)
        services = services_tree(tools, inputs.cache, provisioner=models_arrive(loaded))
        made = packs_job.result()
    records = Records.of(loaded, inputs, tools, base, services, made, package_sets(loaded))
    return Parts(base, archive, made, services, records)


def _base(loaded: LoadedSpec, inputs: Inputs, tools: Sandbox, reporter: Reporter) -> Base:
    """What the spec's base hands on."""
    if loaded.spec.base == "buildroot":
        return buildroot.base(loaded, inputs, tools, reporter)
    return debian.base(base_sets(loaded), inputs, tools, reporter)


def make_packs(loaded: LoadedSpec, inputs: Inputs, tools: Sandbox, reporter: Reporter) -> tuple[Pack, ...]:
    """Make (or find in the cache) the packs of a spec: its engines', then its models'."""
    found = []
    for engine in loaded.engines:
        runtime = inputs.runtime(loaded, engine)
        with reporter.step(f"engine pack {engine.name}"):
            found.append(engine_pack(engine, runtime, tools, inputs.cache))
    for model in (model for model in loaded.models if model.packed):
        found.append(make_model_pack(model, loaded.path.parent, inputs, tools, reporter))
    return tuple(found)


def make_model_pack(
    model: Model, directory: Path, inputs: Inputs, tools: Sandbox, reporter: Reporter
) -> Pack:
    """Make (or find in the cache) a model's pack; `directory` is where relative paths of files begin."""
    cached = model_pack_is_cached(model, tools.epoch, inputs.cache)
    files = {} if cached else inputs.model_files(model, directory)
    with reporter.step(f"model pack {model.name}"):
        return model_pack(model, files, tools, inputs.cache)


def bill_of_materials(loaded: LoadedSpec, inputs: Inputs, reporter: Reporter) -> str:
    """An appliance's bill of materials, the same as in its build, made without building the image."""
    parts = _parts(loaded, inputs, prepare_tools(inputs, reporter), reporter)
    return parts.records.bill(image_id(loaded.spec))


def provenance(loaded: LoadedSpec, out: Path, inputs: Inputs, reporter: Reporter) -> str:
    """The provenance of a build in `out`, built where that is due: of every file, however large."""
    built = build(loaded, out, inputs, reporter)
    parts = _parts(loaded, inputs, prepare_tools(inputs, reporter), reporter)
    with reporter.step("hashing the artefacts"):
        return parts.records.statement(built.directory, built.manifest["fingerprint"], whole=True)


def _fingerprint(spec: Spec, parts: Parts, rendered: Rendered, tools: Sandbox, inputs: Inputs) -> str:
    """The digest of everything that the outputs follow from."""
    files = [f"{name} {file.kind} {file.mode:o} {file.content}" for name, file in sorted(rendered.items())]
    trees = [
        parts.base.name,
        parts.services.name,
        parts.initrd.parent.name,
        parts.base.kernel.release,
        tools.tree.name,
    ]
    packs = [json.dumps(asdict(pack.ref)) for pack in parts.packs]
    return inputs_digest(
        RECIPE,
        hal.__version__,
        json.dumps(spec.model_dump(mode="json"), sort_keys=True),
        *trees,
        *packs,
        *files,
        parts.records.digest,
        *map(str, inputs.substitutions),
    )


def _current(target: Path, fingerprint: str) -> Mapping[str, Any] | None:
    """The manifest in `target` if what lies there was made from the same inputs and is all there."""
    try:
        manifest: Mapping[str, Any] = json.loads((target / MANIFEST).read_text())
        sizes = {name: artefact["size"] for name, artefact in manifest["artefacts"].items()}
        # The provenance is not among them: it holds the manifest's digest.
        there = all((target / name).stat().st_size == size for name, size in sizes.items())
        if manifest["fingerprint"] == fingerprint and there and (target / RECORDS[1]).exists():
            return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # absent, of another version of hal, or damaged: it is built anew
    return None


def _assemble(
    loaded: LoadedSpec,
    parts: Parts,
    rendered: Rendered,
    fingerprint: str,
    directory: Path,
    inputs: Inputs,
    tools: Sandbox,
    reporter: Reporter,
) -> Mapping[str, Any]:
    spec, seed = loaded.spec, image_id(loaded.spec)
    with ThreadPoolExecutor() as pool:
        bill = pool.submit(parts.records.bill, seed)
        with reporter.step("root image"):
            root = root_image(
                parts.base.tree,
                rendered,
                mountpoints=[pack.ref.mountpoint for pack in parts.packs],
                seed=seed,
                compression=spec.disk.compression,
                directory=directory,
                tools=tools,
                services=parts.services,
            )
    (directory / RECORDS[0]).write_text(bill.result())
    state, silent = spec.disk.state > 0, parts.base.kernel.silent
    cmdline = command_line(spec.arch, spec.variant, seed, root, state=state, silent=silent)
    (directory / "cmdline").write_text(cmdline + "\n")
    with reporter.step("unified kernel image"):
        os_release = rendered["/usr/lib/os-release"].content
        uki = unified_kernel_image(parts.base.kernel, parts.initrd, cmdline, os_release, directory, tools)
        shutil.copyfile(parts.base.kernel.image, directory / "vmlinuz")
        shutil.copyfile(parts.initrd, directory / "initrd")
    with reporter.step("disk image"):
        disk_image(
            arch=spec.arch,
            seed=seed,
            root=root,
            uki=uki,
            packs=[pack for pack in parts.packs if file_of(pack, loaded) == DISK],
            state_size=spec.disk.state,
            directory=directory,
            tools=tools,
        )
        for pack in parts.packs:
            if (name := file_of(pack, loaded)) != DISK:
                pack_disk(pack, directory / name, tools)
    with reporter.step("measurements"):
        image = document.Image(
            name=spec.appliance.name,
            version=spec.appliance.version,
            variant=spec.variant,
            debug=spec.variant == "debug",
        )
        packs = [pack.ref for pack in parts.packs]
        inside, files = rendered[MANIFEST_INSIDE].content, Files.of(directory, tools.tree)
        measured = of_build(image, root.verity.root_hash, packs, inside, files)
        (directory / document.NAME).write_text(measured.text())
    manifest = _manifest(loaded, parts, root, cmdline, fingerprint, directory, inputs)
    root.image.unlink()
    root.tree.unlink()
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    with reporter.step("provenance"):
        (directory / RECORDS[1]).write_text(parts.records.statement(directory, fingerprint, reporter))
    directory.chmod(0o755)
    return manifest


def _manifest(
    loaded: LoadedSpec,
    parts: Parts,
    root: RootImage,
    cmdline: str,
    fingerprint: str,
    directory: Path,
    inputs: Inputs,
) -> dict[str, Any]:
    """What was built and from what. It holds no time and no path: equal builds have equal manifests."""
    spec = loaded.spec
    small = ["vmlinuz", "initrd", "cmdline", "uki.efi", document.NAME, RECORDS[0]]
    digests = dict(zip(small, file_digests(directory / name for name in small), strict=True))
    disks = list(dict.fromkeys([DISK, *(file_of(pack, loaded) for pack in parts.packs)]))
    sizes = {name: (directory / name).stat().st_size for name in [*small, *disks]}
    return {
        "schema": MANIFEST_SCHEMA,
        "hal": hal.__version__,
        "fingerprint": fingerprint,
        "image": image_id(spec),
        "spec": spec.model_dump(mode="json"),
        "cmdline": cmdline,
        "kernel": parts.base.kernel.release,
        "root": {**asdict(root.verity), "size": root.image.stat().st_size},
        "packs": [
            {**asdict(pack.ref), "size": pack.path.stat().st_size, "disk": file_of(pack, loaded)}
            for pack in parts.packs
        ],
        "artefacts": {
            name: {"size": sizes[name], **({"sha256": digests[name]} if name in digests else {})}
            for name in sizes
        },
        "packages": dict(parts.base.packages),
        "substitutions": [asdict(item) for item in inputs.substitutions],
    }


def _publish(directory: Path, target: Path, old: Path) -> None:
    """Put a finished directory in its place, in one step where the file system can exchange two names.

    Where it cannot, `old` has the last good output for a moment; a build that is killed in that moment is
    mended by `_recover`.
    """
    if not target.exists():
        directory.rename(target)
    elif not _exchange(directory, target):
        target.rename(old)
        directory.rename(target)
        remove_tree(old)


def _old(work: Cache, target: Path) -> Path:
    """Where the last good output is while a new one takes its place in two steps."""
    return work.root / f"{target.name}.old"


def _recover(old: Path, target: Path) -> None:
    """Put back the last good output that a killed build had moved aside, or remove it when it has served."""
    if old.exists() and not target.exists():
        old.rename(target)
    remove_tree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically (renameat2(2)); False where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(
        libc.renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0
    )


def required_artefacts(directory: Path, names: Sequence[str] = ARTEFACTS) -> None:
    """Check that a build is all there.

    Raises:
        HalError: a file is missing; build it first.
    """
    missing = [name for name in names if not (directory / name).exists()]
    if missing:
        raise HalError(f"{directory}: {', '.join(missing)} missing", "build it first: `hal build SPEC`")
