"""The values of an appliance file. What they mean together is checked in `hal.spec.check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hal.documents.size import Size
from hal.documents.strict import EngineName, Line, Many, Matching, ModelName, Value
from hal.documents.wording import shown
from hal.engines.settings import Scalar
from hal.models import Delivery, Model
from hal.spec.buildroot import Buildroot
from hal.spec.gateway import Gateway, tls
from hal.spec.provision import Provision

Base = Literal["debian", "buildroot"]
Init = Literal["systemd", "sysv"]
Arch = Literal["x86_64", "aarch64"]
Tee = Literal["none", "sev-snp", "tdx"]
Variant = Literal["production", "debug"]
Compression = Literal["lz4", "lz4hc", "zstd"]

MIB = 1 << 20

ApplianceName = Annotated[
    str,
    Matching(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "small letters, digits and hyphens"),
]
"""It is the host name and part of partition labels, which `_` separates."""

ApplianceVersion = Annotated[
    str, Matching(r"^[0-9a-z]([0-9a-z.-]*[0-9a-z])?$", "digits, small letters, dots and hyphens, as 1.0.0")
]
"""What os-release(5) allows as IMAGE_VERSION, without `_`, which separates name and version in labels."""


class Appliance(Value):
    """What the image is called."""

    name: ApplianceName = Field(
        description="name of the image, its host name and its folder under build/", max_length=63
    )
    version: ApplianceVersion = Field(description="version of the image")


def _exclusive(value: object) -> object:
    if isinstance(value, bool) or value == "auto":
        return value
    words = f"must be auto, true or false, not {shown(value)}"
    raise PydanticCustomError("exclusive", "{words}", {"words": words})


Exclusive = Annotated[
    bool | Literal["auto"],
    BeforeValidator(_exclusive),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "const": "auto"}]}),
]


def _name_or_mapping(data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise PydanticCustomError(
            "choice", "{words}", {"words": f"must be a name or a mapping, not {shown(data)}"}
        )
    return data


class EngineChoice(Value):
    """An engine of the appliance, and what differs from its file."""

    name: EngineName = Field(description="name of the engine")
    version: Line | None = Field(
        description="version of the engine; default: the one that hal.lock pins", default=None, min_length=1
    )
    port: int | None = Field(
        description="port on loopback; default: the one of the engine's file",
        default=None,
        ge=1024,
        le=65535,
    )
    settings: dict[str, Scalar] = Field(
        description="settings of the engine, by name; its file says which there are", default={}
    )

    @model_validator(mode="before")
    @classmethod
    def _a_name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else _name_or_mapping(data)

    @field_validator("settings")
    @classmethod
    def _in_one_order(cls, settings: dict[str, Scalar]) -> dict[str, Scalar]:
        return dict(sorted(settings.items()))


class ModelChoice(Value):
    """A model of the appliance: one that hal knows by name, one in a file, or one that is written out."""

    name: ModelName = Field(description="name of the model")
    delivery: Delivery | None = Field(
        description="how it comes into the appliance, where that is not what its file says", default=None
    )
    file: Line | None = Field(description="the file that holds it, relative to the spec", default=None)
    inline: Model | None = Field(
        description="the model, where the spec says more than its name", default=None
    )

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, data: Any) -> Any:
        """A name alone is a known model, a path is a model's file; a mapping with more is a model itself."""
        if isinstance(data, str):
            data = {"name": data}
        _name_or_mapping(data)
        if isinstance(data.get("inline"), Model) or "file" in data:
            return data
        if data.keys() & Model.model_fields.keys() <= {"name", "delivery"}:
            name = data.get("name")
            return {**data, "name": model_stem(name), "file": name} if is_model_file(name) else data
        return {**{key: data[key] for key in ("name",) if key in data}, "inline": data}

    @model_serializer(mode="wrap")
    def _as_in_a_file(self, handler: SerializerFunctionWrapHandler) -> Any:
        if self.inline is not None:
            return handler(self)["inline"]
        name = self.file or self.name
        return name if self.delivery is None else {"name": name, "delivery": self.delivery}


def is_model_file(name: object) -> TypeGuard[str]:
    """Whether what stands for a model is the path of its file: names have neither slashes nor `.yaml`."""
    return isinstance(name, str) and ("/" in name or name.endswith(".yaml"))


def model_stem(path: str) -> str:
    """The name of the model that a file holds: `./models/qwen.yaml` holds `qwen`."""
    return path.rpartition("/")[2].removesuffix(".yaml")


