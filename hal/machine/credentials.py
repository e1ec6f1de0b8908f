"""Secrets that a machine gets when it is booted: system credentials in SMBIOS strings, for debug images.

A secret reaches QEMU in a file, never on a command line, where every user of the host could read it.
Source: systemd.system-credentials(7), "SMBIOS Type 11"; qemu(1), `-smbios type=11,path=`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hal.documents.size import format_size
from hal.errors import UsageError
from hal.spec.gateway import CREDENTIAL_NAME

MOST_BYTES = 16 << 10
MOST_TOGETHER = 32 << 10
"""QEMU gives all strings together at most 64 KiB, and base64 makes four bytes of three."""

OWN = "ssh.authorized_keys.root"
"""The credential that hal gives itself: root's key for ssh."""

FORM = "give it as NAME=FILE, as in `--credential openai=key.txt`"

PRODUCTION_HINT = "for a first try take `variant: debug`; docs/boot.md says what there is for production"


def given(options: Sequence[str], variant: str) -> dict[str, bytes]:
    """The credentials that `--credential NAME=FILE` names, read.

    Raises:
        UsageError: one is malformed, there twice, cannot be read or is too large; or the image takes none.
    """
    if options and variant != "debug":
        raise UsageError(
            "a production image takes no credentials: the host that gives them is not trusted",
            PRODUCTION_HINT,
        )
    found: dict[str, bytes] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or not file:
            raise UsageError(f"--credential {_without_value(option)}: no file is named", FORM)
        if re.fullmatch(CREDENTIAL_NAME, name) is None:
            raise UsageError(f"--credential {name!r}: a name has letters, digits and any of . _ -", FORM)
        if name == OWN:
            raise UsageError(f"--credential {name}: hal gives this one itself", "take another name")
        if name in found:
            raise UsageError(f"--credential {name} is given twice")
        found[name] = _read(name, Path(file))
    size = sum(map(len, found.values()))
    if size > MOST_TOGETHER:
        raise UsageError(
            f"the credentials have {format_size(size)} together; at most {format_size(MOST_TOGETHER)} fit"
        )
    return found


def _without_value(option: str) -> str:
    """An option as it may be shown: what has no `=` may be the secret itself."""
    return "=" if option.endswith("=") else "…"


def _read(name: str, file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"--credential {name}={file}: {getattr(error, 'strerror', error)}") from None
    if not content:
        raise UsageError(f"--credential {name}={file}: the file is empty")
    if len(content) > MOST_BYTES:
        raise UsageError(f"--credential {name}={file}: larger than {format_size(MOST_BYTES)}")
    return content


def smbios_string(name: str, content: bytes) -> str:
    """A credential as systemd reads it from an SMBIOS string."""
    return f"io.systemd.credential.binary:{name}={base64.b64encode(content).decode()}"


def paths(names: Iterable[str], folder: Path) -> tuple[Path, ...]:
    """The files that hold credentials for QEMU."""
    return tuple(folder / f"credential-{name}" for name in names)


def write(credentials: Mapping[str, bytes], folder: Path) -> None:
    """Write credentials for QEMU, readable for this user only."""
    for path, (name, content) in zip(paths(credentials, folder), credentials.items(), strict=True):
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(smbios_string(name, content))


def remove(credentials: Iterable[str], folder: Path) -> None:
    """Take the files away again, when the machine has ended."""
    for path in paths(credentials, folder):
        path.unlink(missing_ok=True)
