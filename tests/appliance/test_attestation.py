"""A booted machine with a TPM is verified by `hal verify`, and all that is not as it should be is refused.

The production image: no token is needed to ask, and nothing is allowed that a client has to ask for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hal.attest.document import read_evidence_document
from hal.attest.eventlog import parse_event_log
from hal.attest.policy import Policy
from hal.attest.tpm_structures import parse_tpm_public
from hal.attest.verdict import Asked, Verdict, judge
from hal.machine.boot import Plan
from hal.measure.document import Measurements, read
from hal.render.attestor import CONFIGFS, REPORTS, SOCKET
from hal.render.gateway import CERTIFICATE, KEY
from hal.verify import attested_session
from tests.appliance.conftest import TOKEN, Appliance, Boot, Build, Image
from tests.appliance.evidence import ASKED, SECONDS, WISHES, fetch, key_of, reasons, verify, wait
from tests.appliance.test_boots import EVERYTHING
from tests.attest.appliance import serving, tls_key
from tests.attest.machines import NOW, Situation, flipped
from tests.services.gateways import digest

LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"


@pytest.fixture(scope="module")
def production(build_image: Build, write_spec: Callable[..., Path]) -> Image:
    more = EVERYTHING.format(init="systemd", token=digest(TOKEN))
    return build_image(write_spec("tiny-production-systemd", "production", more))


@pytest.fixture(scope="module")
def expected(production: Image) -> Measurements:
    return read(production.built.directory)


@pytest.fixture(scope="module")
def machine(production: Image, boot_image: Boot) -> Iterator[Appliance]:
    with boot_image(production, wishes=WISHES) as found:
        wait(found)
        yield found


@pytest.fixture(scope="module")
def key(machine: Appliance) -> bytes:
    return key_of(machine)


def judged(document: bytes, tls: bytes, key: bytes, expected: Measurements, nonce: bytes = ASKED) -> Verdict:
    return judge(document, Asked(nonce, tls), expected, Policy(tpm_key=parse_tpm_public(key).spki), NOW)


def test_it_is_verified(production: Image, machine: Appliance, key: bytes, tmp_path: Path) -> None:
    measurements = production.built.directory / "measurements.json"
    done = verify(machine.url, measurements, key, tmp_path)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verified"]
    assert found["platform"] == "tpm"
    assert {check["name"]: check["words"] for check in found["checks"]}["variant"] == "production"


def test_the_document_tells_of_the_boot(machine: Appliance, expected: Measurements) -> None:
    document = json.loads(fetch(machine)[0])
    assert {stage["name"] for stage in document["boot"]} >= {"root", "packs"}
    assert not document["debug"]
    assert document["collateral"] is None
    assert document["manifest_sha256"] == expected.manifest_sha256


def test_questions_need_no_token_and_all_else_does(machine: Appliance) -> None:
    assert machine.get("/attestation", timeout=SECONDS).status_code == 400
    assert "nonce" in machine.get("/attestation").json()["error"]["message"]
    assert machine.get("/v1/models").status_code == 401


def test_an_old_answer_is_refused(machine: Appliance, expected: Measurements, key: bytes) -> None:
    document, tls = fetch(machine)
    assert judged(document, tls, key, expected).verified
    failed = judged(document, tls, key, expected, nonce=b"\x18" * 32).failures
    assert {check.name for check in failed} == {"nonce", "report data"}
    assert "replayed" in failed[0].words


def test_a_proxy_in_the_middle_is_refused(
    production: Image, machine: Appliance, key: bytes, tmp_path: Path
) -> None:
    """It asks the appliance for each nonce, and has but its own TLS key."""

    def answer(situation: Situation) -> bytes:
        return fetch(machine, situation.nonce)[0]

    with serving(answer, tls_key("in the middle")) as proxy:
        found = reasons(verify(proxy.url, production.built.directory / "measurements.json", key, tmp_path))
    assert set(found) == {"TLS key", "report data"}
    assert "something stands in between" in found["TLS key"]


def test_a_tampered_log_is_refused(machine: Appliance, expected: Measurements, key: bytes) -> None:
    text, tls = fetch(machine)
    log = read_evidence_document(text).evidence["event_log"]
    place = log.index(next(event for event in parse_event_log(log) if event.register == 4).digests["sha256"])
    document: dict[str, Any] = json.loads(text)
    document["evidence"]["event_log"] = base64.b64encode(flipped(log, 8 * place)).decode()
    (failed,) = judged(json.dumps(document).encode(), tls, key, expected).failures
    assert failed.name == "event log"


def test_an_unknown_pack_and_another_root_are_refused(
    machine: Appliance, expected: Measurements, key: bytes
) -> None:
    """What this machine runs, held against a build without its model's pack."""
    data = json.loads(expected.text())
    data["packs"] = {name: value for name, value in data["packs"].items() if name != "tiny"}
    data["manifest_sha256"] = "00" * 32
    data["platforms"]["tpm"][0]["pcrs"]["11"] = "00" * 32
    document, tls = fetch(machine)
    found = {
        check.name: check.words
        for check in judged(document, tls, key, Measurements.model_validate(data)).failures
    }
    assert set(found) == {"manifest", "measurement"}
    assert "pack 'tiny' is unknown" in found["manifest"]
    assert "another root" in found["measurement"]


