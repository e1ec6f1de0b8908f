"""Builds that are killed, interrupted or run side by side leave the last good output, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.build.builder import Builder, wait_until

KILLS = 10
COLD_KILLS = 4
"""Of builds that make their parts: each costs a whole base tree. `KILLS` of them were shown once, by hand."""

SEED = 7001


def instants(duration: float, count: int) -> list[float]:
    """Random instants (seconds), one in each of `count` equal parts of a build's duration."""
    draw = random.Random(SEED)
    return [(number + draw.random()) * duration / count for number in range(count)]


def check_killed_builds(builder: Builder, duration: float, count: int, *, forget: bool) -> None:
    """Kill builds at `count` instants; after each look at the output, at what is left, and build again."""
    killed = 0
    for instant in instants(duration, count):
        if forget:
            builder.forget_trees()
        before, spec = builder.digests(), builder.spec()
        process = builder.start(spec)
        time.sleep(instant)
        process.kill()
        process.communicate()
        interrupted = process.returncode == -signal.SIGKILL
        killed += interrupted
        print(f"killed after {instant:.2f} s of {duration:.2f}: {'yes' if interrupted else 'had ended'}")
        assert wait_until(lambda: not builder.left_running(), 5), builder.left_running()
        after = builder.digests()
        assert builder.is_complete()
        builder.build(spec)
        assert after == before or after == builder.digests(), f"half an output after {instant:.2f} s"
        assert builder.is_complete()
        assert builder.debris() == []
        assert builder.left_running() == []
    assert killed >= count / 2, "most builds ended before they were killed: this tested little"


@pytest.mark.slow
def test_a_killed_build_whose_parts_are_there(warm: Builder) -> None:
    warm.build(warm.spec())
    begin = time.monotonic()
    warm.build(warm.spec())
    check_killed_builds(warm, time.monotonic() - begin, KILLS, forget=False)


@pytest.mark.slow
def test_a_killed_build_that_makes_its_parts(builder) -> None:  # type: ignore[no-untyped-def]
    cold: Builder = builder(lambda name: False)
    begin = time.monotonic()
    cold.build(cold.spec())
    check_killed_builds(cold, time.monotonic() - begin, COLD_KILLS, forget=True)


@pytest.mark.parametrize("whole_group", [True, False], ids=["Ctrl-C", "kill -INT"])
def test_an_interrupted_build_says_so_in_one_line(warm: Builder, whole_group: bool) -> None:
    warm.build(warm.spec())
    before, spec = warm.digests(), warm.spec()
    process = warm.start(spec)
    assert wait_until(lambda: list(warm.out.glob(".work/tmp/robust.*/root.erofs")), 60)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line for line in said.splitlines() if not line.startswith("[")] == ["stopped"]
    assert warm.left_running() == []
    assert warm.debris() == []
    assert warm.digests() == before
    warm.build(spec)


@pytest.mark.slow
def test_an_interrupted_build_of_the_base(builder) -> None:  # type: ignore[no-untyped-def]
    """Ctrl-C while several parts are made side by side, each by programs of its own."""
    cold: Builder = builder(lambda name: name.startswith("tools-"))
    process = cold.start(cold.spec())
    assert wait_until(lambda: list(cold.cache.glob("tmp/base.*/usr")), 30)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == 1
    assert [line for line in said.splitlines() if not line.startswith("[")] == ["stopped"]
    assert cold.left_running() == []
    assert cold.debris() == []


def test_two_builds_at_once(warm: Builder) -> None:
    """Of one spec and output: both are good, and the second finds done what the first did."""
    spec = warm.spec()
    processes = [warm.start(spec) for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert warm.is_complete()
    assert warm.debris() == []


def test_builds_of_two_specs_at_once_end_with_one_of_them(warm: Builder) -> None:
    processes = [warm.start(warm.spec()) for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert warm.is_complete()
    assert warm.debris() == []
