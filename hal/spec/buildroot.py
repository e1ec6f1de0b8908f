"""The part `buildroot` of an appliance file: what the base from source has besides hal's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hal.documents.strict import Line, Many, Matching, Value

_VALUE = r'(y|n|-?[0-9]+|0x[0-9a-fA-F]+|"[^"\x00-\x1f]*")'

ConfigLine = Annotated[
    str,
    Matching(
        rf"^(BR2_[A-Za-z0-9_]+={_VALUE}|# BR2_[A-Za-z0-9_]+ is not set)$",
        "a line of a Buildroot configuration, as BR2_PACKAGE_STRACE=y or # BR2_PACKAGE_STRACE is not set",
    ),
]
KernelLine = Annotated[
    str,
    Matching(
        rf"^(CONFIG_[A-Za-z0-9_]+={_VALUE}|# CONFIG_[A-Za-z0-9_]+ is not set)$",
        "a line of a kernel configuration, as CONFIG_NUMA=y or # CONFIG_NUMA is not set "
        "(the kernel has no modules)",
    ),
]


class Buildroot(Value):
    """What a Buildroot base has besides what hal asks for."""

    config: Many[ConfigLine] = Field(
        description="further lines of Buildroot's configuration; one that Kconfig does not take is an error",
        default=(),
    )
    kernel: Many[KernelLine] = Field(
        description="further lines of the kernel's configuration; likewise", default=()
    )
    sources: Line | None = Field(
        description="file that says where packages' sources come from instead, relative to the spec",
        default=None,
        min_length=1,
    )
