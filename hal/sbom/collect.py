"""What a build's parts are made of, put together; each piece is cached under what it follows from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from packageurl import PackageURL

import hal
from hal.bases import Base
from hal.image.root import INSTALLED
from hal.inputs import Inputs
from hal.lock.file import DebianPackage
from hal.packs.build import PROJECT, Pack
from hal.run import run
from hal.sandbox import Sandbox
from hal.sbom import buildroot, debian
from hal.sbom.component import APPLIANCE, OWN_LICENCE, Component, Contents, refs
from hal.sbom.engines import engine_parts, pack_of
from hal.sbom.kept import kept
from hal.sbom.models import model_parts
from hal.spec.loading import LoadedSpec
from hal.trees import file_digests, inputs_digest

SYSTEM, BOOT, SERVICES = "system", "boot", "services"
"""What the references of the base's, the boot's and hal's own parts begin with."""

SHOW_INFO, HASHES, CONFIG = "show-info.json", "source-hashes.json", "buildroot.config"
"""What a Buildroot base has beside its root tree."""

LIBRARIES = {
    "libatomic1": "libatomic.so.1",
    "libc6": "libc.so.6",
    "libgcc-s1": "libgcc_s.so.1",
    "libgomp1": "libgomp.so.1",
    "libstdc++6": "libstdc++.so.6",
}
"""Packages of a Buildroot toolchain that have something in the root, each with a file that tells so."""

BOOT_PACKAGES = {"musl-dev": "init", "systemd-boot-efi": "uki"}
"""Packages of the tools tree of which every image has something: its init's libc, its UKI's stub."""


def contents(
    loaded: LoadedSpec,
    inputs: Inputs,
    tools: Sandbox,
    *,
    base: Base,
    services: Path,
    packs: Sequence[Pack],
    sets: Sequence[str],
) -> Contents:
    """All parts of an appliance, out of what its image is made of; nothing of them has to be unpacked again.

    `services` is the tree of hal's own programs, `sets` are the lock's that the build reads, its base's too.
    """
    spec, lock = loaded.spec, inputs.lock
    kernel: tuple[DebianPackage, ...] = ()
    if spec.base == "buildroot":
        system = buildroot_system(base, inputs)
    else:
        packages = dict.fromkeys(item for name in sets for item in lock.packages(name))
        system = _debian_system(base, list(packages), inputs)
        kernel = lock.packages("kernel")
    boot = _boot(kernel, inputs)
    own = _services(services, inputs)
    engines = [
        part
        for engine in loaded.engines
        for part in engine_parts(engine, pack_of(packs, "engine", engine.name), loaded, inputs, tools)
    ]
    models = [part for model in loaded.models for part in model_parts(model, packs, inputs.cache)]
    found = [*system, *boot, *own, *engines, *models]
    tops = sorted(_tops(found))
    whole = Component(
        APPLIANCE,
        "application",
        spec.appliance.name,
        spec.appliance.version,
        properties=(
            ("hal:base", spec.base),
            ("hal:kernel", base.kernel.release),
            ("hal:variant", spec.variant),
        ),
        depends=tuple(tops),
    )
    return Contents((whole, *found))


def _tops(components: Iterable[Component]) -> set[str]:
    """References that nothing else depends on."""
    listed = list(components)
    return {part.ref for part in listed} - {needed for part in listed for needed in part.depends}


def _debian_system(base: Base, packages: Sequence[DebianPackage], inputs: Inputs) -> tuple[Component, ...]:
    suite = inputs.lock.debian.suite

    def make() -> tuple[Component, ...]:
        parts = debian.components(base.tree, packages, suite, SYSTEM)
        version = (base.tree / "etc/debian_version").read_text().strip()
        whole = Component(
            SYSTEM,
            "operating-system",
            "debian",
            version,
            properties=(("hal:suite", suite),),
            depends=refs(parts),
        )
        return (whole, *parts)

    rows = sorted(f"{package.package} {package.version} {package.sha256}" for package in packages)
    return kept("system", inputs.cache, [base.name, suite, *rows], make)


