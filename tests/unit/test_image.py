"""Disk layout, command line and identifiers: functions of values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.image.disk import MIB, PARTITION_TYPES, Partition, command_line, layout, partition_table
from hal.image.identifiers import named_uuid, salt
from hal.image.root import RootImage
from hal.image.verity import Verity

ROOT = RootImage(Path("root.erofs"), Path("root.verity"), Verity(18593, "aa" * 32, "bb" * 32))

sizes = st.lists(st.integers(min_value=1, max_value=3 * 1024 * MIB), min_size=1, max_size=12)


@given(sizes)
def test_partitions_are_aligned_apart_and_inside_the_disk(sizes: list[int]) -> None:
    partitions = [Partition(f"p{number}", "linux", size, None) for number, size in enumerate(sizes)]
    placed, disk = layout(partitions)
    end = MIB  # the primary partition table lies in the first MiB
    for item in placed:
        assert item.offset % MIB == 0
        assert item.offset >= end
        end = item.offset + item.partition.size
    assert end <= disk - MIB  # the backup table lies in the last


def test_the_partition_table_is_a_function_of_seed_and_partitions() -> None:
    placed, _ = layout(
        [Partition("esp", "esp", 10, None), Partition("starter_1.0.0", "root-x86_64", MIB + 1, None)]
    )
    table = partition_table(placed, "starter_1.0.0")
    assert table == partition_table(placed, "starter_1.0.0")
    lines = table.splitlines()
    assert lines[0] == "label: gpt"
    assert "start=2048, size=2048, " in lines[4]
    assert f"type={PARTITION_TYPES['root-x86_64']}" in lines[5]
    assert "start=4096, size=4096, " in lines[5]
    assert lines[5].endswith('name="starter_1.0.0"')
    assert table != partition_table(placed, "starter_1.0.1")


def test_the_command_line_names_root_hash_variant_and_state() -> None:
    line = command_line("x86_64", "production", "starter_1.0.0", ROOT, state=True).split()
    assert f"hal.root=starter_1.0.0,18593,{'aa' * 32},{'bb' * 32}" in line
    assert "hal.state=state" in line
    assert "hal.variant=production" in line
    assert "systemd.import_credentials=no" in line
    assert "panic=-1" in line


def test_a_debug_command_line_differs_and_a_stateless_one_names_no_state() -> None:
    silent = command_line("x86_64", "production", "s_1", ROOT, state=True, silent=True)
    assert "console=ttynull" in silent and "ttyS0" not in silent
    production = command_line("x86_64", "production", "s_1", ROOT, state=True)
    debug = command_line("x86_64", "debug", "s_1", ROOT, state=False)
    assert "hal.variant=debug" in debug.split()
    assert "systemd.import_credentials=no" not in debug
    assert "hal.state" not in debug
    assert production != debug


@pytest.mark.parametrize("make", [named_uuid, salt])
def test_identifiers_differ_by_seed_and_purpose(make) -> None:  # type: ignore[no-untyped-def]
    assert make("a_1", "root") == make("a_1", "root")
    assert len({make("a_1", "root"), make("a_1", "disk"), make("a_2", "root")}) == 3
