"""Appliance files that are right: short and long forms, defaults, round trips, the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.documents.size import format_size, parse_size
from hal.engines import load_engine
from hal.profiles import list_profiles, profile_path
from hal.spec.loading import LoadedSpec, Spec, SpecError, json_schema, load_spec, parse_spec, unsupported

SHORTEST = """\
appliance: {name: starter, version: 1.0.0}
engines: [llamacpp]
models: [smollm2-135m]
"""
SHA = "ab" * 32


def parsed(text: str, **folders: Path) -> LoadedSpec:
    return parse_spec(text, Path("appliance.yaml"), **folders)


def test_the_shortest_file_has_defaults_that_boot() -> None:
    loaded = parsed(SHORTEST)
    spec = loaded.spec
    assert (spec.base, spec.init, spec.arch, spec.tee) == ("debian", "systemd", "x86_64", "none")
    assert spec.gateway.port == 7001
    assert spec.network.dhcp
    assert [engine.name for engine in loaded.engines] == ["llamacpp"]
    assert [model.name for model in loaded.models] == ["smollm2-135m"]
    assert unsupported(spec) == []


def test_every_profile_is_valid_and_says_what_it_is() -> None:
    profiles = list_profiles(Path("build"))
    assert "starter" in [profile.name for profile in profiles]
    for profile in profiles:
        loaded = load_spec(profile.name)
        assert loaded.spec.appliance.name == profile.name
        assert loaded.path == profile_path(profile.name)
        assert profile.summary


def test_starter_is_a_debug_image_without_tokens() -> None:
    spec = load_spec("profiles/starter").spec
    assert spec.variant == "debug"
    assert spec.gateway.tokens == ()


def test_tokens_make_production_the_default() -> None:
    text = SHORTEST + f"gateway: {{tokens: [{{name: me, sha256: {SHA.upper()}}}]}}\n"
    spec = parsed(text).spec
    assert spec.variant == "production"
    assert spec.gateway.tokens[0].sha256 == SHA
    assert parsed(text + "variant: debug\n").spec.variant == "debug"
    assert parsed(SHORTEST).spec.variant == "debug"


@pytest.mark.parametrize(
    "engines",
    [
        "{llamacpp: {port: 8081, settings: {threads: 2}}}",
        "[llamacpp: {port: 8081, settings: {threads: 2}}]",
        "[{name: llamacpp, port: 8081, settings: {threads: 2}}]",
    ],
)
def test_engines_in_every_form(engines: str) -> None:
    loaded = parsed(SHORTEST.replace("[llamacpp]", engines))
    (choice,) = loaded.spec.engines
    assert (choice.name, choice.port, choice.settings) == ("llamacpp", 8081, {"threads": 2})
    assert loaded.port(loaded.engines[0]) == 8081


@pytest.mark.parametrize("engines", ["[llamacpp]", "{llamacpp: }", "{llamacpp: {}}", "[llamacpp: ]"])
def test_an_engine_by_its_name_alone(engines: str) -> None:
    loaded = parsed(SHORTEST.replace("[llamacpp]", engines))
    assert loaded.spec == parsed(SHORTEST).spec
    assert loaded.port(loaded.engines[0]) == 8080


def test_several_engines_keep_their_order(tmp_path: Path) -> None:
    raw = yaml.safe_load((Path(__file__).parents[2] / "hal/engines/llamacpp.yaml").read_text())
    for uid, name in ((950, "zebra"), (951, "apple")):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({**raw, "name": name, "uid": uid, "port": 8000 + uid})
        )
    text = SHORTEST.replace("[llamacpp]", "{zebra: {}, apple: {}}")
    assert [engine.name for engine in parsed(text, engines=tmp_path).engines] == ["zebra", "apple"]


def test_a_model_inline(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "t.gguf").write_bytes(b"abc")
    file = tmp_path / "a.yaml"
    file.write_text(
        SHORTEST.replace("[smollm2-135m]", "")
        + f"""
  - name: tiny
    format: gguf
    files: [{{name: t.gguf, size: 3, sha256: {SHA}, source: {{kind: file, path: weights/t.gguf}}}}]
  - {{name: smollm2-135m}}
