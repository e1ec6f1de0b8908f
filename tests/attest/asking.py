"""An honest machine with a TPM behind HTTPS, and how tests ask it through `hal verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from hal.cli.main import main
from tests.attest.machines import MANIFEST, Situation, manifest_text, spki
from tests.attest.tpm_machine import tpm_machine

HONEST = tpm_machine()
PINNED = spki(HONEST.key)


def hal_verify(url: str, files: Path, *options: str) -> Result:
    arguments = ["verify", url, "--measurements", str(files / "measurements.json")]
    return CliRunner().invoke(main, [*arguments, "--tpm-key", str(files / "ak.pem"), *options])


def unknown_pack(situation: Situation) -> bytes:
    """An honest machine with a pack that nobody measured."""
    pack = {"kind": "model", "name": "evil", "root_hash": "22" * 32}
    packs = [*MANIFEST["packs"], pack]  # type: ignore[misc]
    return HONEST.document(replace(situation, manifest=manifest_text({**MANIFEST, "packs": packs})))
