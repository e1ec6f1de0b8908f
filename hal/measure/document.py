"""`measurements.json`: what an appliance will measure as, for each platform and shape of machine.

Its JSON Schema is measurements.schema.json, made from these values. It holds no time and no path: equal
builds have equal documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from hal.documents.strict import Many, Matching, Sha256, Value
from hal.errors import HalError

NAME = "measurements.json"
SCHEMA_FILE = Path(__file__).with_name("measurements.schema.json")

Hex384 = Annotated[str, Matching(r"^[0-9a-f]{96}$", "48 bytes as 96 small hexadecimal digits")]
Platform = Literal["sev-snp", "tdx", "tpm"]

NEEDED_PCRS = frozenset({4, 11, 12})
"""Without these, a TPM's entry would not say what was booted, nor with which command line."""

PCRS = range(24)


def _pcrs_that_say_what_booted(pcrs: Mapping[str, str]) -> Mapping[str, str]:
    if not pcrs.keys() <= set(map(str, PCRS)) or not pcrs.keys() >= set(map(str, NEEDED_PCRS)):
        words = "name the PCRs {named}; they need {needed}, which say what was booted, and others up to 23"
        named = {"named": ", ".join(pcrs) or "none", "needed": ", ".join(map(str, sorted(NEEDED_PCRS)))}
        raise PydanticCustomError("pcrs", words, named)
    return pcrs


class Image(Value):
    """Which appliance it is."""

    name: str
    version: str
    variant: Literal["production", "debug"]
    debug: bool = Field(description="true: root can log in; verifiers refuse it unless told otherwise")


class Inputs(Value):
    """What the values were computed from, so that two documents can be compared (`hal measure --explain`)."""

    kernel: Sha256 = Field(description="of vmlinuz")
    initrd: Sha256 = Field(description="of initrd")
    command_line: str = Field(description="the kernel's command line, as QEMU passes it on")
    uki: Sha256 = Field(description="of uki.efi")
    partition_table: Sha256 = Field(description="of the disk's GPT as firmware measures it")


class SnpLaunch(Value):
    """A SEV-SNP machine that boots the kernel directly, with its hashes in the firmware."""

    vcpus: int = Field(ge=1)
    vcpu_type: str = Field(description="QEMU's name of the CPU model")
    firmware_sha256: Sha256
    launch_digest: Hex384 = Field(description="MEASUREMENT of the attestation report")

    @property
    def words(self) -> str:
        """This shape of machine in a few words."""
        return f"{self.vcpus} vCPUs {self.vcpu_type}, firmware {self.firmware_sha256[:12]}…"


class TdxRegisters(Value):
    """A TDX machine with all its registers."""

    boot: Literal["direct", "uki"]
    vcpus: int = Field(ge=1)
    memory: int = Field(description="in bytes")
    behaviour: str = Field(description="which release of edk2 the firmware behaves as")
    firmware_sha256: Sha256
    mrtd: Hex384
    rtmr0: Hex384
    rtmr1: Hex384
    rtmr2: Hex384
    rtmr3: Hex384

    @property
    def words(self) -> str:
        """This shape of machine in a few words."""
        size = f"{self.vcpus} vCPUs, {self.memory >> 20} MiB"
        return f"{self.boot} boot, {size}, firmware {self.firmware_sha256[:12]}…"


class TdxPart(Value):
    """A TDX machine without RTMR 0, which is not computed: nothing can be verified by it alone."""

    boot: Literal["direct", "uki"]
    behaviour: str = Field(description="which release of edk2 the firmware behaves as")
    firmware_sha256: Sha256
    mrtd: Hex384
    rtmr1: Hex384
    rtmr2: Hex384
    rtmr3: Hex384


class TpmPcrs(Value):
    """A machine whose UEFI firmware starts the UKI from the disk, with a TPM 2.0."""

    firmware_sha256: Sha256 | None = Field(
        default=None, description="the firmware that this was seen with; no PCR here depends on it"
    )
    secure_boot: bool = Field(default=False, description="whether firmware asks for signatures (PCR 4)")
    pcrs: Annotated[Mapping[str, Sha256], AfterValidator(_pcrs_that_say_what_booted)] = Field(
        description="by number, of the SHA-256 bank"
    )

    @property
    def values(self) -> dict[int, bytes]:
        """The PCRs by number, in order."""
        return {number: bytes.fromhex(self.pcrs[str(number)]) for number in sorted(map(int, self.pcrs))}


class Platforms(Value):
    """The values by platform; an empty list: none were computed."""

    model_config = ConfigDict(populate_by_name=True)

    sev_snp: Many[SnpLaunch] = Field(alias="sev-snp", default=())
    tdx: Many[TdxRegisters] = ()
    tpm: Many[TpmPcrs] = ()


class Parts(Value):
    """Values of machines that lack others, by platform."""

    tdx: Many[TdxPart] = ()


class Refusal(Value):
    """A value that was not computed, and the reason."""

    platform: Platform
    value: str
    why: str


class Measurements(Value):
    """What an appliance will measure as (docs/measurements.md)."""

    version: Literal[1] = 1
    image: Image
    root_hash: Sha256 = Field(description="of the root's dm-verity tree")
    packs: Mapping[str, Sha256] = Field(description="the root hash of each pack, by its name")
    manifest_sha256: Sha256 = Field(description="of /usr/lib/hal/manifest.json in the image")
    inputs: Inputs
    platforms: Platforms = Field(description="what verifiers compare with")
    partial: Parts = Parts()
    refused: Many[Refusal] = ()

    def text(self) -> str:
        """The document as it is written."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True) + "\n"


def place(path: Path) -> Path:
    """The document's file; a directory stands for the build in it."""
    return path / NAME if path.is_dir() else path


def read(path: Path) -> Measurements:
    """Read a document, or that of the build in a directory.

    Raises:
        HalError: there is none, or it is not valid.
    """
    file = place(path)
    try:
        return parse(file.read_bytes(), file)
    except OSError as error:
        raise HalError(f"{file}: {error.strerror}", "`hal build SPEC` writes one") from None


def parse(data: bytes, file: Path) -> Measurements:
    """The document in `data`; `file` names it in errors.

    Raises:
        HalError: it is not valid.
    """
    try:
        return Measurements.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        problem = f"{file}: not measurements: {place}: {first['msg']}"
        raise HalError(problem, "see docs/measurements.md") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document (draft 2020-12)."""
    schema = Measurements.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
