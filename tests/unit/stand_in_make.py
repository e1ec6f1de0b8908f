#!/usr/bin/env python3
"""A stand-in for Buildroot's make: the targets that hal asks for, in seconds, with faults on demand.

It runs outside of any sandbox: HAL_BINDS (JSON) says where the sandbox's directories are. `scenario.json`
in the tree says what there is to build, and what goes wrong:

    packages   {name: {version, needs, seconds, fails (a step), wrong_hash}}
    unknown    symbols that Kconfig does not know
    kernel     symbols that the kernel's Kconfig does not know
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import time
from pathlib import Path

BINDS = {bind["target"]: Path(bind["source"]) for bind in json.loads(os.environ["HAL_BINDS"])}
TREE, OUTPUT, CONFIG = (BINDS[f"/hal/{name}"] for name in ("buildroot", "output", "config"))
SCENARIO = json.loads((TREE / "scenario.json").read_text())
PACKAGES = {"linux": {"version": "6.12"}, **SCENARIO["packages"]}
STEPS = {"extract": "extracted", "patch": "patched", "configure": "configured", "build": "built"}


def directory(name: str) -> Path:
    return OUTPUT / "build" / f"{name}-{PACKAGES[name]['version']}"


def timed(state: str, step: str, name: str) -> None:
    (OUTPUT / "build").mkdir(exist_ok=True)
    with (OUTPUT / "build" / "build-time.log").open("a") as log:
        log.write(f"{time.time():.9f}:{state:5}:{step:20}: {name}\n")


def say(text: str) -> None:
    print(text, flush=True)


def kept(text: str, unknown: list[str]) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if not any(name in line for name in unknown))


def defconfig() -> None:
    (OUTPUT / ".config").write_text(kept((CONFIG / "defconfig").read_text(), SCENARIO.get("unknown", [])))


def show_info() -> None:
    found = {}
    for name, package in PACKAGES.items():
        found[name] = {
            "type": "target",
            "name": name,
            "virtual": False,
            "version": package["version"],
            "package_dir": f"package/{name}",
            "stamp_dir": f"build/{directory(name).name}",
            "dependencies": package.get("needs", []),
            "downloads": [{"source": f"{name}-{package['version']}.tar.gz"}],
        }
    say(json.dumps(found))


def source() -> None:
    for name, package in PACKAGES.items():
        say(f">>> {name} {package['version']} Downloading")
        if package.get("wrong_hash"):
            say(f"ERROR: {name}-{package['version']}.tar.gz has wrong sha256 hash:")
            say("ERROR: expected: aa\nERROR: got: bb")
            say(f"make: *** [package/pkg-generic.mk:189: {inside(name)}/.stamp_downloaded] Error 1")
            sys.exit(2)


def inside(name: str) -> str:
    return f"/hal/output/build/{directory(name).name}"


def configured_kernel() -> None:
    say(">>> linux 6.12 Configuring")
    place = directory("linux")
    (place / "include/config").mkdir(parents=True, exist_ok=True)
    (place / "include/config/kernel.release").write_text("6.12-hal\n")
    for stamp in ("extracted", "patched"):
        (place / f".stamp_{stamp}").touch()
    texts = [file.read_text() for file in sorted(CONFIG.iterdir()) if file.name.startswith(("linux", "spec"))]
    (place / ".config").write_text(kept("".join(texts), SCENARIO.get("kernel", [])))


def build(name: str) -> None:
    package, place = PACKAGES[name], directory(name)
    if (place / ".stamp_installed").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "per-package" / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for step, stamp in STEPS.items():
        if (place / f".stamp_{stamp}").exists():
            continue
        timed("start", step, name)
        lines += [f">>> {name} {package['version']} {step}", f"{name}: working on it"]
        if step == "build":
            (place / "half.o").write_text("half")
            time.sleep(package.get("seconds", 0))
        if package.get("fails") == step:
            lines += [f"{name}.c:1: error: this cannot be"]
            say("\n".join(lines))
            say(f"make: *** [package/pkg-generic.mk:273: {inside(name)}/.stamp_{stamp}] Error 1")
            sys.exit(2)
        with (OUTPUT / "done.log").open("a") as log:
            log.write(f"{name} {step}\n")
        (place / f".stamp_{stamp}").touch()
        timed("end", step, name)
    timed("start", "install-target", name)
    (place / ".stamp_installed").touch()
    timed("end", "install-target", name)
    say("\n".join(lines))


def everything() -> None:
    for name in PACKAGES:
        build(name)
    images = OUTPUT / "images"
    images.mkdir(exist_ok=True)
    (images / "bzImage").write_bytes(b"a kernel")
    root = OUTPUT / "root"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/packages").write_text("".join(f"{name} {p['version']}\n" for name, p in PACKAGES.items()))
    with tarfile.open(images / "rootfs.tar", "w") as archive:
        archive.add(root, ".")


def main() -> None:
    with (OUTPUT / "asked.log").open("a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    target = sys.argv[-1]
    if target.endswith(".stamp_kconfig_fixup_done"):
        configured_kernel()
    else:
        {"defconfig": defconfig, "show-info": show_info, "source": source, "all": everything}[target]()


if __name__ == "__main__":
    main()
