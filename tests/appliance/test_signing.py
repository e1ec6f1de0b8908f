"""Builds signed with keys of the tests' own: equal bytes each time, and secure boot takes nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from hal.build import MANIFEST
from hal.cli.main import main
from hal.machine import qemu
from hal.machine.boot import OVMF, Plan
from hal.machine.command import Firmware, qemu_command
from hal.measure import document, pe
from hal.signing.signatures import signature_file
from tests.appliance import variables
from tests.appliance.conftest import TOKEN, Boot, Build, Image
from tests.appliance.evidence import WISHES, key_of, verify, wait
from tests.appliance.test_boots import EVERYTHING
from tests.services.gateways import digest

SECURE_FLASH = ("-global", "driver=cfi.pflash01,property=secure,value=on")
"""Only firmware may write its variables (edk2's OvmfPkg/README, SMM support)."""

REFUSED = "Access Denied"
"""What OVMF says on the serial line of a program that nobody it knows has signed."""


@dataclass(frozen=True)
class Keys:
    """What a user has: a key and its certificate for secure boot, and a pair of keys for documents."""

    directory: Path

    @property
    def options(self) -> list[str]:
        names = {"secure-boot-key": "sb.key", "secure-boot-certificate": "sb.crt", "key": "documents.key"}
        return [word for name, file in names.items() for word in (f"--{name}", str(self.directory / file))]

    @property
    def certificate(self) -> Path:
        return self.directory / "sb.crt"

    @property
    def public(self) -> Path:
        return self.directory / "documents.pub"


def make_keys(directory: Path) -> Keys:
    directory.mkdir()
    key, documents = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"tests of hal {directory.name}")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(7).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(9))
    )
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "sb.key").write_bytes(key.private_bytes(*pem))
    (directory / "sb.crt").write_bytes(certificate)
    (directory / "documents.key").write_bytes(documents.private_bytes(*pem))
    public = documents.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "documents.pub").write_bytes(public)
    return Keys(directory)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys") / "ours")


@pytest.fixture(scope="module")
def unsigned(build_image: Build, write_spec: Callable[..., Path]) -> Image:
    more = EVERYTHING.format(init="systemd", token=digest(TOKEN))
    return build_image(write_spec("tiny-production-systemd", "production", more))


