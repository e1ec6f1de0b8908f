"""Secrets for a machine: read, refused where no image takes them, and never on a command line."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hal.build import MANIFEST
from hal.cli.main import main
from hal.errors import UsageError
from hal.machine import boot, credentials
from hal.machine.command import Accelerator
from hal.render import render
from hal.spec.loading import load_spec, parse_spec

SECRET = b"sk-a-very-secret-key\n"
SYSV = """\
appliance: {name: elsewhere, version: 1.0.0}
variant: VARIANT
init: sysv
engines: {openai: {settings: {base_url: "https://192.0.2.1/v1", model: m, credential: the.key}}}
gateway: {tokens: [{name: a, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]}
"""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key.txt"
    file.write_bytes(SECRET)
    return file


def test_credentials_are_read_from_their_files(key: Path) -> None:
    assert credentials.given([], "production") == {}
    found = credentials.given([f"openai={key}", f"other-2={key}"], "debug")
    assert found == {"openai": SECRET, "other-2": SECRET}


def test_a_file_name_may_have_an_equals_sign(tmp_path: Path) -> None:
    (tmp_path / "a=b").write_bytes(b"x")
    assert credentials.given([f"k={tmp_path}/a=b"], "debug") == {"k": b"x"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("sk-secret", "--credential …: no file is named"),
        ("openai=", "no file is named"),
        ("=FILE", "--credential '': a name has letters"),
        ("a/b=FILE", "--credential 'a/b': a name has letters"),
        ("ssh.authorized_keys.root=FILE", "hal gives this one itself"),
        ("a=/nowhere", "--credential a=/nowhere: No such file or directory"),
        ("a=/", "--credential a=/: Is a directory"),
        ("a=EMPTY", "the file is empty"),
        ("a=LARGE", "larger than 16K"),
    ],
)
def test_credentials_that_cannot_be_given(option: str, said: str, tmp_path: Path, key: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * (credentials.MOST_BYTES + 1))
    for word, name in (("FILE", "key.txt"), ("EMPTY", "empty"), ("LARGE", "large")):
        option = option.replace(word, str(tmp_path / name))
    with pytest.raises(UsageError) as raised:
        credentials.given([option], "debug")
    assert said in raised.value.message
    assert "sk-" not in f"{raised.value.message} {raised.value.hint}", "what may be the key is not repeated"


def test_twice_and_too_much(tmp_path: Path, key: Path) -> None:
    with pytest.raises(UsageError, match="--credential a is given twice"):
        credentials.given([f"a={key}", f"a={key}"], "debug")
    (tmp_path / "large").write_bytes(b"x" * credentials.MOST_BYTES)
    with pytest.raises(UsageError, match="have 48K together; at most 32K fit"):
        credentials.given([f"{name}={tmp_path}/large" for name in "abc"], "debug")


def test_a_production_image_takes_none(key: Path) -> None:
    with pytest.raises(UsageError, match="a production image takes no credentials") as raised:
        credentials.given([f"openai={key}"], "production")
    assert raised.value.hint is not None and "docs/boot.md" in raised.value.hint


def test_they_reach_qemu_in_files_that_nobody_else_reads(tmp_path: Path, key: Path) -> None:
    directory = tmp_path / "starter"
    directory.mkdir()
    (directory / MANIFEST).write_text(json.dumps({"cmdline": "ro"}))
    wishes = boot.Wishes(credentials=(f"openai={key}",))
    plan = boot.plan(load_spec("starter").spec, directory, wishes, Accelerator.TCG)
    (path,) = plan.machine.credential_files
    argv = boot.qemu_command(plan.machine, plan.files, plan.accelerator)
    assert argv[argv.index("-smbios") + 1] == f"type=11,path={path}"
    spelt = {SECRET.decode().strip(), base64.b64encode(SECRET).decode()[:20]}
    assert not any(word in " ".join([*argv, repr(plan)]) for word in spelt)
    plan.run_directory.mkdir()
    credentials.write(plan.secrets, plan.run_directory)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    name, _, encoded = path.read_text().partition("=")
    assert (name, base64.b64decode(encoded)) == ("io.systemd.credential.binary:openai", SECRET)
    credentials.write(plan.secrets, plan.run_directory)
    credentials.remove(plan.secrets, plan.run_directory)
    credentials.remove(plan.secrets, plan.run_directory)
    assert not path.exists()
    assert replace(plan, secrets={}).machine.credential_files == (path,)


@pytest.fixture
def fetch(tmp_path: Path) -> Path:
    """The program of `init: sysv` that brings credentials in."""
    loaded = parse_spec(SYSV.replace("VARIANT", "debug"), tmp_path / "spec.yaml")
    files = render(loaded, [])
    program = files["/usr/lib/hal/credentials"]
    assert program.mode == 0o755
    assert "\n/usr/lib/hal/credentials\n" in files["/etc/init.d/rcS"].content
    (tmp_path / "fetch").write_text(program.content)
    return tmp_path / "fetch"


def test_sysv_finds_credentials_in_smbios(fetch: Path, tmp_path: Path) -> None:
    def entry(number: int, *strings: bytes) -> None:
        folder = tmp_path / f"dmi/11-{number}"
        folder.mkdir(parents=True)
        header = bytes([11, 5, 0, number, len(strings)])
        (folder / "raw").write_bytes(header + b"".join(text + b"\0" for text in strings) + b"\0")

    def spelt(name: str, content: bytes) -> bytes:
        return credentials.smbios_string(name, content).encode()

    largest = bytes(range(256)) * (credentials.MOST_BYTES // 256)
    entry(0, b"vendor", spelt("theXkey", b"another"), spelt("ssh.authorized_keys.root", b"ssh"))
    entry(1, spelt("the.key", largest), spelt("the.key2", b"another"))
    variables = {
        "PATH": os.environ["PATH"],
        "ENTRIES": str(tmp_path / "dmi"),
        "CREDENTIALS": str(tmp_path / "credentials"),
        "OWNER": f"{os.getuid()}:{os.getgid()}",
    }
    done = subprocess.run(["sh", str(fetch)], env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (found,) = (tmp_path / "credentials").iterdir()
    assert (found.name, found.read_bytes()) == ("the.key", largest)
    assert stat.S_IMODE(found.stat().st_mode) == 0o440
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o750


def test_sysv_without_credentials_starts_all_the_same(fetch: Path, tmp_path: Path) -> None:
    variables = {
        "PATH": os.environ["PATH"],
        "ENTRIES": str(tmp_path / "none"),
        "CREDENTIALS": str(tmp_path / "credentials"),
        "OWNER": f"{os.getuid()}:{os.getgid()}",
    }
    done = subprocess.run(["sh", str(fetch)], env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "credentials").iterdir()) == []


def test_production_has_no_program_that_takes_secrets_of_the_host(tmp_path: Path) -> None:
    files = render(parse_spec(SYSV.replace("VARIANT", "production"), tmp_path / "spec.yaml"), [])
    assert "/usr/lib/hal/credentials" not in files
    assert "credentials" not in files["/etc/init.d/rcS"].content


def test_hal_boot_refuses_before_it_builds(tmp_path: Path, key: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SYSV.replace("VARIANT", "production"))
    result = CliRunner().invoke(main, ["boot", str(spec), "--credential", f"openai={key}"])
    assert result.exit_code == 2
    assert "a production image takes no credentials" in result.stderr
