"""UEFI variable stores as a host would prepare them: edk2's format, written by `virt-firmware`."""

from __future__ import annotations

from pathlib import Path

from virt.firmware.efi import efivar, guids
from virt.firmware.varstore.edk2 import Edk2VarStore

SYSTEMD = "8cf2644b-4b0b-428f-9387-6d876050dc67"
"""The vendor of systemd's variables (systemd's src/fundamental/efivars-fundamental.h)."""

OWNER = guids.OvmfEnrollDefaultKeys


def set_text(store: Path, name: str, value: str, vendor: str = SYSTEMD) -> None:
    """Add a variable that holds text."""
    data = f"{value}\0".encode("utf-16-le")
    known = Edk2VarStore(str(store))
    variables = known.get_varlist()
    variables[name] = efivar.EfiVar(name, guid=vendor, attr=7, data=data)
    known.write_varstore(str(store), variables)


def enroll(store: Path, certificate: Path) -> None:
    """Turn on secure boot with this certificate (PEM) as the only authority."""
    known = Edk2VarStore(str(store))
    variables = known.get_varlist()
    for name in ("PK", "KEK", "db"):
        variables.add_cert(name, OWNER, str(certificate), True)
    variables.enable_secureboot()
    known.write_varstore(str(store), variables)
