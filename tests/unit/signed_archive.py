"""A tiny Debian archive with a real signature, for tests of resolution: apt reads it like Debian's own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

needed = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("gpg") and shutil.which("gpgv")),
    reason="apt, gpg and gpgv are not on this machine",
)


@dataclass(frozen=True)
class Package:
    """A package of the archive: its relations as in a control file."""

    name: str
    version: str = "1"
    depends: str = ""
    essential: bool = False
    recommends: str = ""

    @property
    def path(self) -> str:
        version = self.version.partition(":")[2] or self.version
        return f"pool/main/{self.name[0]}/{self.name}/{self.name}_{version}_amd64.deb"

    @property
    def content(self) -> bytes:
        """Not a real package: nothing here unpacks it."""
        return f"{self.name} {self.version}".encode()

    @property
    def stanza(self) -> str:
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "amd64",
            "Maintainer": "Nobody <nobody@example.invalid>",
            "Essential": "yes" if self.essential else "",
            "Depends": self.depends,
            "Recommends": self.recommends,
            "Filename": self.path,
            "Size": str(len(self.content)),
            "SHA256": hashlib.sha256(self.content).hexdigest(),
            "Description": self.name,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


class Signer:
    """A key of its own, made in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._home = directory / "gnupg"
        self._home.mkdir(mode=0o700)
        self._gpg("--quick-gen-key", "archive@example.invalid", "ed25519", "sign", "never")
        self.keyring = directory / "keyring.gpg"
        self.keyring.write_bytes(self._gpg("--export"))

    def sign(self, text: str) -> bytes:
        return self._gpg("--clearsign", "--digest-algo", "SHA512", input=text.encode())

    def _gpg(self, *arguments: str, input: bytes | None = None) -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--quiet", "--passphrase", "", *arguments]
        try:
            return subprocess.run(command, input=input, check=True, capture_output=True).stdout
        finally:  # gpg starts an agent and leaves it
            subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "gpg-agent"], check=False)


def archive_files(signer: Signer, root: str, suites: Mapping[str, list[Package]]) -> dict[str, bytes]:
    """The files of an archive under `root`: for each suite its packages."""
    files: dict[str, bytes] = {}
    for suite, packages in suites.items():
        index = "\n".join(package.stanza for package in packages).encode()
        release = (
            f"Origin: Test\nLabel: Test\nSuite: {suite}\nCodename: {suite}\nDate: {formatdate(usegmt=True)}\n"
            f"Architectures: amd64\nComponents: main\nSHA256:\n"
            f" {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-amd64/Packages\n"
        )
        files[f"{root}/dists/{suite}/main/binary-amd64/Packages"] = index
        files[f"{root}/dists/{suite}/InRelease"] = signer.sign(release)
        files |= {f"{root}/{package.path}": package.content for package in packages}
    return files
