"""What docs/verify.md tells people to type gives what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.attest.appliance import Appliance, tls_key
from tests.attest.asking import hal_verify
from tests.attest.machines import Situation, sha256, spki

DOCUMENT = Path(__file__).parents[2] / "docs" / "verify.md"


def shell_block(containing: str) -> str:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if containing in block)
    return str(found)


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    for program in ("openssl", "curl", "xxd"):
        if program in script and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return subprocess.run(
        ["sh", "-c", script], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )


def test_the_recipe_with_openssl_gives_the_attested_key(appliance: Appliance, files: Path) -> None:
    attested = json.loads(hal_verify(appliance.url, files, "--json").output)["tls_key_sha256"]
    done = shell(shell_block("openssl s_client"), host=f"127.0.0.1:{appliance.port}")
    assert done.stdout.split()[:1] == [attested], done.stderr


def test_the_recipe_with_curl_holds_to_the_key(appliance: Appliance) -> None:
    where = {"host": f"127.0.0.1:{appliance.port}", "https_proxy": "", "no_proxy": "*"}
    for key, good in ((tls_key("gateway"), True), (tls_key("another"), False)):
        done = shell(shell_block("--pinnedpubkey"), tls_key_sha256=sha256(spki(key)).hex(), **where)
        assert (done.returncode == 0) is good, done.stderr
        assert ('"object": "list"' in done.stdout) is good


def test_the_recipe_for_report_data_gives_it() -> None:
    situation = Situation()
    done = shell(
        shell_block("sha512sum"),
        nonce=situation.nonce.hex(),
        tls_key_sha256=situation.tls_key_sha256.hex(),
        manifest_sha256=sha256(situation.manifest).hex(),
    )
    assert done.stdout.split()[:1] == [situation.report_data.hex()], done.stderr


def test_what_the_documents_say_of_offsets_is_so() -> None:
    samples = Path(__file__).parents[1] / "data" / "evidence"
    quote = (samples / "tdx-ccel-quote.bin").read_bytes()
    assert quote[568:632] == (samples / "tdx-ccel-nonce.bin").read_bytes()
    report = (samples / "snp-report-milan.bin").read_bytes()
    assert report[80:144] == bytes([1, 2, 3, 4, 5]).ljust(64, b"\0")
