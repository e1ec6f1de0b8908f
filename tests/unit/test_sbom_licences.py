"""Licences: what Debian, Python packages and Buildroot call them becomes SPDX's expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_expression import get_spdx_licensing

from hal.sbom.licences import all_of, is_listed, normal, of_buildroot, of_debian, of_python, tables


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2", "GPL-2.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GPL-2.0-only", "GPL-2.0-only"),
        ("GPL", "GPL-1.0-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("BSD-3-clause-Oracle", "LicenseRef-debian-BSD-3-clause-Oracle"),
        ("public-domain", "LicenseRef-debian-public-domain"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        ("GPL-3+-WITH-BISON-EXCEPTION", "GPL-3.0-or-later WITH Bison-exception-2.2"),
        ("GPL-3+ with autoconf exception", "GPL-3.0-or-later WITH Autoconf-exception-3.0"),
        ("GPL-2+ with autoconf exception", "GPL-2.0-or-later WITH Autoconf-exception-2.0"),
        ("GPL-2+ with Autoconf-data exception", "LicenseRef-debian-GPL-2-with-Autoconf-data-exception"),
        ("LGPL-2.1+-with-link-exception", "LicenseRef-debian-LGPL-2.1-with-link-exception"),
        ("GPL-1+ or Artistic", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        # `and` binds before `or`, and a comma looser than both (copyright-format 1.0).
        ("ISC or GPL-2 and MIT", "(GPL-2.0-only AND MIT) OR ISC"),
        ("GPL-1+ or Artistic, and Expat", "(Artistic-1.0-Perl OR GPL-1.0-or-later) AND MIT"),
        ("MPL-1.1 or GPL-2+ or LGPL-2.1+", "GPL-2.0-or-later OR LGPL-2.1-or-later OR MPL-1.1"),
        ("Permission to use, " * 5, "LicenseRef-debian-Permission-to-use"),
    ],
)
def test_a_licence_of_debian(name: str, expression: str) -> None:
    assert of_debian(name) == expression


def test_a_text_in_the_place_of_a_name_is_not_taken_for_one() -> None:
    text = "Permission to use copy modify distribute and sell this software for any purpose is granted"
    assert "LicenseRef-debian-text" in of_debian(text.replace(" and ", " "))


def test_a_work_is_under_all_of_its_licences_each_named_once() -> None:
    found = all_of(["MIT", "(ISC OR MIT) AND GPL-2.0-only", "GPL-2.0-only", "ISC OR MIT", "", "MIT AND Zlib"])
    assert found == "GPL-2.0-only AND (ISC OR MIT) AND MIT AND Zlib"
    assert all_of([]) == ""
    assert all_of(["ISC OR MIT"]) == "ISC OR MIT"


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "found"),
    [
        ("MIT", "BSD", ["License :: OSI Approved :: Apache Software License"], "MIT"),
        ("mit and apache-2.0", "", [], "MIT AND Apache-2.0"),
        ("LicenseRef-NVIDIA-Proprietary", "", [], "LicenseRef-NVIDIA-Proprietary"),
        ("Apache-2.0 WITH LLVM-exception", "", [], "Apache-2.0 WITH LLVM-exception"),
        ("GPL-2.0+", "", [], "GPL-2.0-or-later"),
        ("", "Apache License 2.0", [], "Apache-2.0"),
        ("", "Apache-2.0", [], "Apache-2.0"),
        ("", "BSD", ["License :: OSI Approved :: BSD License"], "LicenseRef-python-BSD"),
        ("", "MIT License\n\nCopyright (c) somebody\n" + "word " * 200, [], "MIT"),
        ("", "Copyright\n" + "word " * 200, ["License :: OSI Approved :: MIT License"], "MIT"),
        ("", "UNKNOWN", ["License :: OSI Approved"], ""),
        ("", "", ["Programming Language :: Python"], ""),
        ("", "NVIDIA Proprietary Software", [], "LicenseRef-python-NVIDIA-Proprietary-Software"),
        (
            "",
            "",
            ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: ISC License (ISCL)"],
            "ISC AND MIT",
        ),
        ("MIT AND", "", [], "LicenseRef-python-MIT-AND"),
    ],
)
def test_a_licence_of_a_wheel(expression: str, text: str, classifiers: list[str], found: str) -> None:
    assert of_python(expression, text, classifiers) == found


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("GPL-2.0, bzip2-1.0.6", "GPL-2.0-only AND bzip2-1.0.6"),
        (
            "LGPL-2.1+, GPL-2.0+ (udev), Public Domain (few source files, see LICENSES/README.md)",
            "GPL-2.0-or-later AND LGPL-2.1-or-later AND LicenseRef-buildroot-Public-Domain",
        ),
        (
            "AFL-2.1 or GPL-2.0+ (library, tools), GPL-2.0+ (tools)",
            "(AFL-2.1 OR GPL-2.0-or-later) AND GPL-2.0-or-later",
        ),
        ("BSD-0-Clause", "0BSD"),
        ("", ""),
    ],
)
def test_a_licence_of_buildroot(text: str, expression: str) -> None:
    assert of_buildroot(text) == expression


def test_the_tables_name_nothing_that_spdx_does_not_list() -> None:
    licensing = get_spdx_licensing()
    for name in ("debian", "python", "buildroot"):
        assert [entry for entry in tables()[name].values() if not is_listed(entry)] == []
    for entry in [*tables()["exceptions"].values(), *tables()["read"].values()]:
        unknown = licensing.unknown_license_keys(licensing.parse(entry))
        assert [key for key in unknown if not key.startswith("LicenseRef-")] == []


LICENSING = get_spdx_licensing()


@given(st.text(max_size=80))
def test_whatever_is_said_becomes_an_expression(text: str) -> None:
    for expression in (of_debian(text), of_buildroot(text), of_python(text, text, [text]), normal(text, "x")):
        assert LICENSING.parse(expression) is not None or not expression
        assert not re.search(r"[^A-Za-z0-9.+() -]", expression)
