"""`hal doctor`: every finding in every state, on hosts that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hal import doctor
from hal.doctor import SPACE_NEEDED, Finding, Host
from hal.errors import HalError
from hal.run import Completed

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 vmx avx2\n"
NO_VIRTUALISATION = "processor\t: 0\nmodel name\t: svm-like CPU\nflags\t\t: fpu sse2 avx2\n"
PROGRAMS = ("bwrap", "newuidmap", "dpkg-deb", "tar", "apt-get", "gpgv", "ssh")
APT_SOURCE = (
    "Types: deb\nURIs: http://mirror.example/debian\nSuites: stable stable-updates\nComponents: main\n"
)
FILES = {
    "etc/os-release": "ID=debian\nVERSION_CODENAME=stable\n",
    "etc/apt/sources.list.d/debian.sources": APT_SOURCE,
    "etc/subuid": "anna:100000:65536\n",
    "etc/subgid": "anna:100000:65536\n",
    "usr/share/keyrings/debian-archive-keyring.gpg": "keys",
    "proc/cpuinfo": INTEL,
    "dev/kvm": "",
}


@dataclass
class Sandboxes:
    """Stands for running programs: remembers the command, answers as told."""

    returncode: int = 0
    stderr: str = ""
    error: HalError | None = None
    argv: tuple[str, ...] = ()

    def __call__(self, argv: Sequence[str]) -> Completed:
        self.argv = tuple(argv)
        if self.error:
            raise self.error
        return Completed(self.argv, self.returncode, "", self.stderr)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host of a user named anna on which everything is as it should be."""
    monkeypatch.delenv("HAL_DEBIAN_MIRROR", raising=False)
    for name, text in FILES.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(
        root=tmp_path / "root",
        cache=tmp_path / "cache" / "hal",
        euid=1000,
        user="anna",
        python=(3, 11, 2),
        which=lambda name: name in PROGRAMS,
        run=Sandboxes(),
        accessible=lambda path: True,
        free=lambda path: SPACE_NEEDED,
    )


def without(host: Host, *names: str) -> Host:
    return replace(host, which=lambda name: name in PROGRAMS and name not in names)


def write(host: Host, name: str, text: str) -> None:
    path = host.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_good_host_lacks_nothing(host: Host) -> None:
    findings = doctor.diagnose(host)
    assert [finding for finding in findings if finding.state != "ok"] == []
    assert len(findings) == len(doctor.CHECKS)
    assert all(finding.mend is None for finding in findings)


def test_root_needs_no_id_mapping(host: Host) -> None:
    names = {finding.name for finding in doctor.diagnose(without(replace(host, euid=0), "newuidmap"))}
    assert names.isdisjoint({"uidmap", "subordinate ids"})
    assert "namespaces" in names


def test_this_machine_can_be_diagnosed() -> None:
    findings = doctor.diagnose()
    assert {"python", "bubblewrap", "cache", "kvm"} <= {finding.name for finding in findings}
    assert all(finding.mend for finding in findings if finding.state == "missing")


@pytest.mark.parametrize(
    ("check", "program", "state", "package"),
    [
        (doctor.package_tools, "dpkg-deb", "missing", "dpkg"),
        (doctor.package_tools, "tar", "missing", "tar"),
        (doctor.bubblewrap, "bwrap", "missing", "bubblewrap"),
        (doctor.uidmap, "newuidmap", "missing", "uidmap"),
        (doctor.apt, "gpgv", "note", "gpgv"),
        (doctor.ssh_client, "ssh", "note", "openssh-client"),
    ],
)
def test_a_missing_program_names_its_package(
    host: Host, check: Callable[[Host], Finding], program: str, state: str, package: str
) -> None:
    finding = check(without(host, program))
    assert (finding.state, finding.mend) == (state, f"sudo apt-get install {package}")
    assert program in finding.meaning
    assert check(replace(without(host, program), euid=0)) in (None, replace(finding, mend=finding.mend[5:]))


def test_old_python(host: Host) -> None:
    finding = doctor.python(replace(host, python=(3, 10, 13)))
    assert (finding.state, finding.meaning) == ("missing", "3.10.13: hal needs 3.11 or newer")


def test_apt_is_needed_for_the_lock_only(host: Host) -> None:
    finding = doctor.apt(without(host, "apt-get"))
    assert finding.state == "note"
    assert "hal lock" in finding.meaning


def test_sqv_checks_signatures_as_well_as_gpgv(host: Host) -> None:
    programs = {*PROGRAMS, "sqv"} - {"gpgv"}
    assert doctor.apt(replace(host, which=programs.__contains__)).state == "ok"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("anna:100000:65536\n", "ok"),
        ("1000:100000:65536\n", "ok"),
        ("berta:100000:65536\n", "missing"),
        ("anna:100000:1000\n", "missing"),
        ("anna:100000\n", "missing"),
        ("anna:100000:many\n", "missing"),
        ("", "missing"),
    ],
)
def test_subordinate_ids(host: Host, text: str, state: str) -> None:
    write(host, "etc/subgid", text)
    finding = doctor.subordinate_ids(host)
    assert finding is not None
    assert finding.state == state
    if state == "missing":
        assert "/etc/subgid" in finding.meaning
        assert "/etc/subuid" not in finding.meaning
        assert finding.mend is not None
        assert finding.mend.startswith("sudo usermod --add-subuids ")
        assert finding.mend.endswith(" anna")


