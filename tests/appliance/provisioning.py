"""What tests of provisioning share: models, a mirror on this host, and looks at a state partition.

A guest reaches this host's loopback as 10.0.2.2 (QEMU's user network).
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host

from hal.sandbox import Sandbox
from tests.appliance.conftest import Appliance
from tests.appliance.test_tampering import partition
from tests.misbehaving.registry import Tag
from tests.misbehaving.server import Fault, MisbehavingServer

HOST = "10.0.2.2"
MIB = 1 << 20

SPEC = """\
appliance: {{name: {name}, version: 1.0.0}}
variant: debug
init: {init}
engines: {engines}
disk: {{state: {state}}}
provision:
  first_backoff: 1
  cap: 4
  stall: 10
  mirrors: {{https: ['{url}/files'], ollama: ['{url}'], only: {only}}}
{provision}models:
"""


@dataclass(frozen=True)
class Model:
    """A model with the content of its files, in the order of a spec.

    `url` is where they come from: by default, nowhere but a mirror. `tag` is for one of Ollama's registry.
    """

    name: str
    files: Mapping[str, bytes]
    url: str = "https://models.example"
    tag: Tag | None = None
    delivery: str = "network"

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def entry(self) -> str:
        """Its place in a spec."""
        files = [
            {"name": name, "size": len(content), "sha256": digest(content), "source": self._source(name)}
            for name, content in self.files.items()
        ]
        form = "ollama" if self.tag else "gguf"
        data = {"name": self.name, "format": form, "delivery": self.delivery, "files": files}
        return f"  - {json.dumps(data)}\n"

    def _source(self, name: str) -> dict[str, str]:
        if self.tag:
            return {"kind": "ollama", "model": self.tag.model, "tag": self.tag.tag}
        return {"kind": "https", "url": f"{self.url}/{self.name}/{name}"}


def ollama_model(name: str, tag: Tag) -> Model:
    """A model as Ollama's registry has it."""
    blobs = {f"blobs/sha256-{sha256}": content for sha256, content in tag.blobs.items()}
    return Model(name, {"manifest.json": tag.manifest, **blobs}, tag=tag)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def padded(weights: bytes, size: int, seed: str) -> bytes:
    """The same weights in a larger file, which engines take as well."""
    return weights + random.Random(seed).randbytes(size - len(weights))


class Mirror:
    """A mirror for models, as fast or as slow as a test wants it."""

    def __init__(self, server: MisbehavingServer) -> None:
        self.server = server
        self.url = server.url = f"http://{HOST}:{server.url.rpartition(':')[2]}"

    def add(self, *models: Model) -> None:
        for model in models:
            for content in model.files.values():
                self.server.files[f"/files/{digest(content)}"] = content

    def pace(self, bytes_per_second: float | None) -> None:
        """How fast each answer is from now on; None: as fast as it goes."""
        drip = Fault("drip", pace=bytes_per_second) if bytes_per_second else None
        self.server.always = drip

    def sent(self, model: Model) -> int:
        """Bytes of a model's files that have been sent."""
        return sum(self.server.sent[f"/files/{digest(content)}"] for content in model.files.values())

    def spec(
        self,
        name: str,
        *models: Model,
        engines: str = "[llamacpp]",
        init: str = "systemd",
        state: str = "160M",
        only: bool = True,
        provision: str = "",
    ) -> str:
        """A spec; `provision` are further lines of that block."""
        text = SPEC.format(
            name=name,
            engines=engines,
            init=init,
            state=state,
            url=self.url,
            only=str(only).lower(),
            provision=provision,
        )
        return text + "".join(model.entry for model in models)


def provision_status(host: Host) -> dict[str, dict[str, Any]]:
    """status.json, by model; empty before it is first written."""
    done = host.run("cat /run/hal/provisioner/status.json")
    found = json.loads(done.stdout) if done.rc == 0 else {"models": []}
    return {model["name"]: model for model in found["models"]}


def wait_status(
    appliance: Appliance,
    host: Host,
    good: Callable[[dict[str, dict[str, Any]]], bool],
    what: str,
    seconds: float = 30,
) -> dict[str, dict[str, Any]]:
    """The status once it is as wanted."""
    seen: list[dict[str, dict[str, Any]]] = []

    def probe() -> bool:
        seen.append(provision_status(host))
        return bool(seen[-1]) and good(seen[-1])

    appliance.vm.wait(probe, appliance.deadline(seconds), what)
    return seen[-1]


def unplugged(appliance: Appliance) -> None:
    """Pull the network cable, as soon as QEMU listens."""

    def done() -> bool:
        try:
            appliance.vm.set_link(False)
        except OSError:
            return False
        return True

    appliance.vm.wait(done, appliance.deadline(5), "QEMU's monitor")


def active_since(host: Host, unit: str) -> float:
    """When a unit became active, in seconds since the guest's kernel began."""
    return int(host.check_output(f"systemctl show -P ActiveEnterTimestampMonotonic {unit}")) / 1e6


class StatePartition:
    """The state partition of a disk that no machine runs from, looked at from this host."""

    def __init__(self, disk: Path, tools: Sandbox) -> None:
        self.disk, self.tools = disk, tools
        self.offset = partition(disk, "state", tools)

    def copy(self, target: Path) -> Path:
        """The file system as a file of its own, sparse."""
        command = 'dd if="$1" of="$2" bs=1M iflag=skip_bytes skip="$3" conv=sparse status=none'
        self.tools.run(
            ["sh", "-euc", command, "copy", str(self.disk), str(target), str(self.offset)],
            readable=[self.disk],
            writable=[target.parent],
        )
        return target

    def replace(self, source: Path) -> None:
        """Put another file system in its place."""
        command = 'dd if="$1" of="$2" bs=1M oflag=seek_bytes seek="$3" conv=notrunc status=none'
        self.tools.run(
            ["sh", "-euc", command, "replace", str(source), str(self.disk), str(self.offset)],
            readable=[source],
            writable=[self.disk],
        )

    def visible(self, name: str, scratch: Path) -> dict[str, str]:
        """The files that engines would see of a model, each with its digest; nothing where it is not there.

        The journal is replayed first, as a mount does.
        """
        image, found = self.copy(scratch / "state.img"), scratch / "found"
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir()
        command = 'e2fsck -p "$1" >/dev/null || [ $? -le 1 ]; debugfs -R "rdump /models $2" "$1"'
        done = self.tools.run(["sh", "-c", command, "look", str(image), str(found)], writable=[scratch])
        link = found / "models" / name
        image.unlink()
        if not link.is_symlink():
            return {}
        assert link.exists(), f"a link that leads nowhere: {link.readlink()}: {done.stderr}"
        return {
            str(file.relative_to(link)): digest(file.read_bytes())
            for file in sorted(link.rglob("*"))
            if file.is_file()
        }


def pins(model: Model) -> dict[str, str]:
    """What a whole model looks like to `StatePartition.visible`."""
    return {name: digest(content) for name, content in model.files.items()}
