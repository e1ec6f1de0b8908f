"""What vLLM's pack is trimmed of: nothing that can be imported is lost, and every native module still loads.

Gigabytes: the CUDA wheels take 4 GB of downloads and 8 GB of disk, their walk two minutes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from hal.cache import Cache
from hal.engines import PackPaths, load_engine
from hal.fetch.fetcher import Fetcher
from hal.fetch.sources import Mirrors
from hal.lock.file import load_lock
from hal.packs.runtime import RuntimePart, fill_tree, leave_out, strip, tree_size
from hal.sandbox import Sandbox

pytestmark = [pytest.mark.large, pytest.mark.slow]

ROOTS = {
    "cpu": ("vllm", "transformers", "xgrammar"),  # torch's own modules for GPUs end the process there
    "cuda": ("vllm", "torch", "triton", "flashinfer", "transformers", "xgrammar", "cutlass", "tilelang"),
}

NATIVE = {"cpu": (), "cuda": ("vllm._C_stable_libtorch",)}
"""vLLM's kernels, besides those that it loads by itself: of the kinds for CPUs, a process bears only one."""

WALK = """
import importlib, json, logging, pkgutil, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
found = {}
def load(name):
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        found[name] = f"{type(error).__name__}: {error}"
    else:
        found[name] = ""
        return module
for root in sys.argv[2:]:
    module = load(root)
    if not hasattr(module, "__path__"):
        continue
    for info in pkgutil.walk_packages(module.__path__, root + ".", onerror=lambda name: None):
        others = info.name.startswith("vllm._C") and info.name not in sys.argv
        if not info.name.endswith("__main__") and ".tests" not in info.name and not others:
            load(info.name)
json.dump(found, open(sys.argv[1], "w"))
"""

LEFT_OUT = ("vllm.benchmarks", "vllm.entrypoints.cli.benchmark")
"""A load generator, and the commands that run it."""

STRAY = ("_test", ".test", "testing")
"""Tests of the packages."""


def stand_in_driver(tree: Path, directory: Path, tools: Sandbox) -> None:
    """A libcuda.so.1, which the driver brings along, with all the functions that the tree's objects name."""
    directory.mkdir(exist_ok=True)
    source = directory / "driver.c"
    objects = [str(path) for path in sorted(tree.glob("lib/**/*.so*")) if path.is_file()]
    listed = tools.run(["nm", "-D", "--undefined-only", *objects], readable=[tree], check=False).stdout
    names = sorted(set(re.findall(r" U (cu[A-Z]\w+)", listed)))
    source.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in names))
    command = ["gcc-14", "-shared", "-fPIC", "-nostdlib", "-w", "-Wl,-soname,libcuda.so.1", str(source)]
    tools.run([*command, "-o", str(directory / "libcuda.so.1")], writable=[directory])


def imported(tree: Path, roots: Iterable[str], tools: Sandbox) -> dict[str, str]:
    """Every module below the roots, with why it cannot be imported, empty where it can."""
    result, driver = tree.parent / "modules.json", tree.parent / "driver"
    libraries = [tree / "python/usr/lib/x86_64-linux-gnu", tree / "python/lib/x86_64-linux-gnu", driver]
    environment = {
        "PYTHONPATH": str(tree / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "HOME": "/tmp",
        "HF_HUB_OFFLINE": "1",
    }
    python = str(tree / "python/usr/bin/python3.11")
    done = tools.run(
        [python, "-c", WALK, str(result), *roots], writable=[tree.parent], env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    found: dict[str, str] = json.loads(result.read_text())
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_trimming_loses_nothing_that_can_be_imported(device: str, tmp_path: Path, tools: Sandbox) -> None:
    lock, engine = load_lock(), load_engine("vllm")
    wheels = lock.wheel_set(f"vllm-{device}", "0.32.0")
    packages = lock.packages("python311")
    files = Fetcher(Cache(), Mirrors.choose(moment=lock.debian.created)).fetch([*wheels, *packages])
    parts = [
        *(RuntimePart("wheel", files[wheel.sha256], wheel.sha256, "lib") for wheel in wheels),
        *(RuntimePart("deb", files[package.sha256], package.sha256, "python") for package in packages),
    ]
    tree = tmp_path / "tree"
    # A build script that two wheels left behind is of no module.
    stray = PackPaths(paths=("lib/build_backend.py",), reason="not the same in both")
    fill_tree(tree, engine.model_copy(update={"strip": (), "leave_out": (stray,)}), parts, tools)
    for file in engine.files:
        if file.path.startswith("python/"):
            (tree / file.path).parent.mkdir(parents=True, exist_ok=True)
            (tree / file.path).write_bytes(Path(file.source).read_bytes())
    stand_in_driver(tree, tree.parent / "driver", tools)
    upstream, size = imported(tree, (*NATIVE[device], *ROOTS[device]), tools), tree_size(tree)
    for entry in engine.leave_out:
        leave_out(tree, entry.paths)
    strip(tree, [path for entry in engine.strip for path in entry.paths], tools)
    trimmed = imported(tree, (*NATIVE[device], *ROOTS[device]), tools)
    print(f"{device}: {len(upstream)} modules, {size / 1e9:.1f} GB, trimmed {tree_size(tree) / 1e9:.1f} GB")
    assert not upstream["vllm.entrypoints.openai.api_server"], "the server itself"
    lost = {
        name: trimmed.get(name, "not there")
        for name, why in upstream.items()
        if not why and trimmed.get(name, "not there")
        if not name.startswith(LEFT_OUT) and not any(word in name for word in STRAY)
    }
    assert not lost
    assert not [trimmed[name] for name in NATIVE[device] if trimmed[name]], "its kernels load"
    if device == "cuda":
        assert not trimmed["cutlass"], "a module path of a .pth file"