def test_the_sandbox_that_builds_use_is_tried(host: Host) -> None:
    sandboxes = Sandboxes()
    finding = doctor.namespaces(replace(host, run=sandboxes))
    assert finding == Finding("namespaces", "ok", "a sandbox can be made")
    assert "bwrap" in sandboxes.argv
    assert sandboxes.argv[-2:] == ("--", "true")


@pytest.mark.parametrize(
    ("setting", "value", "allowing"),
    [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "65536"),
    ],
)
def test_a_kernel_setting_that_forbids_user_namespaces(
    host: Host, setting: str, value: str, allowing: str
) -> None:
    refused = Sandboxes(1, "unshare: unshare failed: Operation not permitted\n")
    write(host, f"proc/sys/{setting.replace('.', '/')}", f"{value}\n")
    finding = doctor.namespaces(replace(host, run=refused))
    assert finding is not None
    assert finding.state == "missing"
    assert f"{setting}={value}" in finding.meaning
    assert "Operation not permitted" in finding.meaning
    assert finding.mend == (
        f"echo {setting}={allowing} | sudo tee /etc/sysctl.d/60-hal.conf && sudo sysctl --system"
    )


def test_a_setting_that_forbids_nothing_here_is_not_blamed(host: Host) -> None:
    write(host, "proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
    finding = doctor.namespaces(host)  # an AppArmor profile may allow it all the same
    assert finding is not None
    assert finding.state == "ok"


@pytest.mark.parametrize(("euid", "mend"), [(0, "--privileged"), (1000, "run hal as root")])
def test_no_sandbox_for_another_reason(host: Host, euid: int, mend: str) -> None:
    refused = Sandboxes(1, "bwrap: Creating new namespace failed: Operation not permitted\n")
    finding = doctor.namespaces(replace(host, euid=euid, run=refused))
    assert finding is not None
    assert finding.state == "missing"
    assert "Creating new namespace failed" in finding.meaning
    assert finding.mend is not None
    assert mend in finding.mend


def test_no_unshare(host: Host) -> None:
    absent = Sandboxes(error=HalError("the program 'unshare' is not installed"))
    finding = doctor.namespaces(replace(host, run=absent))
    assert finding is not None
    assert (finding.state, finding.mend) == ("missing", "sudo apt-get install util-linux")


def test_without_bubblewrap_there_is_no_second_finding(host: Host) -> None:
    assert doctor.namespaces(without(host, "bwrap")) is None
    assert doctor.namespaces(without(host, "newuidmap")) is None


def test_debian_mirror_of_the_host(host: Host) -> None:
    finding = doctor.debian_mirror(host)
    assert (finding.state, finding.meaning) == (
        "ok",
        "http://mirror.example/debian, from this host's apt sources",
    )


def test_no_debian_mirror(host: Host) -> None:
    write(host, "etc/os-release", "ID=fedora\n")
    finding = doctor.debian_mirror(host)
    assert finding.state == "missing"
    assert finding.mend == "sudo apt-get install mmdebstrap, or set HAL_DEBIAN_MIRROR=URL"


def test_a_named_debian_mirror(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_DEBIAN_MIRROR", "http://other.example/debian/")
    assert doctor.debian_mirror(host).meaning == "http://other.example/debian, from $HAL_DEBIAN_MIRROR"


def test_no_keyring(host: Host) -> None:
    (host.root / "usr/share/keyrings/debian-archive-keyring.gpg").unlink()
    finding = doctor.keyring(host)
    assert (finding.state, finding.mend) == ("note", "sudo apt-get install debian-archive-keyring")


def test_cache_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    refused: list[Path] = []

    def accessible(path: Path) -> bool:
        refused.append(path)
        return False

    finding = doctor.cache_directory(replace(host, accessible=accessible))
    assert finding.state == "missing"
    assert refused == [tmp_path]  # the nearest directory that is there
    assert finding.mend is not None
    assert "HAL_CACHE" in finding.mend


def test_cache_that_is_a_file(host: Host) -> None:
    host.cache.parent.mkdir()
    host.cache.write_text("")
    assert doctor.cache_directory(host).state == "missing"


def test_too_little_space_for_a_first_build(host: Host) -> None:
    low = replace(host, free=lambda path: SPACE_NEEDED - 1_000_000_000)
    finding = doctor.cache_directory(low)
    assert finding.state == "missing"
    assert "2.0 GB are free, a first build needs 3 GB" in finding.meaning
    (host.cache / "trees").mkdir(parents=True)
    assert doctor.cache_directory(low).state == "note"  # what takes the space is there already


def test_a_processor_without_virtualisation(host: Host) -> None:
    write(host, "proc/cpuinfo", NO_VIRTUALISATION)
    finding = doctor.kvm(host)
    assert finding.state == "note"
    assert "no virtualisation" in finding.meaning


def test_no_kvm_device(host: Host) -> None:
    (host.root / "dev/kvm").unlink()
    finding = doctor.kvm(host)
    assert (finding.state, finding.mend) == ("note", "sudo modprobe -a kvm kvm_intel kvm_amd")


def test_a_kvm_device_of_others(host: Host) -> None:
    finding = doctor.kvm(replace(host, accessible=lambda path: False))
    assert (finding.state, finding.mend) == ("note", "sudo usermod --append --groups kvm anna")