"""
    )
    loaded = load_spec(str(file))
    assert [model.name for model in loaded.models] == ["tiny", "smollm2-135m"]
    assert loaded.models[0].memory_needed == 3
    served = loaded.served(loaded.engines[0])
    assert served is not None
    assert served.path == "/srv/models/tiny/t.gguf"
    assert Spec.model_validate(loaded.spec.model_dump(mode="json")) == loaded.spec


def test_sizes_have_units() -> None:
    spec = parsed(SHORTEST + "machine: {memory: 1.5G}\ndisk: {state: 64MiB}\n").spec
    assert spec.machine.memory == 1536 << 20
    assert spec.disk.state == 64 << 20


def test_a_fixed_address() -> None:
    text = "network: {dhcp: false, address: 2001:db8::2/64, gateway: 2001:db8::1, dns: [192.0.2.1]}\n"
    assert parsed(SHORTEST + text).spec.network.gateway == "2001:db8::1"


def test_dates_and_times_are_text() -> None:
    loaded = parsed(SHORTEST.replace("1.0.0", "2026-01-31"))
    assert loaded.spec.appliance.version == "2026-01-31"


def test_settings_are_in_one_order_whatever_the_file_says() -> None:
    one = parsed(SHORTEST.replace("[llamacpp]", "{llamacpp: {settings: {threads: 1, parallel: 2}}}"))
    two = parsed(SHORTEST.replace("[llamacpp]", "{llamacpp: {settings: {parallel: 2, threads: 1}}}"))
    assert json.dumps(one.spec.model_dump(mode="json")) == json.dumps(two.spec.model_dump(mode="json"))


def test_importing_the_spec_loads_nothing_heavy() -> None:
    heavy = ("requests", "rich", "jinja2", "pypi_simple")
    code = f"import hal.spec.loading, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Properties


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)


@st.composite
def valid_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Files that are right, in any of their forms."""
    choice = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "port": st.integers(8000, 9000),
                "settings": st.fixed_dictionaries(
                    {},
                    optional={"threads": st.integers(0, 64), "context_length": st.integers(16, 8192)},
                ),
            },
        )
    )
    engines = draw(
        st.sampled_from(
            [["llamacpp"], {"llamacpp": choice}, [{"llamacpp": choice}], [{"name": "llamacpp", **choice}]]
        )
    )
    holders = draw(st.lists(NAMES, unique=True, max_size=3))
    tokens = [{"name": name, "sha256": f"{index:064x}"} for index, name in enumerate(holders)]
    optional: dict[str, st.SearchStrategy[Any]] = {
        "tee": st.sampled_from(["none", "sev-snp", "tdx"]),
        "variant": st.sampled_from(["production", "debug"] if tokens else ["debug"]),
        "machine": st.fixed_dictionaries(
            {},
            optional={"memory": st.integers(704 << 20, 1 << 50) | st.just("4G"), "cpus": st.integers(1, 512)},
        ),
        "disk": st.fixed_dictionaries(
            {},
            optional={
                "state": st.integers(32 << 20, 1 << 50),
                "compression": st.sampled_from(["lz4", "lz4hc", "zstd"]),
            },
        ),
        "selector": st.sampled_from(
            [{"policy": "auto"}, {"policy": "llamacpp"}, {"preference": ["llamacpp"]}]
        ),
    }
    return {
        "appliance": {
            "name": draw(NAMES),
            "version": draw(st.from_regex(r"[0-9]\.[0-9]\.[0-9]", fullmatch=True)),
        },
        "engines": engines,
        "models": ["smollm2-135m"],
        "gateway": {"tokens": tokens, "port": draw(st.integers(1024, 7999))},
        **draw(st.fixed_dictionaries({}, optional=optional)),
    }