def buildroot_system(base: Base, inputs: Inputs) -> tuple[Component, ...]:
    """The parts of a Buildroot root: its packages, and what its toolchain has put there."""
    home = base.tree.parent
    toolchain = inputs.lock.packages("br-toolchain")

    def make() -> tuple[Component, ...]:
        info = json.loads((home / SHOW_INFO).read_text())
        built = buildroot.buildroot_components(info, downloads(base), SYSTEM)
        parts = (*built, *_toolchain_libraries(base.tree, toolchain, inputs))
        version = buildroot.release((home / CONFIG).read_text())
        return (Component(SYSTEM, "operating-system", "buildroot", version, depends=refs(parts)), *parts)

    rows = sorted(f"{package.package} {package.sha256}" for package in toolchain)
    return kept("system", inputs.cache, [base.name, *rows], make)


def _toolchain_libraries(
    tree: Path, toolchain: Sequence[DebianPackage], inputs: Inputs
) -> Iterable[Component]:
    """The libraries that Buildroot has copied out of its toolchain, which is made of Debian's packages."""
    suite, there = inputs.lock.debian.suite, [tree / "usr/lib", tree / "lib"]
    for package in toolchain:
        library = LIBRARIES.get(package.package)
        if library and any((folder / library).exists() for folder in there):
            yield _package(package, inputs.blobs[package.sha256], suite, SYSTEM)


def downloads(base: Base) -> buildroot.Hashes:
    """What a Buildroot base was built from; nothing for a base of packages."""
    hashes = base.tree.parent / HASHES
    known: buildroot.Hashes = json.loads(hashes.read_text()) if hashes.exists() else {}
    return known


def _boot(kernel: Sequence[DebianPackage], inputs: Inputs) -> tuple[Component, ...]:
    """The kernel, where it is a package, and what of the tools tree is in the initrd and the UKI."""
    tools = [package for package in inputs.lock.packages("tools") if package.package in BOOT_PACKAGES]
    suite = inputs.lock.debian.suite
    sources = sorted((PROJECT / "services/init").glob("*.[ch]"))
    digest = inputs_digest(*file_digests(sources))

    def make() -> tuple[Component, ...]:
        found = [
            _package(package, inputs.blobs[package.sha256], suite, BOOT) for package in (*kernel, *tools)
        ]
        libc = tuple(f"{BOOT}/{name}" for name, use in BOOT_PACKAGES.items() if use == "init")
        init = _own("hal-init", digest, BOOT, depends=libc)
        return (*found, init)

    rows = [f"{package.package} {package.sha256}" for package in (*kernel, *tools)]
    return kept("boot", inputs.cache, [suite, digest, hal.__version__, *rows], make)


def _package(pinned: DebianPackage, file: Path, suite: str, place: str) -> Component:
    """A package that is nowhere installed: its file says what dpkg's database would."""
    fields = run(["dpkg-deb", "--field", str(file)], what=f"reading {pinned.name}").stdout
    path = f"./usr/share/doc/{pinned.package}/copyright"
    script = 'dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout --file=- "$2"'
    # Not every package has the file: a link to another package's stands in its place.
    found = run(["sh", "-c", script, "sh", str(file), path], check=False, what=f"reading {pinned.name}")
    return debian.component(debian.control(fields), found.stdout, pinned, suite, place)


def _services(tree: Path, inputs: Inputs) -> tuple[Component, ...]:
    """hal's own programs in the root, one part for each folder, and one for what lies in none."""

    def make() -> tuple[Component, ...]:
        home = tree / INSTALLED
        sources: dict[str, list[Path]] = {}
        for file in sorted(home.rglob("*.py")):
            folder = file.relative_to(home).parts[0] if file.parent != home else "services"
            sources.setdefault(folder, []).append(file)
        return tuple(_of_sources(f"hal-{name}", home, files) for name, files in sorted(sources.items()))

    return kept("services", inputs.cache, [tree.name, hal.__version__], make)


def _of_sources(name: str, home: Path, files: Sequence[Path]) -> Component:
    names = [str(file.relative_to(home)) for file in files]
    return _own(name, inputs_digest(*names, *file_digests(files)), SERVICES)


def _own(name: str, digest: str, place: str, *, depends: tuple[str, ...] = ()) -> Component:
    """A program of hal's: `digest` is over its sources."""
    return Component(
        f"{place}/{name}",
        "application",
        name,
        hal.__version__,
        purl=PackageURL("generic", None, name, hal.__version__).to_string(),
        licence=OWN_LICENCE,
        properties=(("hal:sources-digest", digest),),
        depends=depends,
    )