def test_the_debug_variant_is_refused(
    machine: Appliance, build_image: Build, write_spec: Callable[..., Path], key: bytes, tmp_path: Path
) -> None:
    debug = build_image(write_spec("tiny")).built.directory / "measurements.json"
    found = reasons(verify(machine.url, debug, key, tmp_path))
    assert {"manifest", "variant", "measurement"} <= set(found)
    found = reasons(verify(machine.url, debug, key, tmp_path, "--allow-debug"))
    assert "the measurements are of debug" in found["variant"]


def test_a_client_talks_to_what_it_verified(
    production: Image, machine: Appliance, key: bytes, tmp_path: Path
) -> None:
    policy = {"tpm_key": parse_tpm_public(key).spki}
    session = attested_session(machine.url, production.built.directory / "measurements.json", **policy)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (
        session.get(f"{machine.url}/api/v1/inference/status", headers=headers, timeout=SECONDS).status_code
        == 200
    )


def test_another_machine_and_another_command_line_are_refused(
    production: Image, boot_image: Boot, key: bytes, tmp_path: Path
) -> None:
    """The same disk in another machine, whose host adds a word to the command line."""
    added = tmp_path / "added"
    added.write_text("io.systemd.stub.kernel-cmdline-extra=hal.added=1")

    def change(plan: Plan) -> Plan:
        return replace(plan, machine=replace(plan.machine, credential_files=(added,)))

    measurements = production.built.directory / "measurements.json"
    with boot_image(production, wishes=WISHES, change=change) as other:
        wait(other)
        found = reasons(verify(other.url, measurements, key, tmp_path))
        assert set(found) == {"attestation key"}
        assert "another machine" in found["attestation key"]
        found = reasons(verify(other.url, measurements, key_of(other), tmp_path))
        assert set(found) == {"measurement"}
        assert "PCR 12" in found["measurement"]
        assert "came from outside the image" in found["measurement"]


DEBUG = "init: {init}\ngateway: {{tls: true}}\n"


@pytest.mark.parametrize("init", ["systemd", "sysv"])
def test_from_inside(
    init: str, build_image: Build, write_spec: Callable[..., Path], boot_image: Boot, tmp_path: Path
) -> None:
    """Who may touch what, where a shell can look; and that debug is verified only by those who allow it."""
    image = build_image(write_spec(f"tiny-tls-{init}", "debug", DEBUG.format(init=init)))
    measurements = image.built.directory / "measurements.json"
    with boot_image(image, wishes=WISHES) as machine:
        wait(machine)
        key = key_of(machine)
        assert verify(machine.url, measurements, key, tmp_path, "--allow-debug").exit_code == 0
        assert set(reasons(verify(machine.url, measurements, key, tmp_path))) == {"variant"}
        host = machine.ssh()
        processes = [line.split() for line in host.check_output("ps -eo user:20,rss,args").splitlines()]
        (size,) = (int(words[1]) for words in processes if words[0] == "hal-attestor")
        assert size < 40_000
        modes = {path: host.file(path) for path in ("/dev/tpmrm0", LOG, SOCKET, KEY, CERTIFICATE)}
        assert {path: (file.group, file.mode) for path, file in modes.items()} == {
            "/dev/tpmrm0": ("hal-attestor", 0o660),
            LOG: ("hal-attestor", 0o440),
            SOCKET: ("hal-gateway", 0o600 if init == "systemd" else 0o770),
            KEY: ("hal-gateway", 0o600),
            CERTIFICATE: ("hal-gateway", 0o644),
        }
        if init == "systemd":
            assert host.check_output("systemctl show -P NRestarts hal-attestor") == "0"


def test_a_machine_without_tpm_or_tls_says_so(appliance: Appliance) -> None:
    found = appliance.get(f"/attestation?nonce={ASKED.hex()}", timeout=SECONDS).json()
    assert found["platform"] == "none"
    assert found["tls_key_sha256"] is None
    assert found["evidence"] == {}
    assert found["debug"]


def test_an_image_for_a_tee_has_its_interface_open(
    build_image: Build, write_spec: Callable[..., Path], boot_image: Boot
) -> None:
    """On a host without one: the kernel's interface is there and open, and nobody makes reports."""
    image = build_image(write_spec("tiny-tee", "debug", "tee: sev-snp\ngateway: {tls: true}\n"))
    with boot_image(image, wishes=replace(WISHES, tee="none")) as machine:
        wait(machine)
        assert json.loads(fetch(machine)[0])["platform"] == "tpm"
        host = machine.ssh()
        process = host.check_output("systemctl show -P MainPID hal-attestor")
        mounts = host.check_output(f"cat /proc/{process}/mountinfo").splitlines()
        modes = {words[4]: words[5].split(",")[0] for words in map(str.split, mounts)}
        assert modes[REPORTS] == "rw"
        assert modes[CONFIGFS] == "ro"
        assert "No such device or address" in host.run(f"mkdir {REPORTS}/hal").stderr