@given(valid_specs())
@settings(max_examples=60, deadline=None)
def test_a_valid_spec_comes_back_as_it_was(data: dict[str, Any]) -> None:
    spec = parsed(yaml.safe_dump(data)).spec
    dumped = spec.model_dump(mode="json")
    assert Spec.model_validate(dumped) == spec
    again = parsed(yaml.safe_dump(dumped)).spec
    assert again == spec
    assert json.dumps(again.model_dump(mode="json")) == json.dumps(dumped)


VOCABULARY = """
appliance name version engines llamacpp models smollm2-135m inline files settings port selector policy gateway
tokens sha256 source kind pypi x machine memory disk state network dns auto arch aarch64 vllm variant
"""
WORDS = st.sampled_from(VOCABULARY.split())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | WORDS
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)
SECTIONS = [
    "appliance",
    "engines",
    "models",
    "selector",
    "gateway",
    "disk",
    "network",
    "machine",
    "tee",
    "arch",
]


@given(st.dictionaries(st.sampled_from(SECTIONS), TREES, max_size=6) | TREES)
@settings(max_examples=300, deadline=None)
def test_any_yaml_is_a_spec_or_a_list_of_problems(data: Any) -> None:
    expect_spec_or_problems(yaml.safe_dump(data))


@given(st.text(max_size=60) | st.text(alphabet="{}[]:,-?&*!|>'\"%@#\n\t ab1.", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_spec_or_a_list_of_problems(text: str) -> None:
    expect_spec_or_problems(text)


@given(valid_specs(), st.data())
@settings(max_examples=150, deadline=None)
def test_one_broken_value_is_a_spec_or_a_list_of_problems(data: dict[str, Any], draw: st.DataObject) -> None:
    place: Any = data
    while True:
        key = draw.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw.draw(st.booleans()):
            break
        place = place[key]
    place[key] = draw.draw(TREES)
    expect_spec_or_problems(yaml.safe_dump(data))


def expect_spec_or_problems(text: str) -> None:
    try:
        loaded = parsed(text)
    except SpecError as error:
        assert error.details
        for line in error.details:
            file, number, problem = line.split(":", 2)
            assert file == "appliance.yaml"
            # YAML 1.1 (section 5.4) has more line breaks than "\n"; splitlines knows them all.
            assert 1 <= int(number) <= len(text.splitlines()) + 1
            assert problem.strip()
    else:
        assert isinstance(loaded.spec, Spec)


@given(st.integers(0, 1 << 60))
def test_bytes_stay_bytes(size: int) -> None:
    assert parse_size(size) == size
    assert format_size(size)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("4GiB", 4 << 30),
        ("0.5T", 1 << 39),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "1GB", "1 G", "-1", "1.G", "1e3", "0x10", "1B", "1.5", True, None, 1.5]
)
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1023, "1023"), (1 << 30, "1G"), (1536 << 20, "1.5G"), (98362432, "93.8M")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


# The schema for editors


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["required"] == ["appliance", "engines"]
    assert set(schema["properties"]) == set(Spec.model_fields)
    for place in [schema, *schema["$defs"].values()]:
        for key, value in place.get("properties", {}).items():
            assert "description" in value or "$ref" in value, key


def test_the_schema_refers_to_what_it_holds() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    used = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert used == set(schema["$defs"])


def test_the_schema_takes_what_hal_takes_and_refuses_what_it_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())

    @given(valid_specs())
    @settings(max_examples=40, deadline=None)
    def takes(data: dict[str, Any]) -> None:
        assert list(validator.iter_errors(data)) == []
        assert list(validator.iter_errors(parsed(yaml.safe_dump(data)).spec.model_dump(mode="json"))) == []

    takes()
    for wrong in (
        {"tee": "snp"},
        {"engines": []},
        {"engines": {"a": {"prot": 1}}},
        {"machine": {"memory": "2GB"}},
    ):
        assert list(validator.iter_errors({**yaml.safe_load(SHORTEST), **wrong})) != []


def test_settings_of_llamacpp_are_in_the_reference() -> None:
    reference = (Path(__file__).parents[2] / "docs/spec.md").read_text()
    for name, setting in load_engine("llamacpp").settings.items():
        assert f"`{name}` ({setting.default}" in reference