class Selector(Value):
    """Which engine serves."""

    policy: EngineName = Field(
        description="auto: the first of `preference` that can; or the name of the one engine that serves",
        default="auto",
    )
    preference: Many[EngineName] = Field(
        description="engines in the order in which `auto` tries them; default: as in `engines`", default=()
    )
    exclusive: Exclusive = Field(
        description="whether only one engine runs at a time; auto: where two or more compute on a GPU",
        default="auto",
    )
    drain: int = Field(
        description="seconds that streams on the old engine get to end in a switch",
        default=60,
        ge=0,
        le=86400,
    )
    queue: int = Field(
        description="requests that may wait for an engine at the same time", default=512, ge=0, le=3500
    )
    wait: int = Field(description="seconds that a request waits for an engine", default=60, ge=0, le=3600)


class Disk(Value):
    """The disk image."""

    state: Size = Field(
        description="size of the state partition, the one that can be written", default=64 * MIB
    )
    compression: Compression = Field(
        description="compression of the root: lz4 builds fastest, zstd is smallest", default="lz4"
    )


class Network(Value):
    """The first network interface."""

    dhcp: bool = Field(description="whether the address comes by DHCP", default=True)
    address: Line | None = Field(
        description="fixed address with its prefix length, as 192.0.2.10/24; needs `dhcp: false`",
        default=None,
    )
    gateway: Line | None = Field(description="address of the router; needs `dhcp: false`", default=None)
    dns: Many[Line] = Field(
        description="addresses of name servers; with DHCP, besides those it gives", default=()
    )


class Machine(Value):
    """The virtual machine that the appliance is meant for."""

    memory: Size = Field(description="its memory", default=2048 * MIB)
    cpus: int = Field(description="its virtual CPUs", default=2, ge=1, le=512)


class Spec(Value):
    """An appliance: what `hal` makes of one YAML file."""

    appliance: Appliance = Field(description="what the image is called")
    base: Base = Field(description="what makes the root: Debian's packages, or sources", default="debian")
    buildroot: Buildroot = Field(
        description="for `base: buildroot`: what its configuration has besides hal's", default=Buildroot()
    )
    init: Init = Field(description="what runs as process 1", default="systemd")
    arch: Arch = Field(description="architecture of the machine", default="x86_64")
    tee: Tee = Field(
        description="trusted execution environment that the machine is started in", default="none"
    )
    variant: Variant = Field(
        description="production: no shell, no ssh, every request needs a token; debug: ssh with a key of the "
        "build's own. Default: production where `gateway.tokens` are given, else debug"
    )
    engines: Many[EngineChoice] = Field(description="the engines, in order of preference", min_length=1)
    models: Many[ModelChoice] = Field(description="the models that are in the appliance", default=())
    offline: bool = Field(
        description="that nothing is fetched at run time: a model with `delivery: network` is refused",
        default=False,
    )
    provision: Provision = Field(
        description="how models with `delivery: network` come in", default=Provision()
    )
    selector: Selector = Field(description="which engine serves", default=Selector())
    gateway: Gateway = Field(description="the listener that is reachable from outside", default=Gateway())
    disk: Disk = Field(description="the disk image", default=Disk())
    network: Network = Field(description="the network interface", default=Network())
    machine: Machine = Field(description="the virtual machine", default=Machine())

    @property
    def tls(self) -> bool:
        """Whether the gateway speaks TLS."""
        return tls(self.gateway, self.variant)

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        short = dict(data)
        if "engines" in short:
            short["engines"] = engine_list(short["engines"])
        short.setdefault("variant", default_variant(short.get("gateway")))
        return short


def default_variant(gateway: object) -> Variant:
    """The variant of a spec that names none.

    A production image without tokens would refuse every request, so that without them only a debug image
    is of use; whoever gives tokens means production.
    """
    tokens = gateway.get("tokens") if isinstance(gateway, Mapping) else getattr(gateway, "tokens", None)
    return "production" if tokens else "debug"


def engine_list(engines: object) -> object:
    """The engines of a file in their one long form, a list; what is in no known form stays as it is.

    A file may have a list of names, a mapping from names, or a list that mixes both.
    """
    if isinstance(engines, Mapping):
        return [_named(name, choice) for name, choice in engines.items()]
    if isinstance(engines, list | tuple):
        return [_named(*nest, item[nest[0]]) if (nest := nested_name(item)) else item for item in engines]
    return engines


def nested_name(item: object) -> tuple[str] | None:
    """The name in a list item of the form `- llamacpp: {port: 8081}`."""
    if isinstance(item, Mapping) and len(item) == 1:
        (name, choice), *_ = item.items()
        if (
            isinstance(name, str)
            and name not in EngineChoice.model_fields
            and isinstance(choice, Mapping | None)
        ):
            return (name,)
    return None


def _named(name: object, choice: object) -> object:
    """An engine's choice in its long form; the type of `settings` refuses what is no mapping."""
    if choice is None:
        return {"name": name}
    return {**choice, "name": name} if isinstance(choice, Mapping) else {"name": name, "settings": choice}
