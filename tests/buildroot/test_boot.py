"""What plain Buildroot has made boots without an initrd, answers, and does not boot when it was altered.

Needs the images of a build of hal_x86_64_defconfig or of the SysV one: HAL_BUILDROOT_IMAGES=DIR.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from hal.machine.qemu import free_port

SECONDS = 420
"""Until an answer of the real model where floating point is emulated."""

MIB = 1024 * 1024
ROOT_START = MIB
"""The root is the first partition of the disk."""


@pytest.fixture(scope="module")
def images() -> Path:
    given = os.environ.get("HAL_BUILDROOT_IMAGES", "")
    if not given:
        pytest.skip("no images of plain Buildroot: HAL_BUILDROOT_IMAGES=DIR")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("start-qemu.sh needs qemu-system-x86_64: apt install qemu-system-x86")
    return Path(given).resolve()


class Machine:
    """A machine that start-qemu.sh has started."""

    def __init__(self, images: Path, log: Path) -> None:
        self.log, self.port = log, free_port()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [str(images / "start-qemu.sh")],
            env={**os.environ, "PORT": str(self.port), "SSH_PORT": str(free_port())},
            stdin=subprocess.DEVNULL,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )

    @property
    def text(self) -> str:
        """What it has written to its serial port."""
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> requests.Response | None:
        """An answer of the gateway, or None while there is none."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=30)
        except requests.RequestException:
            return None

    def wait_healthy(self) -> float:
        """Until an engine serves; the seconds since QEMU's start."""
        while time.monotonic() < self.started + SECONDS:
            assert self.process.poll() is None, self.text[-2000:]
            if (answer := self.get("/health")) is not None and answer.status_code == 200:
                return time.monotonic() - self.started
            time.sleep(1)
        pytest.fail(f"no engine within {SECONDS} s\n{self.text[-2000:]}")


@contextmanager
def booted(images: Path, log: Path) -> Iterator[Machine]:
    machine = Machine(images, log)
    try:
        yield machine
    finally:
        machine.process.kill()
        machine.process.wait()


@pytest.mark.slow
def test_it_boots_and_answers_a_chat_request(images: Path, tmp_path: Path) -> None:
    with booted(images, tmp_path / "serial") as machine:
        machine.wait_healthy()
        answer = requests.post(
            f"http://127.0.0.1:{machine.port}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "temperature": 0},
            timeout=SECONDS,
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        status = machine.get("/api/v1/inference/status")
        assert status is not None and status.json()["model"] == "smollm2-135m"
        assert "login:" not in machine.text


@pytest.mark.slow
def test_an_altered_root_does_not_boot(images: Path, tmp_path: Path) -> None:
    for name in ("bzImage", "cmdline", "start-qemu.sh"):
        shutil.copy(images / name, tmp_path / name)
    shutil.copy(images / "disk.img", tmp_path / "disk.img")
    with (tmp_path / "disk.img").open("r+b") as disk:
        disk.seek(ROOT_START + 1024 + 8)  # in the superblock, which is read first
        byte = disk.read(1)
        disk.seek(-1, os.SEEK_CUR)
        disk.write(bytes([byte[0] ^ 1]))
    with booted(tmp_path, tmp_path / "serial") as machine:
        assert machine.process.wait(120) == 0
        assert re.search(r"dm-verity device corrupted|verity: .* is corrupted", machine.text)
        assert "hal-init: root: ok" not in machine.text