@pytest.fixture(scope="module")
def signed(unsigned: Image, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return signed_with(unsigned, keys, tmp_path_factory.mktemp("signed") / "build")


def signed_with(image: Image, keys: Keys, target: Path) -> Image:
    done = CliRunner().invoke(main, ["sign", str(image.built.directory), "--out", str(target), *keys.options])
    assert done.exit_code == 0, done.output
    return replace(image, built=replace(image.built, directory=target))


def contents(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def test_equal_builds_and_keys_give_equal_bytes(
    unsigned: Image, signed: Image, keys: Keys, tmp_path: Path
) -> None:
    before = contents(unsigned.built.directory)
    again = signed_with(unsigned, keys, tmp_path / "again").built.directory
    assert contents(again) == contents(signed.built.directory)
    assert contents(unsigned.built.directory) == before
    shutil.rmtree(again)


def test_only_what_a_signature_touches_is_another(unsigned: Image, signed: Image) -> None:
    first, second = contents(unsigned.built.directory), contents(signed.built.directory)
    documents = {document.NAME, MANIFEST, "provenance.intoto.json"}
    assert {name for name in first if first[name] != second[name]} == {"uki.efi", "disk.img", *documents}
    assert second.keys() - first.keys() == {signature_file(Path(name)).name for name in documents}
    manifest = json.loads((signed.built.directory / MANIFEST).read_text())
    assert manifest["artefacts"]["uki.efi"]["sha256"] == second["uki.efi"]
    assert set(manifest["signed"]) == {"secure_boot", "documents"}
    statement = json.loads((signed.built.directory / "provenance.intoto.json").read_text())
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    assert {name: second[name] for name in digests} == digests


def test_a_signature_changes_no_measurement(unsigned: Image, signed: Image) -> None:
    before, after = document.read(unsigned.built.directory), document.read(signed.built.directory)
    assert after.platforms == before.platforms
    assert after.inputs.uki != before.inputs.uki
    program = pe.parse((signed.built.directory / "uki.efi").read_bytes(), "uki.efi")
    assert program.certificates_size > 0


def secure_boot(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> Callable[[Plan], Plan]:
    """Firmware that knows this certificate and no other."""

    def command(*values: Any, **options: Any) -> list[str]:
        return [*qemu_command(*values, **options), *SECURE_FLASH]

    def change(plan: Plan) -> Plan:
        monkeypatch.setattr(qemu, "qemu_command", command)
        assert plan.files.firmware is not None and plan.files.firmware.variables is not None
        variables.enroll(plan.files.firmware.variables, certificate)
        firmware = Firmware(OVMF / "OVMF_CODE_4M.secboot.fd", plan.files.firmware.variables)
        return replace(plan, files=replace(plan.files, firmware=firmware))

    return change


def test_a_signed_image_boots_with_secure_boot_and_is_verified(
    signed: Image, keys: Keys, boot_image: Boot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change = secure_boot(monkeypatch, keys.certificate)
    with boot_image(signed, wishes=WISHES, change=change) as machine:
        wait(machine)
        key, measurements = key_of(machine), signed.built.directory / document.NAME
        options = ("--measurements-key", str(keys.public))
        done = verify(machine.url, measurements, key, tmp_path, *options)
        assert done.exit_code == 0, done.output
        # Measurements that somebody else could have written count for nothing.
        other = make_keys(tmp_path / "theirs").public
        done = verify(machine.url, measurements, key, tmp_path, "--measurements-key", str(other))
        assert done.exit_code == 1
        assert "is not what the key" in done.output


@pytest.mark.parametrize("whose", ["nobody's", "another's"])
def test_an_image_without_the_right_signature_is_not_started(
    whose: str, unsigned: Image, keys: Keys, boot_image: Boot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = unsigned
    if whose == "another's":
        image = signed_with(unsigned, make_keys(tmp_path / "theirs"), tmp_path / "build")
    change = secure_boot(monkeypatch, keys.certificate)
    with boot_image(image, wishes=replace(WISHES, tpm=False), change=change) as machine:
        machine.vm.wait(
            lambda: REFUSED in machine.vm.serial(), machine.deadline(60), "the firmware's refusal"
        )
        assert "Linux version" not in machine.vm.serial()


def test_a_build_is_signed_once_and_into_a_new_directory(signed: Image, keys: Keys, tmp_path: Path) -> None:
    directory = str(signed.built.directory)
    done = CliRunner().invoke(main, ["sign", directory, "--out", str(tmp_path / "again"), *keys.options])
    assert done.exit_code == 1
    assert "is signed already" in done.output
    done = CliRunner().invoke(main, ["sign", directory, "--out", directory, *keys.options])
    assert done.exit_code == 1
    assert "is there already" in done.output
    assert not (tmp_path / "again").exists()


def test_keys_that_do_not_fit_are_wrong_usage(unsigned: Image, keys: Keys, tmp_path: Path) -> None:
    start = ["sign", str(unsigned.built.directory), "--out", str(tmp_path / "signed")]
    other = make_keys(tmp_path / "theirs")
    wrong = {
        "nothing to sign": [],
        "a key and its certificate": keys.options[:2],
        "is not the certificate of the key": [*keys.options[:3], str(other.certificate)],
        "firmware takes RSA": ["--secure-boot-key", keys.options[5], *keys.options[2:4]],
        "holds no certificate": [*keys.options[:3], str(keys.public)],
    }
    for words, options in wrong.items():
        done = CliRunner().invoke(main, [*start, *options])
        assert done.exit_code == 2, done.output
        assert words in done.output
    assert not (tmp_path / "signed").exists()
