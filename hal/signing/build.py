"""Signing a finished build with keys that the user gives, into a directory of its own.

Two keys, either or both: one for UEFI secure boot, which firmware asks of the UKI; one for the documents
that tell others what was built. hal makes no key, and signs nothing unless it is told to. Equal builds and
keys give equal bytes: signing times are the lock's.

What a machine measures stays: the digest of an EFI program leaves its signatures out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from hal import provenance
from hal.build import MANIFEST, required_artefacts
from hal.cache import Cache
from hal.errors import HalError, UsageError
from hal.image.disk import DISK, replace_uki
from hal.inputs import Inputs
from hal.measure import document, pe
from hal.sandbox import Sandbox
from hal.signing.signatures import SUFFIX, PrivateKey, key_digest, read_private_key, sign, signature_file
from hal.tools import unpack
from hal.trees import cached_tree, inputs_digest

PACKAGES = "signing"
"""The set of the lock with the programs that sign EFI programs."""

SBSIGN = "usr/lib/systemd/systemd-sbsign"
FIXED_TIME = "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
"""OpenSSL writes the time of signing into a signature, and takes it from nowhere but the clock."""

UKI = "uki.efi"
SIGNED_DOCUMENTS = (document.NAME, MANIFEST, provenance.NAME)


@dataclass(frozen=True)
class SecureBootKey:
    """What signs the UKI: an RSA key and its certificate, both PEM files."""

    key: Path
    certificate: Path

    @classmethod
    def read(cls, key: Path, certificate: Path) -> SecureBootKey:
        """The pair of files, looked at.

        Raises:
            UsageError: one cannot be read, they do not belong together, or firmware would not take them.
        """
        private, known = read_private_key(key), _certificate(certificate)
        if not isinstance(private, rsa.RSAPrivateKey):
            raise UsageError(f"{key}: firmware takes RSA for secure boot", "`openssl req -newkey rsa:2048`")
        if private.public_key() != known.public_key():
            raise UsageError(f"{certificate} is not the certificate of the key in {key}")
        return cls(key.absolute(), certificate.absolute())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate (DER), as firmware's menus show it."""
        return hashlib.sha256(_certificate(self.certificate).public_bytes(Encoding.DER)).hexdigest()


def signing_tools(inputs: Inputs) -> Path:
    """The tree with the programs that sign, unpacked if the cache does not have it."""
    packages = inputs.lock.packages(PACKAGES)
    digest = inputs_digest(PACKAGES, *sorted(package.sha256 for package in packages))
    blobs = [inputs.blobs[package.sha256] for package in packages]
    return cached_tree(inputs.cache, PACKAGES, digest, lambda tree: unpack(blobs, tree))


def sign_build(
    directory: Path,
    target: Path,
    *,
    secure_boot: SecureBootKey | None,
    documents: PrivateKey | None,
    tools: Sandbox,
    signing: Path,
) -> dict[str, str]:
    """Write a signed copy of the build in `directory` to `target`; which keys signed comes back, by purpose.

    Raises:
        UsageError: no key is given.
        HalError: there is no build, the target is there already, or a program failed.
    """
    if secure_boot is None and documents is None:
        raise UsageError(
            "no key is given: nothing to sign", "`--secure-boot-key` or `--key`: see docs/verify.md"
        )
    required_artefacts(directory)
    target = target.absolute()
    if target.exists():
        raise HalError(f"{target} is there already", "name another directory, or remove it")
    work = Cache(target.parent / ".work", "name a directory on a larger disk")
    with work.temporary(target.name) as copy:
        tools.run(
            ["cp", "--archive", "--sparse=always", "--reflink=auto", f"{directory.absolute()}/.", str(copy)],
            readable=[directory.absolute()],
            writable=[copy],
            what="copying the build",
        )
        for old in copy.glob(f"*{SUFFIX}"):
            old.unlink()
        signers = {}
        if secure_boot is not None:
            _sign_uki(copy, secure_boot, tools, signing)
            signers["secure_boot"] = secure_boot.fingerprint
        if documents is not None:
            signers["documents"] = key_digest(documents.public_key())
        _update(copy, signers)
        if documents is not None:
            for name in SIGNED_DOCUMENTS:
                if (file := copy / name).exists():
                    signature_file(file).write_bytes(sign(documents, file.read_bytes()))
        copy.chmod(0o755)
        copy.rename(target)
    return signers


def _sign_uki(copy: Path, pair: SecureBootKey, tools: Sandbox, signing: Path) -> None:
    """Sign `uki.efi` and put it in its old place on the disk."""
    uki, signed = copy / UKI, copy / "signed.efi"
    before = pe.parse(uki.read_bytes(), UKI)
    if before.certificates_size:
        raise HalError(f"{UKI} is signed already", "sign the build as `hal build` left it")
    tools.run(
        [
            *(str(signing / SBSIGN), "sign", str(uki)),
            *(f"--private-key={pair.key}", f"--certificate={pair.certificate}", f"--output={signed}"),
        ],
        readable=[signing, pair.key, pair.certificate],
        writable=[copy],
        env={
            "LD_PRELOAD": str(signing / FIXED_TIME),
            "FAKETIME": str(tools.epoch),
            "FAKETIME_FMT": "%s",
        },
        what="systemd-sbsign (signing the unified kernel image)",
    )
    after = pe.parse(signed.read_bytes(), UKI)
    if not after.certificates_size or after.authenticode("sha256") != before.authenticode("sha256"):
        raise HalError("systemd-sbsign changed more of the unified kernel image than its signature")
    shutil.copymode(uki, signed)
    signed.replace(uki)
    manifest = json.loads((copy / MANIFEST).read_text())
    replace_uki(copy / DISK, uki, manifest["image"], copy, tools)


def _update(copy: Path, signers: dict[str, str]) -> None:
    """What the documents say of files that are others now."""
    measured = document.read(copy)
    uki = _sha256(copy / UKI)
    measured = measured.model_copy(update={"inputs": measured.inputs.model_copy(update={"uki": uki})})
    (copy / document.NAME).write_text(measured.text())
    manifest = json.loads((copy / MANIFEST).read_text())
    for name, artefact in manifest["artefacts"].items():
        artefact["size"] = (copy / name).stat().st_size
        if "sha256" in artefact:
            artefact["sha256"] = _sha256(copy / name)
    manifest["signed"] = signers
    _write(copy / MANIFEST, manifest)
    if (copy / provenance.NAME).exists():
        statement = json.loads((copy / provenance.NAME).read_text())
        for subject in statement["subject"]:
            subject["digest"] = {"sha256": _sha256(copy / subject["name"])}
        _write(copy / provenance.NAME, statement)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} holds no certificate in PEM: {error}") from None
