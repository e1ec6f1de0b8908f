"""The document: its schema, what it holds, how two of them are compared; and the manifest in the image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from hal.cli.main import main
from hal.errors import HalError, UsageError
from hal.measure.compute import Files, named, of_build, with_firmware
from hal.measure.document import SCHEMA_FILE, Image, Measurements, json_schema, read
from hal.measure.explain import Difference, explain
from hal.measure.shapes import Wishes, wishes
from hal.measure.snp import VCPUS
from hal.packs.reference import PackRef
from hal.render import render
from hal.render.manifest import PATH
from hal.spec.loading import load_spec
from hal.spec.model import Machine
from tests.unit import measured_files as made

IMAGE = Image(name="tiny", version="1.0.0", variant="production", debug=False)
PACK = PackRef("model", "m", "m-m-aa", 7, "aa", "cc" * 32, "/srv/models/m")
MANIFEST = '{"name": "tiny"}\n'


@pytest.fixture
def files(tmp_path: Path) -> Files:
    linux = made.kernel()
    found = Files(
        kernel=tmp_path / "vmlinuz",
        initrd=tmp_path / "initrd",
        uki=tmp_path / "uki.efi",
        disk=tmp_path / "disk.img",
        cmdline="ro hal.root=tiny,1,aa,bb",
        ovmf=tmp_path / "OVMF_CODE_4M.fd",
    )
    found.kernel.write_bytes(linux)
    found.initrd.write_bytes(b"an initrd")
    found.uki.write_bytes(made.uki(found.cmdline.encode(), linux))
    found.disk.write_bytes(made.partition_table(3))
    found.ovmf.write_bytes(b"firmware")
    return found


@pytest.fixture
def firmware(tmp_path: Path) -> dict[str, Path]:
    snp, tdx = tmp_path / "amdsev.fd", tmp_path / "inteltdx.fd"
    snp.write_bytes(made.snp_firmware())
    tdx.write_bytes(made.tdx_firmware([(0, 0x2000, 0xFFFFC000, 0x2000, 0, 1)]))
    return {"sev-snp": snp, "tdx": tdx}


def measured(files: Files, image: Image = IMAGE, root_hash: str = "ab" * 32) -> Measurements:
    return of_build(image, root_hash, [PACK], MANIFEST, files)


def test_the_schema_is_that_of_the_values() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()


def test_a_build_has_pcrs_and_says_what_it_lacks(files: Files) -> None:
    document = json.loads(measured(files).text())
    jsonschema.validate(document, json_schema())
    assert document["manifest_sha256"] == hashlib.sha256(MANIFEST.encode()).hexdigest()
    assert document["packs"] == {"m": "cc" * 32}
    assert document["image"] == {"name": "tiny", "version": "1.0.0", "variant": "production", "debug": False}
    assert document["platforms"]["sev-snp"] == document["platforms"]["tdx"] == []
    assert document["platforms"]["tpm"][0]["pcrs"].keys() == {"4", "11", "12"}
    assert {refusal["platform"]: refusal["value"] for refusal in document["refused"]} == {
        "sev-snp": "launch_digest",
        "tdx": "mrtd",
    }
    assert measured(files).text() == measured(files).text()


def test_with_firmware_it_has_every_shape(files: Files, firmware: dict[str, Path], tmp_path: Path) -> None:
    found = with_firmware(
        measured(files), files, wishes(Machine(cpus=3), [f"{k}={v}" for k, v in firmware.items()])
    )
    jsonschema.validate(json.loads(found.text()), json_schema())
    assert {launch.vcpus for launch in found.platforms.sev_snp} == {*VCPUS, 3}
    # Without RTMR 0 nothing of TDX can be verified.
    assert found.platforms.tdx == ()
    assert [part.boot for part in found.partial.tdx] == ["direct", "uki"] * 2
    assert [refusal.value for refusal in found.refused] == ["rtmr0"]
    file = tmp_path / "measurements.json"
    file.write_text(found.text())
    assert read(file) == found
    assert len(read(file).platforms.sev_snp) == len(found.platforms.sev_snp)


def test_rtmr0_makes_direct_boots_whole(files: Files, firmware: dict[str, Path], tmp_path: Path) -> None:
    wanted = wishes(Machine(cpus=4), [f"tdx={firmware['tdx']}"], rtmr0="ab" * 48)
    found = with_firmware(measured(files), files, wanted)
    assert [(one.boot, one.vcpus, one.memory, one.rtmr0) for one in found.platforms.tdx] == [
        ("direct", 4, Machine().memory, "ab" * 48)
    ] * 2
    file = tmp_path / "measurements.json"
    file.write_text(found.text())
    assert len(read(file).platforms.tdx) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"firmware": ["sgx=/x"]}, "not understood"),
        ({"firmware": ["tdx"]}, "not understood"),
        ({"firmware": ["tdx="]}, "not understood"),
        ({"firmware": ["tdx=/nowhere/x.fd"]}, "No such file"),
        ({"rtmr0": "ab" * 48}, "alone says nothing"),
        ({"rtmr0": "AB"}, "not understood"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, str], words: str) -> None:
    with pytest.raises(HalError, match=words):
        wishes(Machine(), **options)  # type: ignore[arg-type]


def test_firmware_may_be_pinned(firmware: dict[str, Path]) -> None:
    path = firmware["tdx"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert wishes(Machine(), [f"tdx={path}#sha256={digest}"]).firmware == {"tdx": path}
    with pytest.raises(HalError, match=f"its sha256 is {digest}, not {'0' * 64}"):
        wishes(Machine(), [f"tdx={path}#sha256={'0' * 64}"])


def test_packs_of_one_name_are_told_apart() -> None:
    engine = replace(PACK, kind="engine", root_hash="dd" * 32)
    assert named([engine, PACK]) == {"engine:m": "dd" * 32, "model:m": "cc" * 32}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', "\0"])
def test_what_is_no_document_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "measurements.json"
    file.write_text(text)
    with pytest.raises(HalError, match="not measurements: "):
        read(file)
    with pytest.raises(HalError, match="No such file"):
        read(tmp_path / "nowhere.json")


# --- why two differ


def written(path: Path, document: Measurements, **manifest: object) -> Path:
    path.mkdir()
    (path / "measurements.json").write_text(document.text())
    if manifest:
        (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def inputs(found: list[Difference]) -> list[str]:
    return [difference.input for difference in found]


def test_equal_measurements_have_no_difference(files: Files, tmp_path: Path) -> None:
    assert explain(written(tmp_path / "a", measured(files)), written(tmp_path / "b", measured(files))) == []


def test_another_root_is_found_in_the_command_line(files: Files, tmp_path: Path) -> None:
    first = written(tmp_path / "a", measured(files))
    other = replace(files, cmdline="ro hal.root=tiny,1,aa,cc hal.state=state")
    files.uki.write_bytes(made.uki(other.cmdline.encode()))
    second = written(tmp_path / "b", measured(other, root_hash="cd" * 32))
    found = explain(first, second)
    assert sorted(inputs(found)) == ["command line", "command line", "root hash", "uki"]
    words = {(one.first, one.second) for one in found if one.input == "command line"}
    assert words == {("hal.root=tiny,1,aa,bb", "hal.root=tiny,1,aa,cc"), ("absent", "hal.state=state")}
    (command_line, *_) = [one for one in found if one.input == "command line"]
    assert "tpm PCR 11" in command_line.reaches and "sev-snp launch digest" in command_line.reaches


def test_each_input_is_named(files: Files, tmp_path: Path) -> None:
    first = written(tmp_path / "a", measured(files))
    files.initrd.write_bytes(b"another")
    debug = IMAGE.model_copy(update={"variant": "debug", "debug": True})
    second = written(tmp_path / "b", measured(files, debug))
    assert sorted(inputs(explain(first, second))) == ["initrd", "variant"]


def test_firmware_that_only_one_was_computed_for_is_no_difference(
    files: Files, firmware: dict[str, Path], tmp_path: Path
) -> None:
    plain = measured(files)
    whole = with_firmware(plain, files, Wishes(firmware))
    assert explain(written(tmp_path / "a", plain), written(tmp_path / "b", whole)) == []
    firmware["sev-snp"].write_bytes(made.snp_firmware(fill=b"\xcc"))
    other = with_firmware(plain, files, Wishes(firmware))
    found = explain(tmp_path / "b", written(tmp_path / "c", other))
    assert inputs(found) == ["sev-snp firmware"]
    assert found[0].reaches == ("sev-snp launch digest",)


def test_words_in_another_order_are_a_difference(files: Files, tmp_path: Path) -> None:
    first = written(tmp_path / "a", measured(replace(files, cmdline="a b")))
    second = written(tmp_path / "b", measured(replace(files, cmdline="b a")))
    (found,) = explain(first, second)
    assert (found.first, found.second) == ("the same words", "in another order")


def test_builds_tell_packages_and_settings(files: Files, tmp_path: Path) -> None:
    spec = {"gateway": {"port": 7001}, "engines": [{"name": "llamacpp"}]}
    other = {"gateway": {"port": 7002}, "engines": [{"name": "llamacpp"}]}
    first = written(tmp_path / "a", measured(files), packages={"haproxy": "3.0.1", "dash": "1"}, spec=spec)
    second = written(tmp_path / "b", measured(files), packages={"haproxy": "3.0.2", "dash": "1"}, spec=other)
    assert [(one.input, one.first, one.second) for one in explain(first, second)] == [
        ("package haproxy", "3.0.1", "3.0.2"),
        ("spec gateway.port", "7001", "7002"),
    ]


def test_the_command_explains(files: Files, tmp_path: Path) -> None:
    first = written(tmp_path / "a", measured(files))
    files.initrd.write_bytes(b"another")
    second = written(tmp_path / "b", measured(files))
    done = CliRunner().invoke(main, ["measure", "--explain", str(first), str(second)])
    assert done.exit_code == 0 and "initrd" in done.output and "tpm PCR 11" in done.output
    done = CliRunner().invoke(main, ["measure", "--explain", str(first), str(second), "--json"])
    assert [one["input"] for one in json.loads(done.output)] == ["initrd"]
    done = CliRunner().invoke(main, ["measure", "--explain", str(first), str(first)])
    assert "equal" in done.output


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["measure"], "nothing to measure"),
        (["measure", "starter", "--explain", "/", "/"], "takes no SPEC"),
        (["measure", "starter", "--firmware", "sgx=/x"], "not understood"),
    ],
)
def test_wrong_usage_is_exit_code_2(argv: list[str], words: str) -> None:
    done = CliRunner().invoke(main, argv)
    assert (done.exit_code, done.exception.__class__) == (UsageError.exit_code, SystemExit)
    assert words in done.output + done.stderr


# --- the manifest inside


def test_the_manifest_inside_names_engines_packs_and_models() -> None:
    loaded = load_spec("starter")
    text = render(loaded, [PACK])[PATH].content
    found = json.loads(text)
    assert (found["name"], found["version"], found["variant"]) == (
        loaded.spec.appliance.name,
        loaded.spec.appliance.version,
        loaded.spec.variant,
    )
    assert found["engines"] == ["llamacpp"]
    assert found["packs"] == [{"kind": "model", "name": "m", "root_hash": "cc" * 32}]
    (model,) = found["models"]
    assert model["name"] == "smollm2-135m"
    assert model["files"] == [
        {"name": file.name, "size": file.size, "sha256": file.sha256} for file in loaded.models[0].files
    ]
    assert render(loaded, [PACK])[PATH].content == text
